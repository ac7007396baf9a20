"""The formats of traces, one file each. A new file in this folder, with a `FORMAT`, is a new format; nothing else lists them."""

from collections.abc import Iterable

from enginebench.machine.folders import modules_in
from enginebench.workload.recording import TraceFormat

FORMATS: dict[str, TraceFormat] = {module.FORMAT.name: module.FORMAT for module in modules_in(__name__)}
"""Name -> format."""


def recognised(keys: Iterable[str], *, table: bool) -> TraceFormat | None:
    """The format of a file by the columns of its table or the keys of its first object; None: unknown."""
    seen = frozenset(keys)
    found = [each for each in FORMATS.values() if each.table == table and seen.issuperset(each.has)]
    return max(found, key=lambda each: len(each.has), default=None)
