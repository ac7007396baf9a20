"""The processes of one deployment: its members, started at once, and the main process, which receives the requests.

Each has its own guardian, lease and log, so all of them end with the harness. If one ends, the deployment has failed.
"""

import contextlib
import select
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from enginebench.adapter import Launch, Member
from enginebench.runtime.exit_status import LaunchFailed
from enginebench.runtime.leftovers import unique_tag
from enginebench.runtime.place import Place, Started

STOP_GRACE_S = 10.0


class ProcessGroup:
    """The processes of one launch. A context manager: leaving the block ends all of them, the main process first."""

    def __init__(self, place: Place, log: Path, nodes: Sequence[Place] = ()) -> None:
        """place: of the main process. log: of it; members log to <stem>.<member>.log in the same folder. nodes: those of members."""
        self.place, self.site, self.log = place, place.site, log
        self._nodes = nodes or (place,)
        self.members: dict[str, Started] = {}
        self.main: Started | None = None

    def start_members(self, launch: Launch) -> None:
        """Start launch.members, each in its own subfolder of the site's folder. Raises LaunchFailed with the member's name."""
        for member in launch.members:
            one = Launch(member.argv, launch.served_name, member.env, member.files)
            place = self.place_of(member)
            site = replace(place.site, port=member.port, folder=self.site.folder / member.name)
            log = self.log.with_name(f"{self.log.stem}.{member.name}{self.log.suffix}")
            try:
                self.members[member.name] = place.start(one, site, log=log, tag=unique_tag(log.stem))
            except LaunchFailed as failure:
                raise LaunchFailed(f"member {member.name}: {failure.reason}", failure.log_tail) from None

    def place_of(self, member: Member) -> Place:
        """Where it runs."""
        return self._nodes[member.node]

    def start_main(self, launch: Launch, *, piped: bool = False) -> Started:
        """Start launch.argv; see `EngineProcess.start`."""
        self.main = self.place.start(launch, self.site, log=self.log, tag=unique_tag(self.log.stem), piped=piped)
        return self.main

    # -- while it runs -------------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether all started processes run."""
        return all(process.alive for process in self.started.values())

    @property
    def ending(self) -> str | None:
        """Which processes have ended and how, as a phrase that follows 'the engine'; None while all run."""
        # Members first: the main process may have ended because of one.
        lost = [f"lost its member {name}: {ending}" for name, process in self.members.items() if (ending := process.ending)]
        ended = self.main.ending if self.main is not None else None
        return " and ".join([*lost, *([ended] if ended else [])]) or None

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a process ends or the time is over. Returns whether one has ended."""
        until = time.monotonic() + timeout_s
        poller = select.poll()
        for process in self.started.values():
            poller.register(process, select.POLLIN)
        while self.alive and (left := until - time.monotonic()) > 0:
            poller.poll(left * 1000)
        return not self.alive

    def log_tail(self, lines: int = 60) -> str:
        """The last lines of the log of the first ended process in the order of `ending`, else of the main process."""
        ended = next((process for process in self.started.values() if not process.alive), self.main)
        return ended.log_tail(lines) if ended is not None else ""

    @property
    def started(self) -> Mapping[str, Started]:
        """All started processes by name: each 'member NAME', then 'engine'."""
        members = {f"member {name}": process for name, process in self.members.items()}
        return members | ({"engine": self.main} if self.main is not None else {})

    # -- the end -------------------------------------------------------------------------------------------------------------

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """End the main process, then all members in parallel, even if one of them fails to end. Further calls do nothing."""
        with contextlib.ExitStack() as stack:
            for place in (self.place, *self._nodes):
                stack.callback(place.close)
            for process in self.members.values():
                stack.callback(process.stop, grace_s)
            for process in self.members.values():
                stack.callback(process.ask_to_stop, grace_s)
            if self.main is not None:
                stack.callback(self.main.stop, grace_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
