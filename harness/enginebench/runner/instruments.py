"""Watches GPUs, this machine and what the engine runs in over a load, from a process of its own.

Knows which of them belong to a cell; reads none (`enginebench.telemetry.sampler` does) and makes no figure of them.
"""

from __future__ import annotations

import ipaddress
import json
from types import TracebackType
from typing import Self

from enginebench.domain import JSON
from enginebench.records.counters import CounterSeries
from enginebench.records.subject import Subject
from enginebench.runner.engine import Engine
from enginebench.runner.served import Served
from enginebench.runner.sidecar import Sidecar
from enginebench.runtime.container.client import remote_host

EVERY_S = 1.0
PROGRAM = ("-P", "-m", "enginebench.telemetry.sampler")
"""-P: a module in the working folder must not shadow one of the standard library's."""


class Instruments:
    """Telemetry of loads, one after another: `with Instruments() as instruments:`, and for each `prepare`, `begin`, the load, `collect`.

    The first sampler starts with the block, while the run's folder and an engine are being opened; `prepare` starts the next
    one, and what comes before `begin` hides how long it takes.
    """

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._sidecar: Sidecar | None = None
        self._ordered = False

    def __enter__(self) -> Self:
        self._sidecar = Sidecar(PROGRAM)
        return self

    def prepare(self, engine: Engine) -> None:
        """A load of this engine comes next."""
        if self._ordered:  # for a load that never came; its engine may be another one
            self._end()
        self._sidecar = self._sidecar or Sidecar(PROGRAM)
        self._sidecar.order({**orders(engine), "every_s": self._every_s})
        self._ordered = True

    def begin(self) -> None:
        """Read for the first time: the load begins now."""
        if self._sidecar is not None:
            self._sidecar.begin()

    def collect(self) -> tuple[Subject, ...]:
        """What was seen since `begin`; nothing if it came to nothing."""
        said = self._sidecar.collect() if self._sidecar is not None else b""
        self._end()
        return _subjects(said)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def _end(self) -> None:
        self._ordered = False
        if self._sidecar is not None:
            self._sidecar.end()
            self._sidecar = None


def orders(engine: Engine) -> dict[str, JSON]:
    """What the sampler is to read for this engine, as it wants to be told."""
    handles = {name: started.handle for name, started in engine.started().items()}
    containers: dict[str, JSON] = {name: ident for name, (kind, ident) in handles.items() if kind == "container"}
    processes: dict[str, JSON] = {name: int(ident) for name, (kind, ident) in handles.items() if kind == "processes"}
    here = remote_host() is None if containers else bool(processes) or _local(engine)
    return {"gpus": here, "containers": containers, "processes": processes}


def _local(engine: Engine) -> bool:
    """Whether a server that somebody else started is on this machine, by its address; its GPUs are then this machine's."""
    host = engine.target.host if isinstance(engine, Served) else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _subjects(said: bytes) -> tuple[Subject, ...]:
    told = json.loads(said) if said.endswith(b"\n") else []  # else it was killed, and with it what it saw
    return tuple(Subject(**{**one, "series": _series(one["series"])}) for one in told)


def _series(told: dict[str, JSON]) -> CounterSeries:
    at_ns, values, cpu_s = told["at_ns"], told["values"], told["cpu_s"]
    return CounterSeries(tuple(at_ns), {name: tuple(its) for name, its in values.items()}, cpu_s)  # type: ignore[arg-type, union-attr]
