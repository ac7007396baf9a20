"""Every field that is stored has its documentation at the field: a docstring, or the declaration of a load's field."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

from enginebench.dialects.engine_state import Resolved
from enginebench.domain import KINDS, Sample
from enginebench.loadgen import ClientHealth
from enginebench.records.cell import CellRecord
from enginebench.records.launch import LaunchRecord
from enginebench.records.run import RunRecord
from enginebench.records.samples import Samples

WRITTEN = (RunRecord, LaunchRecord, CellRecord, Samples, *KINDS)
"""The records, and the kinds of load: the type of a field that holds one is their base class."""
AS_PLAIN_DATA = (Resolved, ClientHealth, Sample)
"""Stored too, but the type of the field that holds them is a mapping or a column."""


def stored_classes(*roots: Any) -> set[type]:
    """The dataclasses among these types, and those in the types of their fields."""
    found: set[type] = set()
    todo = list(roots)
    while todo:
        kind = todo.pop()
        todo += get_args(kind)
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind not in found:
            found.add(kind)
            hints = get_type_hints(kind, include_extras=True)
            todo += [hints[field.name] for field in dataclasses.fields(kind)]
    return found


def undocumented(source: str) -> Iterator[tuple[str, str]]:
    """(class, field) of every annotated field in the source that no docstring follows."""
    for kind in ast.walk(ast.parse(source)):
        if isinstance(kind, ast.ClassDef):
            for field, after in zip(kind.body, [*kind.body[1:], None], strict=True):
                text = after.value if isinstance(after, ast.Expr) else None
                has_text = isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value.strip()
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and not has_text:
                    yield kind.name, field.target.id


def test_every_stored_field_is_documented_at_the_field() -> None:
    kinds = stored_classes(*WRITTEN) | set(AS_PLAIN_DATA)
    assert {"CellRecord", "Deployment", "Container", "CounterSeries", "Launch", "Member", "Content"} <= {kind.__name__ for kind in kinds}
    missing = []
    for module in sorted({kind.__module__ for kind in kinds}):
        bare = set(undocumented(inspect.getsource(sys.modules[module])))
        for kind in (kind for kind in kinds if kind.__module__ == module):
            fields = [field for field in dataclasses.fields(kind) if "load_field" not in field.metadata]
            missing += [f"{module}.{kind.__name__}.{field.name}" for field in fields if (kind.__name__, field.name) in bare]
    assert not missing, f"fields without a docstring: {', '.join(missing)}"


@dataclass
class _Part:
    value: int


@dataclass
class _Whole:
    parts: dict[str, tuple[_Part | None, ...]]


def test_the_classes_of_fields_are_found_within_collections() -> None:
    assert stored_classes(_Whole) == {_Whole, _Part}


def test_a_field_is_documented_by_the_text_right_below_it() -> None:
    source = '''
        class Outer:
            """The class."""

            first: int
            """Requests."""
            second: int = 0
            third: str = ""
            """Of the server."""
            last: float
    '''
    assert list(undocumented(textwrap.dedent(source))) == [("Outer", "second"), ("Outer", "last")]
