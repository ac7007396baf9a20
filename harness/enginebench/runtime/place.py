"""Where an engine is started: as a process of this machine, or, with the same few methods, in containers (see `container_pod`).

Knows nothing of readiness or loads; `runner.opening` asks a place to start what an adapter wants, and how to reach it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from enginebench.adapter import Launch, Site
from enginebench.runtime.process import EngineProcess
from enginebench.runtime.readiness import Proof, verify_listener

Handle: TypeAlias = tuple[Literal["processes", "container"], str]
"""The id of a process whose descendants are the engine, or of a container."""


class Started(Protocol):
    """An engine that was started, and may end at any moment."""

    log: Path

    @property
    def handle(self) -> Handle:
        """What telemetry follows it by."""

    @property
    def alive(self) -> bool: ...

    @property
    def ending(self) -> str | None: ...

    def wait(self, timeout_s: float) -> bool: ...

    def fileno(self) -> int: ...

    def log_tail(self, lines: int = 20) -> str: ...

    def ask_to_stop(self, grace_s: float = 10.0) -> None: ...

    def stop(self, grace_s: float = 10.0) -> None: ...


class Place(Protocol):
    """Starts what an adapter launches."""

    @property
    def site(self) -> Site:
        """Addresses and paths as the engine sees them."""

    def start(self, launch: Launch, site: Site, *, log: Path, tag: str, talk: bool = False) -> Started:
        """Start one server; as `EngineProcess.start`. Raises LaunchFailed, or Unsupported when this machine cannot."""

    def reach(self, port: int) -> tuple[str, int]:
        """Where a port of the engine is for us, once it has been started."""

    def prove(self, port: int, started: Started) -> Proof:
        """Whether that port is answered by what was started."""

    def close(self) -> None:
        """Take back what the place itself has made. Again does nothing."""


@dataclass(frozen=True)
class ThisMachine:
    """Processes, which see addresses as we do."""

    site: Site

    def start(self, launch: Launch, site: Site, *, log: Path, tag: str, talk: bool = False) -> EngineProcess:
        return EngineProcess.start(launch, site, log=log, tag=tag, talk=talk)

    def reach(self, port: int) -> tuple[str, int]:
        return self.site.host, port

    def prove(self, port: int, started: Started) -> Proof:
        assert isinstance(started, EngineProcess)  # noqa: S101  # as `start` returns it
        return verify_listener(port, started, self.site.host)

    def close(self) -> None:
        pass
