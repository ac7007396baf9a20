"""The limits of this machine's processor, measured with numpy: how fast it reads and copies memory, and how fast it multiplies.

Products are measured in float32; 16 bits are taken to be twice and 8 bits four times as fast, as vector instructions that hold more
numbers are. Matrix tiles (AMX) can do more, so arithmetic here is an estimate and no ceiling.

Every core works at once, on arrays far larger than its caches; the best of several tries counts, as whatever else runs only slows
them. Takes about two seconds, the bandwidth alone half of one. It cannot tell the memory of one socket from another's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import cache

import numpy as np
import psutil

from enginebench.machine.host import facts
from enginebench.physics.machine import Device

_BYTES = 256 * 2**20
"""Per core: more than the last-level cache of a large server shared by its cores."""
_TOGETHER = 2**30
"""Of all cores, where only the bandwidth is asked for."""
_TRIES = 5
_SIDE = 2048


@cache
def this_cpu() -> Device:
    """bandwidth: the better of reading and copying; measured_bandwidth: of copying, bytes read and written."""
    host = facts()
    cores = host.usable_cores or 1
    read, copied = _bandwidths(cores, _BYTES)
    square = np.ones((_SIDE, _SIDE), np.float32)
    product = _best(1, lambda _: square @ square, 2 * _SIDE**3)  # the library spreads it over the cores itself
    return Device(
        name=f"cpu ({host.cpu}, {cores} cores)",
        memory=float(psutil.virtual_memory().total),
        bandwidth=max(read, copied),
        flops={"fp32": product, "bf16": 2 * product, "int8": 4 * product},
        measured_bandwidth=copied,
        node=1,
        note="measured here with numpy: reading or copying memory, and float32 products; fewer bits are taken to be faster in proportion",
    )


@cache
def memory_bandwidth() -> float:
    """Bytes/s, the better of reading and copying."""
    cores = facts().usable_cores or 1
    return max(_bandwidths(cores, min(_BYTES, _TOGETHER // cores)))


def _bandwidths(cores: int, each: int) -> tuple[float, float]:
    """Bytes/s read, and bytes/s read and written, by so many cores that each have an array of so many bytes."""
    arrays = [np.ones(each // 8) for _ in range(cores)]
    targets = [np.zeros_like(array) for array in arrays]
    integers = [array.view(np.int64) for array in arrays]
    read = _best(cores, lambda core: integers[core].max(), cores * each)
    copied = _best(cores, lambda core: np.copyto(targets[core], arrays[core]), 2 * cores * each)
    return read, copied


def _best(threads: int, work: Callable[[int], object], amount: float) -> float:
    """Amount per second of the fastest try, all threads starting together."""
    return max(amount / _seconds(threads, work) for _ in range(_TRIES))


def _seconds(threads: int, work: Callable[[int], object]) -> float:
    gate = threading.Barrier(threads + 1)

    def run(core: int) -> None:
        gate.wait()
        work(core)

    workers = [threading.Thread(target=run, args=(core,)) for core in range(threads)]
    for worker in workers:
        worker.start()
    gate.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    return time.perf_counter() - begin
