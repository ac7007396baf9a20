"""Reads CPUs and memory of this machine from the kernel. macOS has neither steal time nor thermal throttle counts."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from enginebench.telemetry.source import Values, try_read

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.records.subject import Kind

CPUS = Path("/sys/devices/system/cpu")


def cpu_seconds() -> tuple[float, float]:
    """(used, passed) CPU time of this machine since its start, in s over all cores. Stolen and idle time is not used."""
    times = psutil.cpu_times()._asdict()
    passed = sum(seconds for state, seconds in times.items() if not state.startswith("guest"))  # user time includes guest time
    return passed - sum(times.get(state) or 0.0 for state in ("idle", "iowait", "steal")), passed


class ThisMachine:
    """The host. bench: process id of the harness, whose own time, with that of its helper processes, is `bench_s`."""

    kind: Kind = "host"
    name = "this machine"

    def __init__(self, cpus: Path = CPUS, bench: int | None = None) -> None:
        self._bench = bench
        self._spent: dict[int, float] = {}
        """Of each process of bench that was seen, also after its end."""
        self.facts: Mapping[str, JSON] = {"cores": psutil.cpu_count()}
        self._clocks = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
        self._throttles = sorted(cpus.glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))

    def read(self) -> Values:
        busy, capacity = cpu_seconds()
        times = psutil.cpu_times()._asdict()
        load = try_read(os.getloadavg, OSError)
        clocks, throttles = _numbers(self._clocks), _numbers(self._throttles)
        return {
            "busy_s": busy,
            "steal_s": times.get("steal"),
            "capacity_s": capacity,
            "iowait_s": times.get("iowait"),
            "bench_s": self._bench_s(),
            "clock_s": _clock_s(),
            "load": load[0] if load else None,
            "available_bytes": psutil.virtual_memory().available,
            "mhz": sum(clocks) / len(clocks) / 1e3 if clocks else None,
            "thermal_throttles": sum(throttles) if throttles else None,
        }

    def _bench_s(self) -> float | None:
        """Of the harness, its load generators and its samplers; the engine and what else the harness has started do not count."""
        harness = try_read(lambda: psutil.Process(self._bench), psutil.Error) if self._bench is not None else None
        if harness is None:
            return None
        children = try_read(harness.children, psutil.Error) or []
        helpers = [each for each in children if each.pid in self._spent or _is_helper(each)]
        for each in (harness, *helpers):
            times = try_read(each.cpu_times, psutil.Error)
            if times is not None:
                self._spent[each.pid] = times.user + times.system
        return sum(self._spent.values())


def _clock_s() -> float:
    """Wall clock less monotonic clock. Of three tries the one that took least, because a process may be paused between two calls."""
    tries = [(time.monotonic(), time.time(), time.monotonic()) for _ in range(3)]
    before, wall, after = min(tries, key=lambda each: each[2] - each[0])
    return wall - (before + after) / 2


def _is_helper(process: psutil.Process) -> bool:
    words = try_read(process.cmdline, psutil.Error) or []
    return any(word.startswith("enginebench.") for word in words)


def _numbers(files: list[Path]) -> list[int]:
    texts = (try_read(file.read_text, OSError) or "" for file in files)
    return [int(text) for text in texts if text.strip().isdigit()]
