"""Reads AMD GPUs through amdsmi, the Python module of ROCm, if it is installed. Never changes a setting.

Unverified: written from the module's source, never run on a device. Unsupported values are None.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from enginebench.records.throttle import Throttle
from enginebench.telemetry.source import Values, compute_processes, try_read

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.records.subject import Kind

MIB = 2**20
MICRO = 1e-6
REASONS = {
    "active_ppt_pwr": Throttle.POWER_CAP,
    "active_socket_thrm": Throttle.HEAT,
    "active_vr_thrm": Throttle.HEAT,
    "active_hbm_thrm": Throttle.HEAT,
    "active_prochot_thrm": Throttle.HARDWARE,
}
"""Violation fields of amdsmi; only some devices report them."""


@dataclass(frozen=True)
class AmdGpu:
    smi: Any
    handle: Any
    name: str
    engine_pids: Callable[[], frozenset[int]]
    """The engine's current process ids."""
    kind: Kind = "gpu"

    @property
    def facts(self) -> Mapping[str, JSON]:
        model = self._table("amdsmi_get_gpu_asic_info").get("market_name")
        total = _number(self._table("amdsmi_get_gpu_vram_usage").get("vram_total"))
        return {"vendor": "AMD", "model": model, "memory_bytes": None if total is None else total * MIB}

    def read(self) -> Values:
        power, energy = self._table("amdsmi_get_power_info"), self._table("amdsmi_get_energy_count")
        busy = _number(self._table("amdsmi_get_gpu_activity").get("gfx_activity"))
        used = _number(self._table("amdsmi_get_gpu_vram_usage").get("vram_used"))
        ticks, microjoules = (_number(energy.get(key)) for key in ("energy_accumulator", "counter_resolution"))
        drawn = [_number(power.get(key)) for key in ("current_socket_power", "average_socket_power")]
        return {
            "utilisation": None if busy is None else busy / 100,
            "memory_bytes": None if used is None else used * MIB,
            "watts": next((watts for watts in drawn if watts is not None), None),
            "energy_j": None if ticks is None or microjoules is None else ticks * microjoules * MICRO,
            "sm_mhz": self._clock("GFX"),
            "memory_mhz": self._clock("MEM"),
            "celsius": self._celsius(),
            "throttle": self._throttle(),
            **compute_processes(self._processes(), self.engine_pids()),
        }

    def _throttle(self) -> float | None:
        violations = self._table("amdsmi_get_violation_status")
        known = {key for key in REASONS if isinstance(violations.get(key), bool)}
        return float(reduce(or_, (REASONS[key] for key in known if violations[key]), Throttle(0))) if known else None

    def _processes(self) -> frozenset[int] | None:
        listed = try_read(lambda: self.smi.amdsmi_get_gpu_process_list(self.handle), Exception)
        return None if listed is None else frozenset(int(process["pid"]) for process in listed)

    def _celsius(self) -> float | None:
        read, smi = self.smi.amdsmi_get_temp_metric, self.smi
        return try_read(lambda: float(read(self.handle, smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT)), Exception)

    def _clock(self, domain: str) -> float | None:
        info = try_read(lambda: self.smi.amdsmi_get_clock_info(self.handle, getattr(self.smi.AmdSmiClkType, domain)), Exception)
        return _number(info.get("clk")) if info else None

    def _table(self, function: str) -> Mapping[str, Any]:
        """Result of a function of amdsmi for this device; empty on an error. (Its exceptions differ between versions.)"""
        return try_read(lambda: getattr(self.smi, function)(self.handle), Exception) or {}


def amd_gpus(engine_pids: Callable[[], frozenset[int]] = frozenset) -> list[AmdGpu]:
    """Every device of amdsmi; empty without the module, its library, or a device."""
    try:
        smi = importlib.import_module("amdsmi")
        smi.amdsmi_init()
        handles = smi.amdsmi_get_processor_handles()
    except Exception:  # noqa: BLE001  # with an incomplete ROCm the import raises KeyError or OSError
        return []
    return [AmdGpu(smi, handle, f"GPU {index}", engine_pids) for index, handle in enumerate(handles)]


def _number(value: object) -> float | None:
    """None for 'N/A', which amdsmi returns for unsupported values."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
