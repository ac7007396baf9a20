"""Telemetry of a load, taken by another process (`enginebench.telemetry.sampler`): which readings belong to a cell."""

import ipaddress
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from enginebench.domain import JSON
from enginebench.records.counters import CounterSeries
from enginebench.records.subject import Subject
from enginebench.runner.engine import Engine
from enginebench.runner.http_engine import HttpEngine
from enginebench.runner.sidecar import Sidecar
from enginebench.runtime.container.client import remote_host

EVERY_S = 1.0
PROGRAM = ("-P", "-m", "enginebench.telemetry.sampler")
"""-P: a module in the working folder must not shadow one of the standard library's."""


class Instruments:
    """Telemetry of one load after another: `with Instruments() as instruments:`, then for each load `prepare`, `begin` and `collect`.
    The first sampler starts with the block, while the run folder and an engine are being opened. Later ones start in `prepare`, so that
    start-up overlaps with what comes before `begin`."""

    def __init__(self, every_s: float = EVERY_S) -> None:
        self._every_s = every_s
        self._sidecar: Sidecar | None = None
        self._configured = False

    def __enter__(self) -> Self:
        self._sidecar = Sidecar(PROGRAM)
        return self

    def prepare(self, engine: Engine) -> None:
        """The next load is for this engine."""
        if self._configured:  # for a load that was not run, maybe of another engine
            self._end()
        self._sidecar = self._sidecar or Sidecar(PROGRAM)
        self._sidecar.configure({**sampler_config(engine), "every_s": self._every_s})
        self._configured = True

    def begin(self) -> None:
        """Take the first reading; the load starts now."""
        if self._sidecar is not None:
            self._sidecar.begin()

    def collect(self) -> tuple[Subject, ...]:
        """The readings since `begin`; empty if the sampler failed."""
        output = self._sidecar.collect() if self._sidecar is not None else b""
        self._end()
        return subjects_of(json.loads(output)) if output.endswith(b"\n") else ()  # without its last line it was killed while writing

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        self._configured = False
        if self._sidecar is not None:
            self._sidecar.end()
            self._sidecar = None


def sampler_config(engine: Engine) -> dict[str, JSON]:
    """What the sampler reads for this engine, as its configuration."""
    handles = {name: started.handle for name, started in engine.started().items()}
    containers: dict[str, JSON] = {name: ident for name, (kind, ident) in handles.items() if kind == "container"}
    processes: dict[str, JSON] = {name: int(ident) for name, (kind, ident) in handles.items() if kind == "processes"}
    on_this_machine = remote_host() is None if containers else bool(processes) or _on_loopback(engine)
    attached = engine.target.port if isinstance(engine, HttpEngine) and not handles and on_this_machine else None
    return {"gpus": on_this_machine, "containers": containers, "processes": processes, "attached": attached}


def _on_loopback(engine: Engine) -> bool:
    """Whether an attached server has a loopback address; its GPUs are then this machine's."""
    host = engine.target.host if isinstance(engine, HttpEngine) else ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def subjects_of(data: Sequence[Mapping[str, Any]], offset_ns: Callable[[int], int] = lambda _: 0) -> tuple[Subject, ...]:
    """What a sampler says. offset_ns: of its clock, at an instant of it."""
    return tuple(Subject(**{**each, "series": _series(each["series"], offset_ns)}) for each in data)


def _series(data: Mapping[str, Any], offset_ns: Callable[[int], int]) -> CounterSeries:
    at_ns = tuple(at - offset_ns(at) for at in data["at_ns"])
    return CounterSeries(at_ns, {name: tuple(column) for name, column in data["values"].items()}, data["cpu_s"])
