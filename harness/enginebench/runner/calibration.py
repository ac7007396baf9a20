"""Measures how many streams and events/s the load generator handles on this machine before it distorts the results.

The fake engine simulates a model in lockstep: every stream gets a token at every tick, as from a real engine's decode step, which is
the hardest case for a client. Streams are added until tokens wait for their time stamps. The result is stored and looked up later;
`enginebench.validity` compares cells with it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from enginebench.domain import JSON, ClosedLoop, Deployment, plain_object
from enginebench.errors import UserError
from enginebench.loadgen import idle_lag_ms
from enginebench.loadgen.health import Stamps
from enginebench.machine.folders import cache_dir
from enginebench.machine.host import Host, facts
from enginebench.runtime.machine_lease import machine_lease

if TYPE_CHECKING:
    from enginebench.runner.engine import Engine

TICK_MS = 10.0
TOKENS = 100
FIRST_STREAMS, LAST_STREAMS = 16, 4096
LAG_MS: Mapping[Stamps, float] = {"loop": 1.0, "kernel": TICK_MS / 2}
"""Longest time that tokens may wait until they are read (p99), by where their time stamps come from.
loop: the stamp is that of the read, so a longer wait is an error of more than a millisecond. kernel: the stamp is exact until the next
token of the stream arrives; half of that time is the limit."""
_ROUNDS = 4
"""Requests per stream. Streams start a millisecond apart, so several requests are needed until all streams run at the same time."""
TRIES = 3
"""Attempts per level. The best one counts, because other work on the machine only adds lag."""
_PACE = 1.05
"""If the mean tick is longer than TICK_MS by more than this factor, the fake engine could not keep up."""

_AT_WORK = 0.8
"""Share of a core. If tokens waited while the client was busy for less than this share of that time, something else kept it from running.
A client that is busy for more than this share all the time has no reserve."""
_MANY = 256
"""Streams that the fake engine can always serve unless it lacks a core. Also, with many streams an event costs the client least."""

Limiter: TypeAlias = Literal["client", "machine", "fake engine", "range"]


@dataclass(frozen=True)
class Level:
    """What was measured with one number of streams."""

    streams: int
    events_per_s: float
    """Output events/s while all streams run; compared with a cell's peak rate."""
    lag_p99_ms: float
    cpu_us: float
    """CPU time of the client per event."""
    tick_ms: float
    """Mean time between two ticks of the fake engine."""
    stamps: Stamps = "loop"
    """Where the time stamps came from."""
    processes: int = 1
    """Client processes."""

    @property
    def text(self) -> str:
        """The level in one line."""
        what = f"{self.streams:>5} streams  {self.events_per_s:>9,.0f} tokens/s  lag p99 {self.lag_p99_ms:6.2f} ms"
        return f"{what}  {self.cpu_fraction:4.0%} of a core{f'  limit: {self.limiter}' if self.limiter else ''}"

    @property
    def lag_limit_ms(self) -> float:
        """Longest time that tokens may wait until they are read (p99)."""
        return LAG_MS[self.stamps]

    @property
    def cpu_fraction(self) -> float:
        """Share of a core that each client process uses while all streams run."""
        return self.cpu_us * self.events_per_s / self.processes / 1e6

    @property
    def limiter(self) -> Limiter | None:
        """What failed at this level; None if nothing did.
        If tokens waited, the client is the cause only if it was busy while they waited: within each tick, or all the time if the fake
        engine needs all the time to send them."""
        behind, wait_ms = self.tick_ms > _PACE * TICK_MS, LAG_MS[self.stamps]
        late = self.lag_p99_ms > wait_ms
        if late and self.cpu_fraction > _AT_WORK * (1.0 if behind else wait_ms / TICK_MS):
            return "client"
        if behind and self.streams >= _MANY:
            return "fake engine"
        return "machine" if late or behind else None


@dataclass(frozen=True)
class Calibration:
    """The limits of a number of client processes on one machine."""

    streams: int
    """Highest level without a failure."""
    events_per_s: float
    """At that level."""
    processes: int
    limiter: Limiter
    """What failed at the next level."""
    limits: Mapping[str, float]
    """streams and events_per_s that cells are compared with.
    If the client failed: those of the highest level without a failure. If the fake engine failed, or nothing: only the events/s that the
    client would reach with a core for each process (as far as there are cores), a fifth of it in reserve, at the lowest CPU time per
    event that was measured. Empty if the machine was busy."""
    idle_lag_p99_ms: float
    """Lag of an event loop without work: the share of the machine itself."""
    machine: Mapping[str, JSON]
    """The machine that this is valid for."""
    at: str
    """When it was measured: UTC, ISO 8601."""
    levels: tuple[Level, ...] = ()

    @property
    def disturbed(self) -> bool:
        """Whether the machine alone causes half of the allowed lag: other work runs on it."""
        return self.idle_lag_p99_ms > LAG_MS["loop"] / 2


def calibrate(processes: int = 1, say: Callable[[Level], None] = lambda _: None) -> Calibration:
    """Measure this machine's client limits against the fake engine, and store them: a minute or two on an otherwise idle machine.

    processes: client processes that share the load. say: called with every level.
    """
    from enginebench.records.files import now, write_atomically

    levels = list(_levels(processes, say))
    passed = [level for level in levels if level.limiter is None]
    best = passed[-1] if passed else Level(0, 0.0, 0.0, math.inf, TICK_MS)
    limiter = levels[-1].limiter or "range"
    host, lag_ms = facts(), idle_lag_ms()
    cores = min(processes, host.usable_cores or processes)
    limits: dict[str, float] = {}
    if limiter == "client":
        limits = {"streams": best.streams, "events_per_s": best.events_per_s}
    elif limiter != "machine":
        limits = {"events_per_s": _AT_WORK * cores * 1e6 / min(level.cpu_us for level in levels)}
    found = Calibration(best.streams, best.events_per_s, processes, limiter, limits, lag_ms, _machine(host), now(), tuple(levels))
    _file(processes).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(_file(processes), json.dumps(plain_object(found), indent=2) + "\n")
    client_limit.cache_clear()
    return found


@lru_cache(maxsize=4)
def client_limit(processes: int, stamps: Stamps) -> Mapping[str, JSON]:
    """The stored limits of a number of client processes on this machine, see `Calibration.limits`.
    Empty without a calibration for this machine, this number of processes and this source of time stamps."""
    try:
        stored = json.loads(_file(processes).read_text(encoding="utf-8"))
        if stored["machine"] != _machine(facts()) or stored["processes"] != processes or stored["levels"][-1]["stamps"] != stamps:
            return {}
        return {name: float(limit) for name, limit in stored["limits"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}


def _levels(processes: int, say: Callable[[Level], None]) -> Iterator[Level]:
    """Levels with more and more streams, by a factor of about 1.4, until a level fails in all of its tries."""
    from enginebench.engines.registry import discover
    from enginebench.records.files import now
    from enginebench.records.launch import LaunchRecord
    from enginebench.runner.launch import open_engine

    fake = discover()["fake"]
    options: Mapping[str, JSON] = {"ttft_ms": TICK_MS, "tick_ms": TICK_MS}
    launch = LaunchRecord("calibration", Deployment("fake", "calibration", "none", "none", options=options), 0, now())
    with machine_lease("bench calibrate") as lease:
        folder, log = lease.folder, lease.folder / "fake.log"
        with open_engine(fake, launch, fake.find(None), log=log, base=folder, say=lambda _: None, processes=processes) as engine:
            streams = FIRST_STREAMS
            while streams <= LAST_STREAMS:
                best = _measure(engine, streams)
                say(best)
                yield best
                if best.limiter is not None:
                    return
                streams = 3 * streams // 2 if streams & (streams - 1) == 0 else 4 * streams // 3


def _measure(engine: Engine, streams: int) -> Level:
    """The best of several tries, up to the first one without a failure."""
    load = ClosedLoop(concurrency=streams, input_tokens=8, output_tokens=TOKENS, requests=_ROUNDS * streams, timeout_s=60.0)
    prompts = engine.prompts.make(load, load.requests, salt="calibration")
    tries: list[Level] = []
    while len(tries) < TRIES and (not tries or tries[-1].limiter is not None):
        result = engine.run(prompts, load)
        bad = next((sample for sample in result.samples if sample.outcome != "ok"), None)
        if bad is not None:
            raise UserError(f"a request to the fake engine failed at {streams} streams ({bad.outcome}): {bad.error}")
        gaps = [(s.event_ns[-1] - s.event_ns[0]) / (len(s.event_ns) - 1) for s in result.samples if len(s.event_ns) > 1]
        tick_ms = sum(gaps) / len(gaps) / 1e6 if gaps else math.inf
        client = result.client
        cpu_us = client.cpu_s * 1e6 / sum(len(s.event_ns) for s in result.samples)
        rate = 1e3 * streams / tick_ms
        tries.append(Level(streams, rate, client.lag_p99_ms, cpu_us, tick_ms, client.stamps, client.processes))
    return min(tries, key=lambda level: (level.limiter is not None, level.lag_p99_ms))


def _machine(host: Host) -> dict[str, JSON]:
    """The facts that a calibration is valid for."""
    return {"cpu": host.cpu, "usable_cores": host.usable_cores, "system": host.system}


def _file(processes: int) -> Path:
    return cache_dir() / f"calibration-{processes}.json"
