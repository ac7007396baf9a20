"""One virtual environment per engine, because engines exclude each other's dependencies (torch above all).

It is in cache_dir()/engines/<name>-<fingerprint of the pins and this Python>, so changed pins make a new one and the old one stays usable.
It is built in place, because virtual environments are not relocatable; a marker file is written last, and without it it is built again.
"""

import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from enginebench.domain import JSON, fingerprint
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir
from enginebench.machine.installs import python_with_pip

COMPLETE = "enginebench-complete.json"
TAIL_LINES = 12


@dataclass(frozen=True)
class Pins:
    requirements: tuple[str, ...]
    constraints: Path | None = None
    """A file with the exact versions of their dependencies."""
    unwanted: tuple[str, ...] = ()
    """Dependencies that are uninstalled afterwards, because no build of them fits."""


def python_of(name: str, pins: Pins) -> Path | None:
    """The interpreter of a complete environment with exactly these pins; None when there is none."""
    folder = _folder(name, pins)
    python = folder / "bin" / "python"
    return python if (folder / COMPLETE).is_file() and python.exists() else None


def install(name: str, pins: Pins, say: Callable[[str], None]) -> Path:
    """Make the environment unless it exists, and return its interpreter.

    `say` gets one sentence per step. Two processes that need the same environment build it once. Raises UserError with the last lines of
    the output of venv or pip.
    """
    if python := python_of(name, pins):
        return python
    folder = _folder(name, pins)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock"), lambda: say(f"{name}: waiting for another process that installs it")):
        if python := python_of(name, pins):
            return python
        return _build(name, folder, pins, say)


def _folder(name: str, pins: Pins) -> Path:
    facts: dict[str, JSON] = {
        "requirements": list(pins.requirements),
        "constraints": pins.constraints.read_text() if pins.constraints else "",
        "python": [platform.python_implementation(), platform.python_version(), platform.machine(), sys.base_prefix],
    }
    if pins.unwanted:  # left out otherwise, so that the environments of most engines keep their names
        facts["unwanted"] = list(pins.unwanted)
    return cache_dir() / "engines" / f"{name}-{fingerprint(facts)}"


def _build(name: str, folder: Path, pins: Pins, say: Callable[[str], None]) -> Path:
    began = time.monotonic()
    python = folder / "bin" / "python"
    log = folder.with_name(folder.name + ".log")
    log.write_bytes(b"")
    shutil.rmtree(folder, ignore_errors=True)
    say(f"{name}: making a virtual environment in {folder}")
    outside = python_with_pip()  # an environment without a pip of its own is made 4 to 5 s faster
    venv = [sys.executable, "-I", "-m", "venv", *(["--without-pip"] if outside else []), str(folder)]
    _run(venv, log, f"{name}: could not make a virtual environment")
    if pins.requirements:
        say(f"{name}: installing {', '.join(pins.requirements)}")
        pip = [outside, "-I", "-m", "pip", "--python", str(python)] if outside else [str(python), "-I", "-m", "pip"]
        # Modules are compiled now and not at first import (--no-compile would halve this step), so that an engine's first start takes as
        # long as its later ones.
        options = ["--disable-pip-version-check", "--no-input"]
        exact = ["--constraint", str(pins.constraints)] if pins.constraints else []
        command = [*pip, "install", *options, "--progress-bar", "off", *exact, "--", *pins.requirements]
        _run(command, log, f"{name}: pip could not install it")
        if pins.unwanted:
            _run([*pip, "uninstall", *options, "--yes", "--", *pins.unwanted], log, f"{name}: pip could not uninstall packages")
    seconds = round(time.monotonic() - began, 1)
    facts = {"requirements": list(pins.requirements), "python": platform.python_version(), "seconds": seconds}
    (folder / COMPLETE).write_text(json.dumps(facts))
    say(f"{name}: ready after {seconds} s")
    return python


def _run(command: list[str], log: Path, failure: str) -> None:
    """Append a command's output to the log; raises UserError with the last lines when it fails."""
    # pip's settings (an index, a proxy, certificates) apply; a shell's PIP_USER or PIP_TARGET must not redirect it.
    env = {key: value for key, value in os.environ.items() if key not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "__PYVENV_LAUNCHER__")}
    with log.open("ab") as sink:
        sink.write(f"$ {' '.join(command)}\n".encode())
        sink.flush()
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, env=env, check=False).returncode
    if code:
        last = "\n".join(log.read_text(errors="replace").rstrip().splitlines()[-TAIL_LINES:])
        raise UserError(f"{failure} (exit code {code}):\n{last}", advice=f"the whole output is in {log}")


@contextlib.contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold an exclusive lock on a file. The kernel releases it when this process ends, in whatever way."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
