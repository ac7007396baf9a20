"""How an engine is installed on this machine, read from package metadata, and the pip that can install one. Imports no package.

Does not know engines. `enginebench.engines.environments` makes environments; adapters find what is in them.
"""

import contextlib
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

_RECENT = "import pip, sys; sys.exit(int(pip.__version__.split('.')[0]) < 23)"
"""`pip --python` exists since 22.3."""


@dataclass(frozen=True)
class Install:
    variant: str
    """Which of the adapter's ways, e.g. 'xllamacpp' or 'llama-server'."""
    version: str
    """The engine's version, as its package or binary reports it."""
    python: Path | None = None
    """The interpreter of the engine's own environment."""
    binary: Path | None = None
    """The engine's executable; None: it is started with `python`."""


def find_package(python: Path | None, package: str, variant: str | None = None) -> list[Install]:
    """The package in the environment of that interpreter, as an install of that variant (default: the package's name)."""
    version = installed_version(python, package) if python is not None else None
    return [Install(variant or package, version, python=python)] if version else []


def installed_version(python: Path, package: str) -> str | None:
    return next((found.version for found in distributions(name=package, path=_site_packages(python))), None)


def installed_packages(python: Path) -> dict[str, str]:
    return dict(sorted(filter(None, map(_name_and_version, distributions(path=_site_packages(python))))))


def _name_and_version(found: Distribution) -> tuple[str, str] | None:
    """From the two lines that hold them: to parse the whole description of a hundred packages takes a tenth of a second."""
    text = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
    lines = [re.search(rf"^{key}: *(.+?)\r?$", text, re.MULTILINE) for key in ("Name", "Version")]
    return (lines[0][1], lines[1][1]) if lines[0] and lines[1] else None


def _site_packages(python: Path) -> list[str]:
    environment = python.parent.parent
    return [str(folder) for pattern in ("lib/python3*/site-packages", "Lib/site-packages") for folder in environment.glob(pattern)]


@cache
def python_with_pip() -> str | None:
    """This interpreter, or the one that its virtual environment was made from, if it has a recent pip."""
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    for python in dict.fromkeys((sys.executable, str(base))):
        with contextlib.suppress(OSError):
            if not subprocess.run([python, "-I", "-c", _RECENT], stderr=subprocess.DEVNULL, check=False).returncode:
                return python
    return None
