"""How an engine is present on this machine, read from the metadata of its environment: nothing is started or imported.

Knows no engine; `enginebench.engines.environments` makes environments, and adapters find what is in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path


@dataclass(frozen=True)
class Install:
    """One way this engine is present on this machine.

    variant: which of the adapter's ways (e.g. 'xllamacpp', 'llama-server'). python: the interpreter of the engine's own
    environment, binary: an executable; either may be None. version: the engine's, as its package or binary says.
    """

    variant: str
    version: str
    python: Path | None = None
    binary: Path | None = None


def installed_version(python: Path, package: str) -> str | None:
    """The version of `package` in the environment of that interpreter, read from its metadata: nothing is started or imported."""
    return next((found.version for found in distributions(name=package, path=_sites(python))), None)


def installed_packages(python: Path) -> dict[str, str]:
    """Name -> version of everything in the environment of that interpreter, read from its metadata."""
    return dict(sorted((found.name, found.version) for found in distributions(path=_sites(python))))


def _sites(python: Path) -> list[str]:
    environment = python.parent.parent
    return [str(site) for pattern in ("lib/python3*/site-packages", "Lib/site-packages") for site in environment.glob(pattern)]
