"""Reads NVIDIA GPUs through NVML, the library behind nvidia-smi. Reads no UUID or serial number and never changes a setting.

Unsupported values are None. For MIG, the parent device is read, which shares its power between the instances. Unverified on real hardware:
the tests use a simulated NVML library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, TypeVar

from enginebench.machine.nvml import answer, connect, devices, opened, text
from enginebench.records.throttle import Throttle
from enginebench.telemetry.source import Values, compute_processes

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.records.subject import Kind

T = TypeVar("T")

REASONS = {0x04: Throttle.POWER_CAP, 0x08: Throttle.HARDWARE, 0x20: Throttle.HEAT, 0x40: Throttle.HEAT, 0x80: Throttle.POWER_BRAKE}
"""NVML's clocks-event reasons that count as throttling (not idle, application clocks, sync boost, display)."""


@dataclass(frozen=True)
class NvidiaGpu:
    nvml: Any
    handle: Any
    name: str
    engine_pids: Callable[[], frozenset[int]]
    """The engine's current process ids."""
    kind: Kind = "gpu"

    @property
    def facts(self) -> Mapping[str, JSON]:
        nvml, handle = self.nvml, self.handle
        memory = self._try(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total)
        model = self._try(lambda: text(nvml.nvmlDeviceGetName(handle)))
        limit = _scaled(self._try(lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle)), 1e-3)
        default = _scaled(self._try(lambda: nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle)), 1e-3)
        return {"vendor": "NVIDIA", "model": model, "memory_bytes": memory, "limit_watts": limit, "default_limit_watts": default}

    def read(self) -> Values:
        nvml, handle = self.nvml, self.handle
        processes = self._try(lambda: frozenset(int(process.pid) for process in nvml.nvmlDeviceGetComputeRunningProcesses(handle)))
        return {
            "utilisation": _scaled(self._try(lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu), 1e-2),
            "memory_bytes": self._try(lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used),
            "watts": _scaled(self._try(lambda: nvml.nvmlDeviceGetPowerUsage(handle)), 1e-3),
            "energy_j": _scaled(self._try(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle)), 1e-3),
            "sm_mhz": self._try(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "memory_mhz": self._try(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)),
            "celsius": self._try(lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)),
            "throttle": self._throttle(),
            **compute_processes(processes, self.engine_pids()),
        }

    def _throttle(self) -> float | None:
        """Drivers before 530 support only the older of the two names."""
        nvml = self.nvml
        mask = self._try(lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(self.handle))
        if mask is None:
            mask = self._try(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle))
        return None if mask is None else float(throttle(mask))

    def _try(self, read: Callable[[], T]) -> T | None:
        return answer(self.nvml, read)


def throttle(mask: int) -> Throttle:
    return reduce(or_, (reason for bit, reason in REASONS.items() if mask & bit), Throttle(0))


def nvidia_gpus(engine_pids: Callable[[], frozenset[int]] = frozenset) -> list[NvidiaGpu]:
    """Every device of this machine, in NVML's order; empty if NVML is unavailable."""
    try:
        nvml = connect()
    except LookupError:
        return []
    return [NvidiaGpu(nvml, handle, f"GPU {index}", engine_pids) for index, handle in devices(nvml)]


def nvml_version() -> tuple[str, int]:
    """Driver version and number of devices. Raises LookupError with the reason if NVML is unavailable."""
    with opened() as nvml:
        return text(nvml.nvmlSystemGetDriverVersion()), int(nvml.nvmlDeviceGetCount())


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
