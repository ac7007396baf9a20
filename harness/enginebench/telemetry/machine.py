"""Reads CPUs and memory of this machine from the kernel. macOS has neither steal time nor thermal throttle counts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from enginebench.telemetry.source import Values, try_read

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.records.subject import Kind

CPUS = Path("/sys/devices/system/cpu")


class ThisMachine:
    kind: Kind = "host"
    name = "this machine"

    def __init__(self, cpus: Path = CPUS) -> None:
        self.facts: Mapping[str, JSON] = {"cores": psutil.cpu_count()}
        self._clocks = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._throttles = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))

    def read(self) -> Values:
        times = psutil.cpu_times()._asdict()
        capacity = sum(seconds for state, seconds in times.items() if not state.startswith("guest"))  # user time includes guest time
        steal = times.get("steal")
        load = try_read(os.getloadavg, OSError)
        clocks, throttles = _numbers(self._clocks), _numbers(self._throttles)
        return {
            "busy_s": capacity - times["idle"] - times.get("iowait", 0.0) - (steal or 0.0),
            "steal_s": steal,
            "capacity_s": capacity,
            "load": load[0] if load else None,
            "available_bytes": psutil.virtual_memory().available,
            "mhz": sum(clocks) / len(clocks) / 1e3 if clocks else None,
            "thermal_throttles": sum(throttles) if throttles else None,
        }


def _numbers(files: list[Path]) -> list[int]:
    texts = (try_read(file.read_text, OSError) or "" for file in files)
    return [int(text) for text in texts if text.strip().isdigit()]
