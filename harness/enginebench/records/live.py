"""live.json in a run folder: what a run that is going on does right now. For who watches it; no figure is computed from it.

The process that measures replaces it at most twice a second and removes it when it ends. After a crash it stays behind, and names a process
that is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from enginebench.errors import UserError
from enginebench.records.schema import dump, load

NAME = "live.json"
_SILENT_S = 60.0
"""A process on another machine is taken for gone when it has not written for so long."""
_SAME_START_S = 2.0


@dataclass(frozen=True)
class Process:
    host: str
    pid: int
    started_at: float
    """Its start, in seconds since 1970: tells it from a later process with the same number."""

    @classmethod
    def own(cls) -> Process:
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    @property
    def alive(self) -> bool | None:
        """None if it is on another machine."""
        if self.host != socket.gethostname():
            return None
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started_at) < _SAME_START_S
        except psutil.Error:
            return False


@dataclass(frozen=True)
class LiveCell:
    """The cell that is being measured. Totals since its load began; 0 in its warm-up."""

    id: str
    load: str
    repeat: int
    requests: int = 0
    """Planned; 0 where the load ends after a duration."""
    ended: int = 0
    failed: int = 0
    tokens: int = 0
    """Output events so far, approximately the tokens."""
    elapsed_s: float = 0.0
    duration_s: float | None = None
    """Planned."""
    ttft_s: float | None = None
    """Of the request that ended last."""
    tpot_s: float | None = None


@dataclass(frozen=True)
class Live:
    process: Process
    step: str
    """'preparing', 'starting', 'loading', 'warm-up', 'measuring', 'between cells', ..."""
    planned: int
    """Cells of the run so far; a search adds some. done: those that are stored."""
    done: int
    deployment: str = ""
    """The server that is running, or about to."""
    cell: LiveCell | None = None


def write_live(run: Path, live: Live) -> None:
    """Replace the file, without waiting for the disk. OSError if that is not possible."""
    part = run / f".{NAME}.{os.getpid()}.part"
    part.write_text(dump(live), encoding="utf-8")
    part.replace(run / NAME)


def remove_live(run: Path) -> None:
    with contextlib.suppress(OSError):
        (run / NAME).unlink(missing_ok=True)


def read_live(run: Path) -> Live | None:
    """What a run does; None if it is not going on."""
    file = run / NAME
    try:
        age_s = time.time() - file.stat().st_mtime
        live = load(file, Live, {})
    except (OSError, UserError):
        return None
    alive = live.process.alive
    return live if (age_s < _SILENT_S if alive is None else alive) else None
