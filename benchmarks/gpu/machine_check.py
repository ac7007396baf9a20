"""Is what enginebench reads of a GPU right? Power, energy, clocks, memory, throttling and bandwidth against loads whose answer is known.

A copy on the device moves a known number of bytes; a loop of matrix products does a known number of operations and nothing else for some
seconds. NVML is read by the same code as in a run. Each line is a check with what was expected and what was found; exit code 1 if one
fails. Without a GPU (`--tiny`) the loads run on the CPU, so that only the arithmetic and the reading are tried.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from enginebench.machine.accelerators import gpus
from enginebench.physics.detect import local_machine
from enginebench.records.throttle import Throttle
from enginebench.telemetry.nvidia import NvidiaGpu, nvidia_gpus

PERIOD_S = 0.05
IDLE_S, LOAD_S = 2.0, 8.0
RISES = 1.5
"""A GPU that multiplies takes at least this times its idle power; a Hopper GPU idles at about 80 W of 700."""


@dataclass(frozen=True)
class Check:
    name: str
    ok: bool
    expected: str
    found: str


@dataclass(frozen=True)
class Readings:
    """What NVML said during a load, a value every PERIOD_S."""

    seconds: float
    values: Sequence[Mapping[str, float | None]]

    def of(self, name: str) -> list[float]:
        return [value for reading in self.values if (value := reading.get(name)) is not None]

    def mean(self, name: str) -> float:
        return statistics.fmean(self.of(name)) if self.of(name) else math.nan

    @property
    def energy_watts(self) -> float:
        """Mean power by the energy counter between the first and the last reading."""
        joules = self.of("energy_j")
        return (joules[-1] - joules[0]) / self.seconds if len(joules) > 1 and self.seconds else math.nan


def watch(gpu: NvidiaGpu, load: Callable[[], object]) -> tuple[Readings, Any]:
    """Run a load and read the device meanwhile, in another thread."""
    values: list[Mapping[str, float | None]] = []
    stamps: list[float] = []
    over = threading.Event()

    def read() -> None:
        while not over.wait(PERIOD_S):
            stamps.append(time.monotonic())
            values.append(gpu.read())

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    result = load()
    over.set()
    thread.join()
    return Readings(stamps[-1] - stamps[0] if stamps else 0.0, values), result


def copied(device: torch.device, size: int) -> float:
    """Bytes per second, read and written, of a copy within the device's memory: the best of ten."""
    source = torch.empty(size, dtype=torch.uint8, device=device).random_(0, 255)
    target = torch.empty_like(source)
    best = math.inf
    for _ in range(11):
        settle(device)
        began = time.perf_counter()
        target.copy_(source)
        settle(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size / best


def multiplied(device: torch.device, width: int, seconds: float) -> float:
    """Operations per second of bf16 matrix products of random numbers, for at least so many seconds."""
    a, b = (torch.randn(width, width, device=device, dtype=torch.bfloat16) for _ in range(2))
    out = a @ b
    settle(device)
    began, times = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(10):
            torch.matmul(a, b, out=out)
        settle(device)
        times += 10
    return 2 * width**3 * times / (time.perf_counter() - began)


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def between(name: str, value: float, low: float, high: float, unit: str, scale: float = 1.0) -> Check:
    return Check(name, low <= value <= high, f"{low / scale:.3g} to {high / scale:.3g} {unit}", f"{value / scale:.4g} {unit}")


def checks(gpu: NvidiaGpu, device: torch.device, tiny: bool) -> Iterator[Check]:
    found, machine, facts = gpus(), local_machine(gpus()), gpu.facts
    name = found[0].name if found else "none"
    yield Check("catalogue", machine is not None, "a device of the catalogue", f"{name} -> {machine.device.name if machine else 'unknown'}")
    idle, _ = watch(gpu, lambda: time.sleep(0.5 if tiny else IDLE_S))
    rate = copied(device, 2**24 if tiny else 2**33)
    flops = machine.device.flops.get("bf16", math.nan) if machine else math.nan
    bandwidth = machine.device.bandwidth if machine else math.nan
    yield between("memory bandwidth, of a copy", rate, 0.0 if tiny else 0.75 * bandwidth, 1.02 * bandwidth, "GB/s", 1e9)
    busy, reached = watch(gpu, lambda: multiplied(device, 256 if tiny else 8192, 1.0 if tiny else LOAD_S))
    yield between("bf16 matrix products", reached, 0.0 if tiny else 0.5 * flops, 1.05 * flops, "TFLOP/s", 1e12)
    yield from powers(idle, busy, facts)
    yield from states(busy, device, tiny)


def powers(idle: Readings, busy: Readings, facts: Mapping[str, Any]) -> Iterator[Check]:
    """The power reading, the energy counter and the limit, against each other."""
    limit = float(facts.get("limit_watts") or math.nan)
    yield Check(
        "power rises",
        busy.mean("watts") > RISES * idle.mean("watts"),
        f"above {RISES:g} x idle",
        f"{idle.mean('watts'):.0f} -> {busy.mean('watts'):.0f} W",
    )
    yield between("power below its limit", busy.mean("watts"), 0.3 * limit, 1.03 * limit, "W")
    # The two come from different counters, and the power of some drivers is an average over the last second.
    yield between("energy counter / power", busy.energy_watts / busy.mean("watts"), 0.9, 1.1, "")


def states(busy: Readings, device: torch.device, tiny: bool) -> Iterator[Check]:
    """Utilisation, clocks, memory, process and throttling while the loop ran."""
    yield between("utilisation", busy.mean("utilisation"), 0.9, 1.0, "")
    yield between("SM clock", busy.mean("sm_mhz"), 900, 2200, "MHz")
    yield between("memory clock", busy.mean("memory_mhz"), 1000, 10_000, "MHz")
    yield between("temperature", busy.mean("celsius"), 20, 95, "°C")
    used = busy.mean("memory_bytes")
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        yield between("memory in use, of torch's", used / (total - free), 0.95, 1.05, "")
    yield Check(
        "this process is seen",
        busy.mean("ours") == 1 or tiny,
        "1 process of ours",
        f"{busy.mean('ours'):g}; {busy.mean('others'):g} others",
    )
    reasons = sorted({reason.name or "" for value in busy.of("throttle") for reason in Throttle(int(value))})
    yield Check("throttling is told", bool(busy.of("throttle")), "a mask of reasons", ", ".join(reasons) or "none")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true", help="loads on the CPU")
    given = parser.parse_args()
    devices = nvidia_gpus(lambda: frozenset((os.getpid(),)))
    if not devices or not (given.tiny or torch.cuda.is_available()):
        print(f"no GPU to check: NVML has {len(devices)} devices, torch sees {'one' if torch.cuda.is_available() else 'none'}")
        return 2
    device = torch.device("cpu" if given.tiny else "cuda:0")
    done = [*checks(devices[0], device, given.tiny)]
    facts = {"torch": torch.__version__, "gpus": [asdict(gpu) for gpu in gpus()], "facts": dict(devices[0].facts)}
    given.out.write_text(json.dumps({**facts, "checks": [asdict(check) for check in done]}, indent=1, default=str) + "\n")
    for check in done:
        print(f"{'ok  ' if check.ok else 'FAIL'} {check.name:<28} expected {check.expected:<26} found {check.found}")
    return 0 if all(check.ok for check in done) else 1


if __name__ == "__main__":
    sys.exit(main())
