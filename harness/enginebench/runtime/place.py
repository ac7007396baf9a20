"""The interface to where an engine runs, and its implementation as processes of this machine. For containers see `container.pod`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

from enginebench.adapter import Launch, Site
from enginebench.runtime.process import EngineProcess
from enginebench.runtime.readiness import Proof, Watched, verify_listener

Handle: TypeAlias = tuple[Literal["processes", "container", "elsewhere"], str]
"""Id of the guardian process (its descendants are the engine) or of the container; or the node where it is out of sight."""


class Started(Watched, Protocol):
    """A started engine, which may end at any time. See `EngineProcess` for the members."""

    log: Path

    @property
    def handle(self) -> Handle:
        """Identifies the engine for telemetry."""

    def pids(self) -> list[int]: ...

    def fileno(self) -> int: ...

    def ask_to_stop(self, grace_s: float = 10.0) -> None: ...

    def stop(self, grace_s: float = 10.0) -> None: ...


class Place(Protocol):
    """Starts the processes of a launch."""

    @property
    def site(self) -> Site:
        """Addresses and paths as the engine sees them."""

    def start(self, launch: Launch, site: Site, *, log: Path, tag: str, piped: bool = False) -> Started:
        """Start one server (see `EngineProcess.start`). Raises LaunchFailed, or Unsupported if this machine cannot run it."""

    def reach(self, port: int) -> tuple[str, int]:
        """Address at which the harness reaches a port of the started engine."""

    def prove(self, port: int, started: Started) -> Proof:
        """Whether the started engine listens on that port."""

    def close(self) -> None:
        """Remove what the place itself has created. Further calls do nothing."""


@dataclass(frozen=True)
class ThisMachine:
    """Runs engines as processes of this machine."""

    site: Site

    def start(self, launch: Launch, site: Site, *, log: Path, tag: str, piped: bool = False) -> EngineProcess:
        return EngineProcess.start(launch, site, log=log, tag=tag, piped=piped)

    def reach(self, port: int) -> tuple[str, int]:
        return self.site.host, port

    def prove(self, port: int, started: Started) -> Proof:
        return verify_listener(port, started.pids(), self.site.host)

    def close(self) -> None:
        pass
