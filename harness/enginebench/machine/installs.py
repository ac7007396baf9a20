"""How an engine is installed on this machine, read from package metadata and PATH: starts and imports nothing.

Knows no engine. `enginebench.engines.environments` makes environments; adapters find what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path


@dataclass(frozen=True)
class Install:
    """One way in which an engine is installed on this machine."""

    variant: str
    """Which of the adapter's ways, e.g. 'xllamacpp' or 'llama-server'."""
    version: str
    """The engine's version, as its package or binary reports it."""
    python: Path | None = None
    """The interpreter of the engine's own environment."""
    binary: Path | None = None


def find_package(python: Path | None, package: str, variant: str | None = None) -> list[Install]:
    """The package in the environment of that interpreter, as an install of that variant (default: the package's name)."""
    version = installed_version(python, package) if python is not None else None
    return [Install(variant or package, version, python=python)] if version else []


def installed_version(python: Path, package: str) -> str | None:
    """The version of a package in the environment of that interpreter."""
    return next((found.version for found in distributions(name=package, path=_site_packages(python))), None)


def installed_packages(python: Path) -> dict[str, str]:
    """Name -> version of every package in the environment of that interpreter."""
    return dict(sorted((found.name, found.version) for found in distributions(path=_site_packages(python))))


def _site_packages(python: Path) -> list[str]:
    environment = python.parent.parent
    return [str(folder) for pattern in ("lib/python3*/site-packages", "Lib/site-packages") for folder in environment.glob(pattern)]
