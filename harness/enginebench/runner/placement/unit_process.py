"""Runs the command of a unit as a process here, and hands over what it stores as it comes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from enginebench.runner.placement.unit_data import ENDED, Unit
from enginebench.runner.placement.unit_files import Reader
from enginebench.runtime.unit_folder import unit_folder

EVERY_S = 0.1
PATIENCE_S = 30.0
"""For an engine to stop when the unit is ended early."""
_LINES = 5


def follow(unit: Unit, node: str, store: Callable[[Mapping[str, bytes]], object], env: Mapping[str, str] | None = None) -> str:
    """Measure a unit in a folder of its own, and return when it has ended: '', or why it returned nothing, in one sentence.

    store: gets its new files, about ten times a second. env: of the process, in place of this one's. The process and its engine end with
    this one, however that ends: they watch a pipe.
    """
    with unit_folder() as (folder, lock):
        return _follow(unit, folder, lock, node, store, env)


def _follow(
    unit: Unit, folder: Path, lock: int, node: str, store: Callable[[Mapping[str, bytes]], object], env: Mapping[str, str] | None
) -> str:
    unit.write(folder / "unit.json")
    into, errors = folder / "into", folder / "errors.txt"
    cores = () if unit.exclusive or not unit.cores else ("--cores", str(unit.cores))
    module = ("-m", "enginebench.runner.placement.unit", str(folder / "unit.json"), "--into", str(into), "--node", node, *cores)
    with errors.open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, *module, "--while-stdin"], stdin=subprocess.PIPE, stdout=sink, stderr=sink, env=env, start_new_session=True,
            pass_fds=(lock,),
        )  # fmt: skip
    try:
        reader, code = Reader(into), None
        while code is None:
            code = _wait(process)
            if files := reader.new():
                store(files)
    finally:
        _end(process)
    return "" if (into / ENDED).is_file() else _why(code, errors)


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


def _why(code: int, errors: Path) -> str:
    last = " / ".join(line.strip() for line in errors.read_text(errors="replace").splitlines()[-_LINES:] if line.strip())
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"the unit ended with {how} before it said why{f': {last}' if last else ''}"
