"""Runs the command of a unit as a process here, and hands over what it stores as it comes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from enginebench.runner.placement.unit import NODE_LOST
from enginebench.runner.placement.unit_data import ENDED, MEETING, Unit
from enginebench.runner.placement.unit_files import Reader
from enginebench.runtime.unit_folder import unit_folder

EVERY_S = 0.1
PATIENCE_S = 30.0
"""For an engine to stop when the unit is ended early."""
_LINES = 5


class UnitLost(Exception):  # noqa: N818  # an event
    """Another node of the unit's engine was lost: it can be tried again on others."""


def follow(
    unit: Unit, node: str, store: Callable[[Mapping[str, bytes]], object], env: Mapping[str, str] | None = None,
    meet: Callable[[str], object] | None = None, address: str = "",
) -> str:  # fmt: skip
    """Measure a unit in a folder of its own, and return when it has ended: '', or why it returned nothing, in one sentence.

    store: gets its new files, about ten times a second. env: of the process, in place of this one's. The process and its engine end with
    this one, however that ends: they watch a pipe. meet: gets the content of the file by which the other nodes of the engine find this one,
    at `address`. UnitLost if one of these is lost.
    """
    with unit_folder() as (folder, lock):
        return _follow(unit, (folder, lock), node, store, env, meet, address)


def _follow(
    unit: Unit, where: tuple[Path, int], node: str, store: Callable[[Mapping[str, bytes]], object], env: Mapping[str, str] | None,
    meet: Callable[[str], object] | None, address: str,
) -> str:  # fmt: skip
    folder, lock = where
    unit.write(folder / "unit.json")
    into, errors = folder / "into", folder / "errors.txt"
    cores = () if unit.exclusive or not unit.cores else ("--cores", str(unit.cores))
    given = ("--into", str(into), "--node", node, "--meet", address)
    process = _start("unit", str(folder / "unit.json"), *given, *cores, errors=errors, env=env, lock=lock)
    try:
        reader, code = Reader(into), None
        while code is None:
            code = _wait(process)
            if meet is not None and (into / MEETING).exists():
                meet((into / MEETING).read_text())
                meet = None
            if files := reader.new():
                store(files)
    finally:
        _end(process)
    if code == NODE_LOST:
        raise UnitLost(_last(errors).removeprefix("error: "))
    return "" if (into / ENDED).is_file() else _why(code, errors)


def join(unit: Unit, node: str, rank: int, meeting: str, env: Mapping[str, str] | None = None) -> str:
    """Be a further node of a unit's engine until that ends: '', or why it could not. meeting: what `follow` gave to `meet`."""
    with unit_folder() as (folder, lock):
        unit.write(folder / "unit.json")
        (folder / MEETING).touch(mode=0o600)
        (folder / MEETING).write_text(meeting)
        errors = folder / "errors.txt"
        here = ("--meeting", str(folder / MEETING), "--rank", str(rank), "--node", node)
        process = _start("rank", str(folder / "unit.json"), *here, errors=errors, env=env, lock=lock)
        try:
            code = None
            while code is None:
                code = _wait(process)
        finally:
            _end(process)
        return "" if code == 0 else _why(code, errors)


def _start(module: str, *arguments: str, errors: Path, env: Mapping[str, str] | None, lock: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"enginebench.runner.placement.{module}", *arguments, "--while-stdin"]
    with errors.open("wb") as sink:
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=env, start_new_session=True, pass_fds=(lock,))


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Its exit code, or None after a moment."""
    try:
        return process.wait(EVERY_S)
    except subprocess.TimeoutExpired:
        return None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its pipe, which ends it and its engine, and wait for it."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last(errors: Path) -> str:
    return " / ".join(line.strip() for line in errors.read_text(errors="replace").splitlines()[-_LINES:] if line.strip())


def _why(code: int, errors: Path) -> str:
    last = _last(errors)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"the unit ended with {how} before it said why{f': {last}' if last else ''}"
