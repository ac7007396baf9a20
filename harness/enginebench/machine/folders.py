"""The folders that enginebench uses: a cache for what it downloads and makes, and the project's own data files.

Does not know what is in the cache or when that may be deleted; all of it can be made again. The project's data files are at the root of a
checkout, or under `_repo/` in an installed wheel.
"""

import importlib
import os
import pkgutil
from pathlib import Path
from types import ModuleType

import platformdirs

HOME_VARIABLE = "ENGINEBENCH_HOME"

_PACKAGE = Path(__file__).resolve().parents[1]
_CHECKOUT = _PACKAGE.parents[1]


def cache_dir() -> Path:
    """The folder named by ENGINEBENCH_HOME, else the user's cache folder. It need not exist yet."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else Path(platformdirs.user_cache_dir("enginebench"))


def state_dir() -> Path:
    """What must not be lost: results that are not uploaded yet. Below ENGINEBENCH_HOME, else in ~/.local/state (XDG)."""
    chosen = os.environ.get(HOME_VARIABLE)
    return Path(chosen).expanduser().absolute() / "state" if chosen else Path(platformdirs.user_state_dir("enginebench"))


def config_dir() -> Path:
    """The user's folder of settings for enginebench (XDG: ~/.config/enginebench, or under XDG_CONFIG_HOME). It need not exist."""
    return Path(platformdirs.user_config_dir("enginebench"))


def user_files(name: str) -> tuple[Path, ...]:
    """Where a user's own catalogue ('hardware.yaml') may be, the one that comes first last."""
    return config_dir() / name, Path.cwd() / name


def resource_dir(name: str) -> Path:
    """The folder `name` ('adapters', 'scenarios', 'reports/templates', ...) of this installation."""
    packaged = _PACKAGE / "_repo" / name
    return packaged if packaged.is_dir() else _CHECKOUT / name


def checkout() -> Path | None:
    """The root of the source checkout this package runs from; None for an installed wheel."""
    return _CHECKOUT if (_CHECKOUT / "pyproject.toml").is_file() and not (_PACKAGE / "_repo").is_dir() else None


def modules_in(package: str) -> list[ModuleType]:
    """Every module of a package, imported, in alphabetical order: what a new file in its folder declares is found."""
    names = sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))
    return [importlib.import_module(f"{package}.{name}") for name in names]
