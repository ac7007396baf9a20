"""One thing that was watched while a load ran, as plain data: a GPU, the machine, or what the engine runs in.

Every value is either a *total* that only rises or a *gauge* of the moment; the tables below name and explain all of them. Reads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from enginebench.domain import JSON
from enginebench.records.counters import CounterSeries

Kind: TypeAlias = Literal["gpu", "host", "container", "processes"]

VALUES: Mapping[Kind, Mapping[str, str]] = {
    "gpu": {
        "utilisation": "share of the device's last sampling period in which a kernel ran, 0 to 1",
        "memory_bytes": "memory in use, by everybody",
        "watts": "power; many devices average it over a second",
        "energy_j": "total energy since the driver was loaded, where the device counts it",
        "sm_mhz": "clock of the multiprocessors",
        "memory_mhz": "clock of the memory",
        "celsius": "temperature of the chip",
        "throttle": "why the clock is not higher: the sum of the numbers of `Throttle`",
        "ours": "compute processes that belong to the engine",
        "others": "compute processes of this machine that do not",
        "unseen": "compute processes that cannot be looked up from here, such as those of another container",
    },
    "host": {
        "busy_s": "total processor time used, over all cores",
        "steal_s": "total processor time that the hypervisor gave to other machines, over all cores",
        "capacity_s": "total processor time that has passed, over all cores",
        "load": "runnable processes, averaged over a minute",
        "available_bytes": "memory that a new process could have",
        "mhz": "mean clock of the cores",
        "thermal_throttles": "total of the times that a core or a package lowered its clock because of heat",
    },
    "processes": {
        "cpu_s": "total processor time of the engine's processes, those that have ended included",
        "memory_bytes": "resident memory; a page that several processes share counts for each",
        "processes": "how many there are",
    },
    "container": {
        "cpu_s": "total processor time",
        "memory_bytes": "memory, without the file cache that can be dropped",
        "periods": "total of the scheduler's periods in which it wanted to run, where it has a quota",
        "throttled_periods": "total of the periods in which its quota was used up",
        "throttled_s": "total time that its threads were held back",
    },
}


@dataclass(frozen=True)
class Subject:
    """What was watched, and its readings in the units of VALUES, on the client's monotonic clock.

    name: 'GPU 0', 'this machine', 'engine', 'member prefill'. facts: what does not change; of a GPU vendor, model, memory_bytes, and
    where known limit_watts and default_limit_watts; of this machine its cores.
    """

    kind: Kind
    name: str
    facts: Mapping[str, JSON] = field(default_factory=dict)
    series: CounterSeries = field(default_factory=CounterSeries)
