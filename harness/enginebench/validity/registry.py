"""Every validity check there is, collected from the modules of `enginebench.validity.checks`.

A new check is one new file there (or one new function in a file that is there); nothing else lists checks.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from enginebench.validity import checks
from enginebench.validity.check import Check


@cache
def all_checks() -> tuple[Check, ...]:
    """The checks: modules in alphabetical order, each in the order of its declarations. ValueError for an id used twice."""
    found: dict[str, Check] = {}
    for name in sorted(module.name for module in pkgutil.iter_modules(checks.__path__)):
        module = importlib.import_module(f"{checks.__name__}.{name}")
        declared = [each for each in vars(module).values() if isinstance(each, Check) and each.function.__module__ == module.__name__]
        for each in declared:
            if each.id in found:
                raise ValueError(f"two checks have the id {each.id}: in {found[each.id].topic}.py and in {each.topic}.py")
            found[each.id] = each
    return tuple(found.values())
