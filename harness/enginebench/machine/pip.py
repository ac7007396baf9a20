"""Finds a pip that can install into other environments. It knows nothing of what is installed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from functools import cache
from pathlib import Path

_RECENT = "import pip, sys; sys.exit(int(pip.__version__.split('.')[0]) < 23)"
"""`pip --python` exists since 22.3."""


@cache
def python_with_pip() -> str | None:
    """This interpreter, or the one that its virtual environment was made from, if it has a recent pip."""
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    for python in dict.fromkeys((sys.executable, str(base))):
        with contextlib.suppress(OSError):
            if not subprocess.run([python, "-I", "-c", _RECENT], stderr=subprocess.DEVNULL, check=False).returncode:
                return python
    return None
