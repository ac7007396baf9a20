"""The labels by which a scenario can ask for a machine like this one. Cluster software takes them, too, as labels of nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from enginebench.domain import JSON, plain_object
from enginebench.machine.host import facts


def labels_of(machine: Mapping[str, JSON], engines: Mapping[str, str]) -> dict[str, str]:
    """'gpu' ('nvidia-h100-80gb-hbm3'), 'gpus', 'cpu', 'cores', 'arch', and for each engine 'engine-vllm' with its version."""
    data: Any = machine
    gpus = [str(gpu["name"]) for gpu in data.get("gpus") or ()]
    found = {
        "arch": data.get("architecture"), "cpu": word(str(data.get("cpu") or "")), "cores": data.get("usable_cores"), "gpus": len(gpus),
        "gpu": word(gpus[0]) if gpus and len(set(gpus)) == 1 else "mixed" if gpus else "none",
    }  # fmt: skip
    return {name: str(value) for name, value in found.items() if value not in (None, "")} | {
        f"engine-{name}": version for name, version in engines.items()
    }


def word(text: str) -> str:
    """A text as a label: 'NVIDIA H100 80GB HBM3' -> 'nvidia-h100-80gb-hbm3', at most 63 characters as clusters want it."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:63].strip("-._")


def labels_text() -> str:
    """The labels of this machine, but those of its engines, as `ray start --labels` takes them."""
    return ",".join(f"{name}={value}" for name, value in labels_of(plain_object(facts()), {}).items())
