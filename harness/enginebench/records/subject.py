"""Telemetry of one subject while a load ran, as plain data: a GPU, the machine, or the engine's processes or container.

Every value is either a *total*, which only increases, or a *gauge*.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from enginebench.domain import JSON
from enginebench.records.counters import CounterSeries

Kind: TypeAlias = Literal["gpu", "host", "container", "processes"]

VALUES: Mapping[Kind, Mapping[str, str]] = {
    "gpu": {
        "utilisation": "share of the device's last sampling period in which a kernel ran, 0 to 1",
        "memory_bytes": "memory in use, by all processes",
        "watts": "power; many devices average it over a second",
        "energy_j": "total energy since the driver was loaded, where the device counts it",
        "sm_mhz": "clock of the multiprocessors",
        "memory_mhz": "clock of the memory",
        "celsius": "temperature of the chip",
        "throttle": "why the clock is not higher: the sum of the numbers of `Throttle`",
        "ours": "compute processes of the engine",
        "others": "other compute processes of this machine",
        "unseen": "compute processes that cannot be identified, such as those in another container",
    },
    "host": {
        "busy_s": "total CPU time used, over all cores",
        "steal_s": "total CPU time that the hypervisor gave to other machines, over all cores",
        "capacity_s": "total CPU time that has passed, over all cores",
        "iowait_s": "total CPU time spent idle while a disk was waited for, over all cores",
        "bench_s": "total CPU time of bench itself: load generator and samplers, without the engine",
        "clock_s": "wall clock less monotonic clock: constant unless the clock is set or the machine sleeps",
        "load": "runnable processes, averaged over a minute",
        "available_bytes": "memory available to a new process",
        "mhz": "mean clock of the cores",
        "thermal_throttles": "total number of times that a core or package reduced its clock because of heat",
    },
    "processes": {
        "cpu_s": "total CPU time of the engine's processes, including those that have ended",
        "memory_bytes": "resident memory; a shared page counts once per process",
        "processes": "number of processes",
        "read_bytes": "total bytes that the running processes read from disks, pages of mapped files included",
    },
    "container": {
        "cpu_s": "total CPU time",
        "memory_bytes": "memory, without the file cache that can be dropped",
        "periods": "total number of scheduler periods in which it was runnable, if it has a quota",
        "throttled_periods": "total number of periods in which its quota was used up",
        "throttled_s": "total time that its threads were paused",
        "read_bytes": "total bytes that it read from disks, pages of mapped files included",
    },
}


@dataclass(frozen=True)
class Subject:
    """One subject and its readings."""

    kind: Kind
    """Decides which of VALUES the series has. An engine has 'processes', or 'container' with `runtime: docker`."""
    name: str
    """'GPU 0', 'this machine', 'engine' or 'member prefill'."""
    facts: Mapping[str, JSON] = field(default_factory=dict)
    """Constants. A GPU has vendor, model, memory_bytes, and limit_watts and default_limit_watts if known; this machine has its cores;
    a container whether its processes are `visible` on this machine; an attached server whether it `forwards` to other processes."""
    series: CounterSeries = field(default_factory=CounterSeries)
    """Values as described in VALUES."""
