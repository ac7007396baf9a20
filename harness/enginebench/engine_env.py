"""One virtual environment per engine, because engines exclude each other's dependencies (torch above all).

Knows nothing of which engine needs what: requirements come in, a Python interpreter comes out. An environment lives in
home()/engines/<name>-<fingerprint of requirements, constraints and this Python>, so changed pins make a new one and the old
one stays usable for older scenarios. It is built in place (virtual environments are not relocatable); a completion marker
written last tells a whole one from a half-made one, which is built anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from enginebench.errors import UserError
from enginebench.home import home
from enginebench.nouns import JSON, fingerprint

COMPLETE = "enginebench-complete.json"
TAIL_LINES = 12


def python_of(name: str, requirements: Sequence[str], constraints: Path | None) -> Path | None:
    """The interpreter of a finished environment with exactly these pins; None when there is none."""
    folder = _folder(name, requirements, constraints)
    python = folder / "bin" / "python"
    return python if (folder / COMPLETE).is_file() and python.exists() else None


def install(name: str, requirements: Sequence[str], constraints: Path | None, say: Callable[[str], None]) -> Path:
    """Make the environment unless it is there; returns its interpreter.

    say gets one sentence per step. Two processes asking for the same one build it once. Raises UserError with the last lines
    of what venv or pip said.
    """
    if python := python_of(name, requirements, constraints):
        return python
    folder = _folder(name, requirements, constraints)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder.with_name(folder.name + ".lock"), lambda: say(f"{name}: another process installs it; waiting")):
        if python := python_of(name, requirements, constraints):
            return python
        return _build(name, folder, requirements, constraints, say)


def _folder(name: str, requirements: Sequence[str], constraints: Path | None) -> Path:
    pins: dict[str, JSON] = {
        "requirements": list(requirements),
        "constraints": constraints.read_text() if constraints else "",
        "python": [platform.python_implementation(), platform.python_version(), platform.machine(), sys.base_prefix],
    }
    return home() / "engines" / f"{name}-{fingerprint(pins)}"


def _build(name: str, folder: Path, requirements: Sequence[str], constraints: Path | None, say: Callable[[str], None]) -> Path:
    began = time.monotonic()
    python = folder / "bin" / "python"
    log = folder.with_name(folder.name + ".log")
    log.write_bytes(b"")
    shutil.rmtree(folder, ignore_errors=True)
    say(f"{name}: making a virtual environment in {folder}")
    # Our own pip can install into another environment, which saves the 4 to 5 s that giving it one takes.
    own_pip = importlib.util.find_spec("pip") is not None
    venv = [sys.executable, "-I", "-m", "venv", *(["--without-pip"] if own_pip else []), str(folder)]
    _run(venv, log, f"{name}: no virtual environment could be made")
    if requirements:
        say(f"{name}: installing {', '.join(requirements)}")
        pip = [sys.executable, "-I", "-m", "pip", "--python", str(python)] if own_pip else [str(python), "-I", "-m", "pip"]
        # Modules are compiled here and not at first import (--no-compile would halve this step): an engine's first start is
        # timed like its later ones.
        options = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]
        pins = ["--constraint", str(constraints)] if constraints else []
        _run([*pip, "install", *options, *pins, "--", *requirements], log, f"{name}: pip could not install it")
    seconds = round(time.monotonic() - began, 1)
    facts = {"requirements": list(requirements), "python": platform.python_version(), "seconds": seconds}
    (folder / COMPLETE).write_text(json.dumps(facts))
    say(f"{name}: ready after {seconds} s")
    return python


def _run(command: list[str], log: Path, failure: str) -> None:
    """Append a command's output to the log; raises UserError with the last lines when it fails."""
    # pip's own settings (an index, a proxy, certificates) hold here too; a shell's PIP_USER or PIP_TARGET must not redirect it.
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
    """Hold an exclusive lock on a file; the kernel frees it when this process ends in whatever way."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
