"""Which accelerators this machine has, as their own command line tools tell it. Knows nothing of engines; loads no driver library.

A tool that is missing, fails or hangs means "none seen", never an error. The output formats of nvidia-smi, rocm-smi and
system_profiler are parsed from examples; no UUID or serial number is asked for.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TOOL_TIMEOUT_S = 10.0
"""nvidia-smi takes seconds when no persistence daemon keeps the driver loaded."""

NVIDIA_FIELDS = ("name", "memory.total", "driver_version")
NVIDIA_DETAIL = ("compute_cap", "power.limit", "clocks.max.sm", "pcie.link.gen.max", "pcie.link.width.max", "mig.mode.current")


@dataclass(frozen=True)
class Gpu:
    """One accelerator. detail: what else its tool said, under the tool's own names and units."""

    name: str
    memory_bytes: int | None = None
    driver: str | None = None
    detail: Mapping[str, str] = field(default_factory=dict)


def gpus() -> tuple[Gpu, ...]:
    """Every accelerator that a tool on this machine tells of, in the tool's order."""
    if sys.platform == "darwin":
        return parse_system_profiler(ask(["system_profiler", "SPDisplaysDataType", "-json"], TOOL_TIMEOUT_S) or "")
    return _nvidia() + parse_rocm_smi(
        ask(["rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json"], 10.0) or ""
    )


def _nvidia() -> tuple[Gpu, ...]:
    for fields in (NVIDIA_FIELDS + NVIDIA_DETAIL, NVIDIA_FIELDS):  # one field unknown to an old driver fails the whole query
        said = ask(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"], TOOL_TIMEOUT_S)
        if said:
            return parse_nvidia_smi(said, fields)
    return ()


def parse_nvidia_smi(text: str, fields: Sequence[str]) -> tuple[Gpu, ...]:
    """CSV without header and units, one row per GPU; memory is in MiB, and what a GPU does not have reads [N/A]."""
    found = []
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if len(row) != len(fields):  # a warning among the rows
            continue
        said = {name: value for name, value in zip(fields, row, strict=True) if not value.startswith("[")}
        memory = said.pop("memory.total", "")
        name, driver = said.pop("name", "unknown"), said.pop("driver_version", None)
        found.append(Gpu(name, int(memory) * 2**20 if memory.isdigit() else None, driver, said))
    return tuple(found)


def parse_rocm_smi(text: str) -> tuple[Gpu, ...]:
    """JSON with one object per card and one, `system`, with the driver's version."""
    cards = _json_object(text)
    driver = _text(_object(cards.get("system")), "Driver version")
    found = []
    for key, value in sorted(cards.items()):
        if key.startswith("card"):
            card = _object(value)
            memory = _text(card, "VRAM Total Memory (B)") or ""
            name = _text(card, "Card Series", "Card series", "Card Model", "Card model") or "AMD GPU"
            gfx = _text(card, "GFX Version")
            found.append(Gpu(name, int(memory) if memory.isdigit() else None, driver, {"GFX Version": gfx} if gfx else {}))
    return tuple(found)


def parse_system_profiler(text: str) -> tuple[Gpu, ...]:
    """JSON of SPDisplaysDataType. An Apple chip's GPU shares the machine's memory, so it has none of its own."""
    listed = _json_object(text).get("SPDisplaysDataType")
    found = []
    for item in listed if isinstance(listed, list) else []:
        display = _object(item)
        cores = _text(display, "sppci_cores")
        name = _text(display, "sppci_model", "_name") or "GPU"
        found.append(Gpu(name, detail={"sppci_cores": cores} if cores else {}))
    return tuple(found)


def _json_object(text: str) -> dict[str, object]:
    try:
        return _object(json.loads(text))
    except ValueError:
        return {}


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(data: Mapping[str, object], *keys: str) -> str | None:
    """The first of these keys that holds a text."""
    return next((value for key in keys if isinstance(value := data.get(key), str)), None)


def ask(argv: Sequence[str], timeout_s: float) -> str | None:
    """What a quick read-only command prints; None when it is not there, fails or takes too long."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
