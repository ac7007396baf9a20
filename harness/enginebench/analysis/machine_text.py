"""The machine of a run in a few words."""

from __future__ import annotations

from collections.abc import Mapping

from enginebench.domain import JSON
from enginebench.domain.formatting import counted


def machine_text(machine: Mapping[str, JSON]) -> str:
    """'4x NVIDIA H100', or 'AMD EPYC, 2 cores' without GPUs."""
    gpus = machine.get("gpus")
    names = [str(gpu.get("name", "")) for gpu in gpus if isinstance(gpu, dict)] if isinstance(gpus, list) else []
    if names:
        return ", ".join(f"{names.count(name)}x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names))
    return cpu_text(machine)


def cpu_text(machine: Mapping[str, JSON]) -> str:
    cores = machine.get("usable_cores") or machine.get("logical_cores")
    cpu = machine.get("cpu")
    name = cpu.get("model") if isinstance(cpu, dict) else cpu
    cpu = str(name or "").split(" with ")[0].removesuffix(" Processor").replace("(R)", "").replace("(TM)", "")
    return ", ".join(filter(None, (cpu, counted(cores, "core") if isinstance(cores, int) else "")))
