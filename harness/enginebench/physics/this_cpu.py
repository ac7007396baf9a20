"""Measures the limits of this machine's CPU with numpy: memory bandwidth (read and copy) and matrix products.

Products are measured in float32; 16 bits are assumed to be twice and 8 bits four times as fast, as with vector instructions. Matrix tiles
(AMX) can be faster, so compute is an estimate, not a ceiling.

All cores work at once on arrays far larger than the caches. The best of several tries counts, because other processes can only slow them
down. Takes about two seconds, the bandwidth alone half a second. Does not distinguish the memory of different sockets.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import psutil

from enginebench.machine.host import facts
from enginebench.physics.machine import CPU_CACHE_S, Device

_BYTES = 256 * 2**20
"""Bytes per core: more than its share of the last-level cache of a large server."""
_MAX_TOTAL_BYTES = 2**30
"""Bytes of all cores, if only the bandwidth is measured."""
_TRIES = 5
_SIDE = 2048


@cache
def this_cpu() -> Device:
    """The CPU as a device. bandwidth: the higher of reading and copying. measured_bandwidth: of copying (bytes read and written)."""
    host = facts()
    cores = host.usable_cores or 1
    read, copied = _bandwidths(cores, _BYTES)
    square = np.ones((_SIDE, _SIDE), np.float32)
    product = _best(1, lambda _: square @ square, 2 * _SIDE**3)  # the library uses all cores itself
    return Device(
        name=f"cpu ({host.cpu}, {cores} cores)", memory=float(psutil.virtual_memory().total), bandwidth=max(read, copied),
        flops={"fp32": product, "bf16": 2 * product, "int8": 4 * product}, measured_bandwidth=copied, node=1,
        cache=CPU_CACHE_S * max(read, copied), reached=1.0,
        note="measured here with numpy: reading or copying memory, and float32 products; fewer bits are assumed to be faster in proportion",
    )  # fmt: skip


@cache
def memory_bandwidth() -> float:
    """Bytes/s, the higher of reading and copying."""
    cores = facts().usable_cores or 1
    return max(_bandwidths(cores, min(_BYTES, _MAX_TOTAL_BYTES // cores)))


def _bandwidths(cores: int, each: int) -> tuple[float, float]:
    """Bytes/s of reading, and of copying (read and written), with an array of `each` bytes per core."""
    arrays = [np.ones(each // 8, np.int64) for _ in range(cores)]
    halves = [(array[: len(array) // 2], array[len(array) // 2 :]) for array in arrays]
    read = _best(cores, lambda core: arrays[core].max(), cores * each)
    copied = _best(cores, lambda core: np.copyto(halves[core][0], halves[core][1]), cores * each)
    return read, copied


def _best(threads: int, work: Callable[[int], object], amount: float) -> float:
    """Amount per second of the fastest try. All threads start together."""
    return max(amount / _seconds(threads, work) for _ in range(_TRIES))


def _seconds(threads: int, work: Callable[[int], object]) -> float:
    gate = threading.Barrier(threads + 1)

    def run(core: int) -> None:
        gate.wait()
        work(core)

    with ThreadPoolExecutor(threads) as pool:
        for core in range(threads):
            pool.submit(run, core)
        gate.wait()
        begin = time.perf_counter()
    return time.perf_counter() - begin
