"""Where the data files of the project are: adapters, scenarios, report templates.

In a checkout they lie at the repository root, in an installed wheel inside the package under `_repo/`. Nobody else needs to
know which of the two it is.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parents[1]


def folder(name: str) -> Path:
    """The folder `name` ('adapters', 'scenarios', 'reports/templates', ...) of this installation."""
    packaged = _PACKAGE / "_repo" / name
    return packaged if packaged.is_dir() else _CHECKOUT / name


def checkout() -> Path | None:
    """The root of the source checkout this package runs from; None for an installed wheel."""
    return _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() and not (_PACKAGE / "_repo").is_dir() else None
