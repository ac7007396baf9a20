"""Environments that a person made: `bench engines use vllm /opt/venv/bin/python` has enginebench start the engine that is in there.

One small file per engine in cache_dir()/engines. Nothing in such an environment is ever changed. Does not know what is installed in it.
"""

import json
import os
from pathlib import Path

from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir


def chosen(engine: str) -> Path | None:
    """The interpreter that was chosen for this engine; None where none was, or where it no longer exists."""
    try:
        python = Path(json.loads(_file(engine).read_text(encoding="utf-8"))["python"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return python if os.access(python, os.X_OK) else None


def runnable(python: str | Path) -> Path:
    """The absolute path of an interpreter, its links kept: they are what makes a virtual environment. UserError if it cannot be run."""
    path = Path(os.path.abspath(Path(python).expanduser()))  # noqa: PTH100  # Path.resolve() would follow the links
    if path.is_dir() or not os.access(path, os.X_OK):
        raise UserError(f"'{path}' is no program that can be run", advice="write the path of a Python, such as /opt/venv/bin/python")
    return path


def choose(engine: str, python: Path) -> None:
    """Use this interpreter from now on."""
    _file(engine).parent.mkdir(parents=True, exist_ok=True)
    _file(engine).write_text(json.dumps({"python": str(python)}) + "\n", encoding="utf-8")


def forget(engine: str) -> bool:
    """Choose none; False where none was chosen."""
    found = _file(engine).exists()
    _file(engine).unlink(missing_ok=True)
    return found


def _file(engine: str) -> Path:
    return cache_dir() / "engines" / f"{engine}.chosen.json"
