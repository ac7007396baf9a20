"""NVIDIA GPUs through NVML, the library that nvidia-smi uses. No UUID or serial number is asked for; nothing is ever set.

Whatever a device or driver does not support is left out. Of a MIG device the parent is read, whose power all its instances share.
Unverified on real hardware; the tests play a device through a library of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pynvml

from enginebench.records.throttle import Throttle
from enginebench.telemetry.source import Values, compute_processes, told

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.records.subject import Kind

T = TypeVar("T")

REASONS = {
    0x04: Throttle.POWER_CAP,
    0x08: Throttle.HARDWARE,
    0x20: Throttle.HEAT,
    0x40: Throttle.HEAT,
    0x80: Throttle.POWER_BRAKE,
}
"""NVML's clocks-event reasons. Idle, application clocks, sync boost and the display are no throttling."""


@dataclass(frozen=True)
class NvidiaGpu:
    """One device. ours: the process ids of the engine at this moment."""

    nvml: Any
    handle: Any
    name: str
    ours: Callable[[], frozenset[int]]
    kind: Kind = "gpu"

    @property
    def facts(self) -> Mapping[str, JSON]:
        nvml, handle = self.nvml, self.handle
        memory = self._told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total)
        model = self._told(lambda: _text(nvml.nvmlDeviceGetName(handle)))
        limit = _scaled(self._told(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle)), 1e-3)
        default = _scaled(self._told(lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle)), 1e-3)
        return {"vendor": "NVIDIA", "model": model, "memory_bytes": memory, "limit_watts": limit, "default_limit_watts": default}

    def read(self) -> Values:
        nvml, handle = self.nvml, self.handle
        processes = self._told(lambda: frozenset(int(process.pid) for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)))
        return {
            "utilisation": _scaled(self._told(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu), 1e-2),
            "memory_bytes": self._told(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            "watts": _scaled(self._told(lambda: nvml.nvmlDeviceGetPowerUsage(handle)), 1e-3),
            "energy_j": _scaled(self._told(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)), 1e-3),
            "sm_mhz": self._told(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "memory_mhz": self._told(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            "celsius": self._told(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "throttle": self._throttle(),
            **compute_processes(processes, self.ours()),
        }

    def _throttle(self) -> float | None:
        """Drivers before 530 have the older of the two names only."""
        nvml = self.nvml
        mask = self._told(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(self.handle))
        if mask is None:
            mask = self._told(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle))
        return None if mask is None else float(throttle(mask))

    def _told(self, ask: Callable[[], T]) -> T | None:
        return told(ask, self.nvml.NVMLError)


def throttle(mask: int) -> Throttle:
    """NVML's reasons in the words of every vendor."""
    found = Throttle(0)
    for bit, reason in REASONS.items():
        found |= reason if mask & bit else Throttle(0)
    return found


def nvidia_gpus(ours: Callable[[], frozenset[int]] = frozenset) -> list[NvidiaGpu]:
    """Every device of this machine, in NVML's order; empty where NVML does not answer."""
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return []
    handles = [told(lambda index=index: pynvml.nvmlDeviceGetHandleByIndex(index), pynvml.NVMLError) for index in range(count)]  # type: ignore[misc]
    return [NvidiaGpu(pynvml, handle, f"GPU {index}", ours) for index, handle in enumerate(handles) if handle is not None]


def nvml_version() -> tuple[str, int]:
    """The driver's version and how many devices NVML has. Raises LookupError with the reason where it does not answer."""
    try:
        pynvml.nvmlInit()
        try:
            return _text(pynvml.nvmlSystemGetDriverVersion()), pynvml.nvmlDeviceGetCount()
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        missing = isinstance(error, pynvml.NVMLError_LibraryNotFound)
        raise LookupError("libnvidia-ml.so.1 is not here" if missing else str(error)) from None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _text(said: str | bytes) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said
