"""Model families of random checkpoints, one class per family. A new file in this folder is found; nothing else lists families."""

from collections.abc import Iterator

from enginebench.checkpoints.families.base import Family, Geometry, Stored, Tensor
from enginebench.machine.folders import modules_in


def _families() -> Iterator[Family]:
    """One of each family, by module, then in the order of definition. A class without a name is a base class."""
    for module in modules_in(__name__):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, Family) and kind.__module__ == module.__name__ and hasattr(kind, "name"):
                yield kind()


FAMILIES: dict[str, Family] = {family.name: family for family in _families()}
"""Name -> family."""

__all__ = ["FAMILIES", "Family", "Geometry", "Stored", "Tensor"]
