"""What this machine's load generator can do before it, and not the server, shapes the numbers: found once, kept, and looked up.

The fake engine plays a model in lockstep: every stream gets a token at every tick, as from a real engine's decode step, which is
the hardest that a client sees. Streams are added until tokens wait for their time stamps. Does not judge a cell: validity does.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from enginebench.domain import JSON, ClosedLoop, Deployment, plain_object
from enginebench.errors import UserError
from enginebench.loadgen import idle_lag_ms
from enginebench.loadgen.health import Stamps
from enginebench.machine.folders import cache_dir
from enginebench.machine.host import Host, facts

TICK_MS = 10.0
TOKENS = 100
FIRST_STREAMS, LAST_STREAMS = 16, 4096
LAG_MS: Mapping[Stamps, float] = {"loop": 1.0, "kernel": TICK_MS / 2}
"""How long tokens may wait to be read (p99). Stamped by the read, one that waits longer is not measured to the millisecond; stamped by
the kernel, it is right until the next one of its stream arrives, and half of the way there is near enough."""
_ROUNDS = 4
"""Requests of each stream, so that all of them run together for some time: they start a millisecond apart."""
TRIES = 3
"""Of which the best counts: a busy machine only ever adds to the lag."""
_PACE = 1.05
"""Ticks that take this much longer on average were not the client's fault alone: the fake engine could not keep up."""

_AT_WORK = 0.8
"""A client that makes tokens wait was at work for at least this share of that time, else something kept it from working; and one that is at
work for more of all time has no reserve."""
_MANY = 256
"""Streams. Any fake engine serves fewer, unless something takes its core; and it is with many that an event takes the client the least."""

Limiter: TypeAlias = Literal["client", "machine", "fake engine", "range"]


@dataclass(frozen=True)
class Level:
    """One number of streams: output events/s while all of them run, which a cell's peak is compared with, lag p99, the client's processor
    time for an event, mean time from tick to tick, whose time stamps it had, how many client processes there were."""

    streams: int
    events_per_s: float
    lag_p99_ms: float
    cpu_us: float
    tick_ms: float
    stamps: Stamps = "loop"
    processes: int = 1

    @property
    def lag_limit_ms(self) -> float:
        """How long tokens may wait until they are read (p99)."""
        return LAG_MS[self.stamps]

    @property
    def cpu_fraction(self) -> float:
        """Share of a core that each client process takes while all streams run."""
        return self.cpu_us * self.events_per_s / self.processes / 1e6

    @property
    def limiter(self) -> Limiter | None:
        """What failed at this level; None if nothing did.

        That tokens wait is the client's fault if it was at work as long as they waited: in each tick, or all the time, where the fake
        engine needs all the time to send them.
        """
        behind, wait_ms = self.tick_ms > _PACE * TICK_MS, LAG_MS[self.stamps]
        late = self.lag_p99_ms > wait_ms
        if late and self.cpu_fraction > _AT_WORK * (1.0 if behind else wait_ms / TICK_MS):
            return "client"
        if behind and self.streams >= _MANY:
            return "fake engine"
        return "machine" if late or behind else None


@dataclass(frozen=True)
class Calibration:
    """The limits of so many client processes on one machine.

    streams, events_per_s: the most that was borne. limiter: what ended the search. limits: what cells are held against, by the same names.
    If the client ended the search, that is what it bore. If it did not, it is only the events/s that it would bear with a core for each
    process (as far as there are cores) and a fifth of it in reserve, at the least processor time that an event took; nothing where the
    machine was busy. idle_lag_p99_ms: lag of an event loop that does nothing; what the machine itself adds.
    """

    streams: int
    events_per_s: float
    processes: int
    limiter: Limiter
    limits: Mapping[str, float]
    idle_lag_p99_ms: float
    machine: Mapping[str, JSON]
    at: str
    levels: tuple[Level, ...] = field(default=())

    @property
    def disturbed(self) -> bool:
        """Whether the machine alone causes half of the lag that is allowed: something else runs on it."""
        return self.idle_lag_p99_ms > LAG_MS["loop"] / 2


def calibrate(processes: int = 1, say: Callable[[Level], None] = lambda _: None) -> Calibration:
    """Find this machine's client limits against the fake engine, and store them: a minute or two on a machine without other work.

    processes: client processes that share the load. say: called with every level.
    """
    from enginebench.records.store import now, write_atomically

    levels = list(_levels(processes, say))
    held = [level for level in levels if level.limiter is None]
    best = held[-1] if held else Level(0, 0.0, 0.0, math.inf, TICK_MS)
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
    """The limits of so many client processes of this machine, see `Calibration`.

    Empty where they are not known: no calibration, another machine's, one with another number of processes or with the other time stamps.
    """
    try:
        kept = json.loads(_file(processes).read_text(encoding="utf-8"))
        if kept["machine"] != _machine(facts()) or kept["processes"] != processes or kept["levels"][-1]["stamps"] != stamps:
            return {}
        return {name: float(limit) for name, limit in kept["limits"].items()}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}


def _levels(processes: int, say: Callable[[Level], None]) -> Iterator[Level]:
    """Ever more streams, by a factor of about 1.4, until one level fails in all of its tries."""
    from enginebench.engines.registry import discover
    from enginebench.runner.engine import Opening
    from enginebench.runner.opening import open_engine

    fake = discover()["fake"]
    options: Mapping[str, JSON] = {"ttft_ms": TICK_MS, "tick_ms": TICK_MS}
    deployment = Deployment("fake", "calibration", "none", "none", options=options)
    with tempfile.TemporaryDirectory(prefix="enginebench-") as folder:
        log = Path(folder) / "fake.log"
        opening = Opening()
        with open_engine(
            fake, deployment, fake.find(None), opening, log=log, base=Path(folder), say=lambda _: None, processes=processes
        ) as engine:
            streams = FIRST_STREAMS
            while streams <= LAST_STREAMS:
                load = ClosedLoop(concurrency=streams, input_tokens=8, output_tokens=TOKENS, requests=_ROUNDS * streams, timeout_s=60.0)
                prompts = opening.prompts(load, load.requests, salt="calibration")
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
                best = min(tries, key=lambda level: (level.limiter is not None, level.lag_p99_ms))
                say(best)
                yield best
                if best.limiter is not None:
                    return
                streams = 3 * streams // 2 if streams & (streams - 1) == 0 else 4 * streams // 3


def _machine(host: Host) -> dict[str, JSON]:
    """What a calibration holds for."""
    return {"cpu": host.cpu, "usable_cores": host.usable_cores, "system": host.system}


def _file(processes: int) -> Path:
    return cache_dir() / f"calibration-{processes}.json"
