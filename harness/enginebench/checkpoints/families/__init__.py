"""Model families of random checkpoints, one class per family. A new file in this folder is found; nothing else lists families."""

import importlib
import pkgutil
from collections.abc import Iterator

from enginebench.checkpoints.families.base import Family, Geometry, Stored, Tensor


def _families() -> Iterator[Family]:
    """One of each family, by module, then in the order of definition. A class without a name is a base class."""
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Family) and kind.__module__ == module.__name__ and hasattr(kind, "name"):
                yield kind()


FAMILIES: dict[str, Family] = {family.name: family for family in _families()}
"""Name -> family."""

__all__ = ["FAMILIES", "Family", "Geometry", "Stored", "Tensor"]
