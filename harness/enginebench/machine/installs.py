"""How an engine is installed on this machine, read from package metadata, and the pip that can install one. Imports no package.

Does not know engines. `enginebench.engines.environments` makes environments; adapters find what is in them.
"""

import contextlib
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

from enginebench.domain.refusals import NotInstalled

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


def with_package(installs: Sequence[Install], package: str, what: str, install: str | None = None) -> Install:
    """The first install whose environment has this package, or is in an image, whose packages are unknown here. Raises NotInstalled."""
    for each in installs:
        if each.python is None or not each.python.exists() or installed_version(each.python, package):
            return each
    first = installs[0]
    raise NotInstalled(
        f"{what} needs the package {package}, which {first.variant} here lacks", install or f"{first.python} -m pip install {package}"
    )


def installed_version(python: Path, package: str) -> str | None:
    return next((found.version for found in distributions(name=package, path=_site_packages(python))), None)


def installed_packages(python: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, version in filter(None, map(_name_and_version, distributions(path=_site_packages(python)))):
        found.setdefault(name, version)  # the first on the path is the one that is imported
    return dict(sorted(found.items()))


def _name_and_version(found: Distribution) -> tuple[str, str] | None:
    """From the two lines that hold them: to parse the whole description of a hundred packages takes a tenth of a second."""
    text = found.read_text("METADATA") or found.read_text("PKG-INFO") or ""
    lines = [re.search(rf"^{key}: *(.+?)\r?$", text, re.MULTILINE) for key in ("Name", "Version")]
    return (lines[0][1], lines[1][1]) if lines[0] and lines[1] else None


def _site_packages(python: Path) -> list[str]:
    """Where that interpreter finds packages: in its environment, in those that a .pth file there names, and in the system's that a virtual
    environment may see. A program that is no environment's (/usr/bin/python3) has Debian's dist-packages as well."""
    environment = python.parent.parent
    folders = _own_packages(environment)
    folders += [Path(line) for folder in folders for file in sorted(folder.glob("*.pth")) for line in _paths_in(file)]
    settings = environment / "pyvenv.cfg"
    if settings.is_file() and (home := _system_home(settings.read_text(encoding="utf-8", errors="replace"))):
        folders += _own_packages(home.parent)
    return list(dict.fromkeys(str(folder) for folder in folders if folder.is_dir()))


def _own_packages(environment: Path) -> list[Path]:
    patterns = ("lib/python3*/site-packages", "Lib/site-packages", "local/lib/python3*/dist-packages", "lib/python3*/dist-packages")
    return [folder for pattern in patterns for folder in sorted(environment.glob(pattern))]


def _paths_in(file: Path) -> list[str]:
    """The folders that a .pth file adds; its lines of code are left out."""
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    return [str(file.parent / line.strip()) for line in lines if line.strip() and not line.startswith(("import ", "import\t", "#"))]


def _system_home(settings: str) -> Path | None:
    """The folder of the interpreter that a virtual environment was made from, if it sees that one's packages."""
    given = {key.strip().lower(): value.strip() for key, _, value in (line.partition("=") for line in settings.splitlines())}
    return Path(given["home"]) if given.get("include-system-site-packages", "").lower() == "true" and "home" in given else None


@cache
def python_with_pip() -> str | None:
    """This interpreter, or the one that its virtual environment was made from, if it has a recent pip."""
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    for python in dict.fromkeys((sys.executable, str(base))):
        with contextlib.suppress(OSError):
            if not subprocess.run([python, "-I", "-c", _RECENT], stderr=subprocess.DEVNULL, check=False).returncode:
                return python
    return None
