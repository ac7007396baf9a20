"""Which accelerators this machine has: NVIDIA's through NVML, others through their command line tools. Does not know engines.

A library or tool that is missing or fails means that there is no such accelerator, never an error. The output formats of rocm-smi and
system_profiler are parsed from examples. No UUID or serial number is read.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from enginebench.machine import nvml

TOOL_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Gpu:
    name: str
    memory_bytes: int | None = None
    driver: str | None = None
    detail: Mapping[str, str] = field(default_factory=dict)
    """Further facts under the names and units of the vendor's tool (nvidia-smi's query fields, for one)."""


NVIDIA_DETAIL: Mapping[str, Callable[[Any, Any], object]] = {
    "compute_cap": lambda lib, gpu: "{}.{}".format(*lib.nvmlDeviceGetCudaComputeCapability(gpu)),
    "power.limit": lambda lib, gpu: f"{lib.nvmlDeviceGetPowerManagementLimit(gpu) / 1e3:.2f}",
    "clocks.max.sm": lambda lib, gpu: lib.nvmlDeviceGetMaxClockInfo(gpu, lib.NVML_CLOCK_SM),
    "pcie.link.gen.max": lambda lib, gpu: lib.nvmlDeviceGetMaxPcieLinkGeneration(gpu),
    "pcie.link.width.max": lambda lib, gpu: lib.nvmlDeviceGetMaxPcieLinkWidth(gpu),
    "mig.mode.current": lambda lib, gpu: "Enabled" if lib.nvmlDeviceGetMigMode(gpu)[0] else "Disabled",
}
"""nvidia-smi's name -> the question to NVML, in nvidia-smi's units."""


def gpus() -> tuple[Gpu, ...]:
    if sys.platform == "darwin":
        return parse_system_profiler(ask(["system_profiler", "SPDisplaysDataType", "-json"], TOOL_TIMEOUT_S) or "")
    rocm = ask(["rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json"], TOOL_TIMEOUT_S)
    return nvidia_gpus() + parse_rocm_smi(rocm or "")


def nvidia_gpus() -> tuple[Gpu, ...]:
    """NVIDIA's devices; what one does not have (its own memory, a power limit) is left out."""
    try:
        with nvml.opened() as lib:
            driver = nvml.text(lib.nvmlSystemGetDriverVersion())
            return tuple(_nvidia_gpu(lib, handle, driver) for _, handle in nvml.devices(lib))
    except LookupError:
        return ()


def _nvidia_gpu(lib: Any, handle: Any, driver: str) -> Gpu:
    name = nvml.answer(lib, lambda: nvml.text(lib.nvmlDeviceGetName(handle)))
    memory = nvml.answer(lib, lambda: int(lib.nvmlDeviceGetMemoryInfo(handle).total))
    detail = {key: nvml.answer(lib, lambda question=question: question(lib, handle)) for key, question in NVIDIA_DETAIL.items()}  # type: ignore[misc]  # a lambda with a default
    return Gpu(name or "NVIDIA GPU", memory, driver, {key: str(value) for key, value in detail.items() if value is not None})


def parse_rocm_smi(text: str) -> tuple[Gpu, ...]:
    """JSON with an object per card, and an object `system` with the driver's version."""
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
    displays = [_object(item) for item in listed] if isinstance(listed, list) else []
    cores = [_text(display, "sppci_cores") for display in displays]
    names = [_text(display, "sppci_model", "_name") or "GPU" for display in displays]
    return tuple(Gpu(name, detail={"sppci_cores": core} if core else {}) for name, core in zip(names, cores, strict=True))


def _json_object(text: str) -> dict[str, object]:
    try:
        return _object(json.loads(text))
    except ValueError:
        return {}


def _object(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _text(data: Mapping[str, object], *keys: str) -> str | None:
    """The value of the first of these keys that holds a string."""
    return next((value for key in keys if isinstance(value := data.get(key), str)), None)


def ask(argv: Sequence[str], timeout_s: float) -> str | None:
    """The output of a quick read-only command; None when it is missing, fails or takes too long."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return done.stdout.strip()
