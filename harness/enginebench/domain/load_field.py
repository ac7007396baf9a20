"""The declaration of one field of a load: everything that a schema, a check, a table or a label needs to know about it.

A field is declared once, in the class of the load that has it. Does not know loads and imports nothing of pydantic.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, get_type_hints

Role: TypeAlias = Literal["level", "arrivals", "lengths", "extent", "client", "other"]
"""What a field describes: how heavy the load is, when requests arrive, how long they are, how much is sent, how the client behaves, or
anything else."""


@dataclass(frozen=True)
class LoadField:
    """One field of a load."""

    doc: str
    """Meaning, as docs/scenario.md shows it."""
    role: Role = "other"
    """Groups the field with others: tables hide some groups, and sentences name level and lengths by themselves."""
    above: float | None = None
    """Exclusive lower bound of a number."""
    least: float | None = None
    """Inclusive lower bound of a number."""
    most: float | None = None
    """Inclusive upper bound of a number, which only a scenario's schema checks."""
    check: Callable[[Any], object] | None = None
    """Raises ValueError for a text that does not follow the field's notation."""
    examples: tuple[Any, ...] = ()
    """Values that an error message suggests."""
    unit: str = ""
    """'s' where the value has a unit; the field's name then ends with it."""
    heading: str = ""
    """Name in tables; default: the field's name."""
    needs: tuple[str, Any] | None = None
    """The field has an effect only together with another field: its name, and the value it must have (None: any but its default)."""
    replaced_by: str | None = None
    """Another field that replaces this one where it is set."""
    sparse: bool = False
    """Left out of stored JSON at its default, as a field that most loads do not use."""
    inferred: bool = False
    """Where a scenario does not set the field, its value depends on the rest of the load."""
    name: str = ""
    """Of the dataclass field; filled in by `fields_of`, as is `type`."""
    type: Any = None
    """Its annotation, resolved."""
    default: Any = None
    """Value in stored JSON of a load that does not have the field. Canonical JSON omits it."""

    @property
    def words(self) -> str:
        """'think_s' -> 'think'."""
        return (self.name.removesuffix(f"_{self.unit}") if self.unit else self.name).replace("_", " ")

    def text(self, value: float | str) -> str:
        """'requests 64', 'duration 8 s'."""
        shown = f"{value:g}" if isinstance(value, float) else value
        return f"{self.words} {shown} {self.unit}".rstrip()

    def problem(self, value: Any) -> str:
        """Why this value is not allowed, such as 'must be at least 1, got 0'; '' if it is."""
        if isinstance(value, str):
            try:
                _ = self.check and self.check(value)
            except ValueError as error:
                return str(error)
            return ""
        if value is None or isinstance(value, bool):
            return ""
        if self.above is not None and not self.above < value < math.inf:
            return f"must be {f'above {self.above:g}' if self.above else 'positive'}, got {value}"
        if self.least is not None and not self.least <= value < math.inf:
            return f"must be at least {self.least:g}, got {value}"
        return ""


def load_field(doc: str, *, default: Any = MISSING, **traits: Any) -> Any:
    """A dataclass field with its declaration. Without a default a load of that class must set it."""
    declared = LoadField(doc, default=None if default is MISSING else default, **traits)
    return dataclasses.field(default=default, metadata={"load_field": declared})


def redeclared(owner: type, name: str, *, default: Any, **traits: Any) -> Any:
    """A field of a base class with another default or other bounds. Stored and canonical JSON keep the default of the base class."""
    declared: LoadField = owner.__dataclass_fields__[name].metadata["load_field"]  # type: ignore[attr-defined]  # a dataclass
    changed = dataclasses.replace(declared, **traits)
    return dataclasses.field(default=default, metadata={"load_field": changed, "canonical_default": declared.default})


@cache
def fields_of(kind: type) -> Mapping[str, LoadField]:
    hints, found = get_type_hints(kind), dataclasses.fields(kind)
    declared: dict[str, LoadField] = {field.name: field.metadata["load_field"] for field in found}
    return {
        name: dataclasses.replace(its, name=name, type=hints[name], heading=its.heading or name.replace("_", " "))
        for name, its in declared.items()
    }
