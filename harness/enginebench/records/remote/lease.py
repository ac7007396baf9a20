"""Who writes to a run in a store: one process at a time, from whatever machine.

A lease is a file `.writer-NNNNNN.json` beside run.json. The one with the highest number counts; a new one is created, which of several
writers only one can do, and never by removing another. Its owner renews it. A lease that is released, whose process here is gone,
or that was not renewed while somebody watched, may be followed by the next. No clocks of two machines are compared.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from enginebench.errors import UserError
from enginebench.records.live import Process
from enginebench.records.remote.filesystem import RemoteFolder, StoreError

_NAME = re.compile(r".*\.writer-(\d{6})\.json")
RENEW_S = 15.0
WATCH_S = 45.0
"""Renewed by nobody for so long: its owner is gone, or cannot reach the store, which is the same to others."""


class Held(UserError):  # noqa: N818  # named like LaunchFailed
    """Another process writes to the run."""


class Lease:
    """Held from `take` to `release`; renewed by a thread."""

    def __init__(self, folder: RemoteFolder, run: str, number: int, content: dict[str, Any]) -> None:
        self._folder, self._run, self._number, self._content = folder, run, number, content
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease of {run}", daemon=True)
        self._thread.start()

    @property
    def ours(self) -> bool:
        """Whether no other process has taken the run over, which it may when this one could not reach the store. Asks the store."""
        return max(_numbers(self._folder, self._run), default=0) <= self._number

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(StoreError):
            self._write(released=True)

    def _renew(self) -> None:
        while not self._stop.wait(RENEW_S):
            self._content["beat"] += 1
            with contextlib.suppress(StoreError):
                self._write()

    def _write(self, *, released: bool = False) -> None:
        self._folder.write(_name(self._run, self._number), _dump({**self._content, "released": released}))


def take(folder: RemoteFolder, run: str, say: Callable[[str], None]) -> Lease:
    """The lease of a run, which need not exist yet. `Held` if another process has it."""
    numbers = _numbers(folder, run)
    last = max(numbers, default=0)
    if last and (owner := _owner(folder, run, last, say)):
        raise Held(f"another bench is writing to {folder.shown}/{run}: {owner}", advice="wait for it, or start another run with --fresh")
    content = {**asdict(Process.own()), "token": uuid.uuid4().hex, "beat": 0, "released": False}
    created = folder.create(_name(run, last + 1), _dump(content))
    if not created or max(_numbers(folder, run), default=0) > last + 1:
        raise Held(f"another bench has just begun to write to {folder.shown}/{run}", advice="the same command tries again")
    for old in numbers:
        with contextlib.suppress(StoreError):
            folder.remove(_name(run, old))
    return Lease(folder, run, last + 1, content)


def _owner(folder: RemoteFolder, run: str, number: int, say: Callable[[str], None]) -> str:
    """Who has a lease, in words; '' if nobody has it any more. Of a process on another machine it waits for a sign of life."""
    first = _read(folder, run, number)
    if first is None or first.get("released"):
        return ""
    process = Process(str(first.get("host")), int(first.get("pid") or 0), float(first.get("started_at") or 0))
    name = f"process {process.pid} on {process.host}"
    if (alive := process.alive) is not None:
        return name if alive else ""
    say(f"{folder.shown}/{run} was being written by {name}: watching for up to {WATCH_S:.0f} s whether it goes on")
    end = time.monotonic() + WATCH_S
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCH_S / 10))
        now = _read(folder, run, number)
        if now is None or now.get("released") or max(_numbers(folder, run), default=0) > number:
            return "" if now is not None and now.get("released") else name
        if now.get("beat") != first.get("beat"):
            return name
    return ""


def _numbers(folder: RemoteFolder, run: str) -> list[int]:
    return [int(found[1]) for name in folder.names(run) if (found := _NAME.fullmatch(name))]


def _name(run: str, number: int) -> str:
    return f"{run}/.writer-{number:06}.json"


def _read(folder: RemoteFolder, run: str, number: int) -> dict[str, Any] | None:
    content = folder.read(_name(run, number))
    with contextlib.suppress(ValueError):
        data = json.loads(content or b"null")
        return data if isinstance(data, dict) else None
    return None


def _dump(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()
