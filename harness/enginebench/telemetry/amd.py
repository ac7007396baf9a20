"""AMD GPUs through amdsmi, the Python module that comes with ROCm, where it can be imported. Nothing is ever set.

Written from the module's own source and never run on a device: unverified. What it does not answer is left out.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from enginebench.records.throttle import Throttle
from enginebench.telemetry.source import Values, compute_processes, told

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
"""amdsmi's violations; only some devices report them."""


@dataclass(frozen=True)
class AmdGpu:
    """One device. ours: the process ids of the engine at this moment."""

    smi: Any
    handle: Any
    name: str
    ours: Callable[[], frozenset[int]]
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
            "celsius": self._heat(),
            "throttle": self._throttle(),
            **compute_processes(self._processes(), self.ours()),
        }

    def _throttle(self) -> float | None:
        violations = self._table("amdsmi_get_violation_status")
        known = {reason: violations[key] for key, reason in REASONS.items() if isinstance(violations.get(key), bool)}
        found = Throttle(0)
        for key, reason in REASONS.items():
            found |= reason if violations.get(key) is True else Throttle(0)
        return float(found) if known else None

    def _processes(self) -> frozenset[int] | None:
        listed = told(lambda: self.smi.amdsmi_get_gpu_process_list(self.handle), Exception)
        return None if listed is None else frozenset(int(process["pid"]) for process in listed)

    def _heat(self) -> float | None:
        ask, smi = self.smi.amdsmi_get_temp_metric, self.smi
        return told(lambda: float(ask(self.handle, smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT)), Exception)

    def _clock(self, which: str) -> float | None:
        said = told(lambda: self.smi.amdsmi_get_clock_info(self.handle, getattr(self.smi.AmdSmiClkType, which)), Exception)
        return _number(said.get("clk")) if said else None

    def _table(self, question: str) -> Mapping[str, Any]:
        """What one of amdsmi's functions says of this device; empty where it refuses. Its exceptions differ between versions."""
        return told(lambda: getattr(self.smi, question)(self.handle), Exception) or {}


def amd_gpus(ours: Callable[[], frozenset[int]] = frozenset) -> list[AmdGpu]:
    """Every device that amdsmi has; empty without the module, its library, or a device."""
    try:
        smi = importlib.import_module("amdsmi")
        smi.amdsmi_init()
        handles = smi.amdsmi_get_processor_handles()
    except Exception:  # noqa: BLE001  # the module raises KeyError and OSError at import where ROCm is not whole
        return []
    return [AmdGpu(smi, handle, f"GPU {index}", ours) for index, handle in enumerate(handles)]


def _number(value: object) -> float | None:
    """amdsmi writes 'N/A' for what a device does not have."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
