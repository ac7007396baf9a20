"""The building blocks of a page: paragraphs, lists, tables, definitions, facts, plots, or a template of the section's own.

Plain data. The macro of a block in reports/templates/blocks.html.j2 has the name in `macro` and escapes all texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from enginebench.domain import JSON, Load
from enginebench.report.plotly_traces import Trace


@dataclass(frozen=True)
class Paragraph:
    """An explanation in small print."""

    macro: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Heading:
    macro: ClassVar[str] = "heading"
    text: str
    before: str = ""
    """Printed in grey before the text."""
    after: str = ""
    """Printed in grey after the text."""


@dataclass(frozen=True)
class Bullets:
    macro: ClassVar[str] = "bullets"
    items: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A heading or a value of a table."""

    text: str
    small: str = ""
    """A second line, such as a unit."""
    css: str = ""
    """'num' aligns a column to the right; 'quiet' and 'differs' set the colour."""


@dataclass(frozen=True)
class Table:
    """A table. The first cell of a row is its heading; a row has one value per heading."""

    macro: ClassVar[str] = "table"
    headings: tuple[str | Cell, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    css: str = "lined"


@dataclass(frozen=True)
class Definition:
    term: str
    text: str
    note: str = ""
    """Printed in grey after the text."""
    css: str = ""
    """Class of the term: 'tag valid'."""


@dataclass(frozen=True)
class Definitions:
    macro: ClassVar[str] = "definitions"
    items: tuple[Definition, ...]


@dataclass(frozen=True)
class Facts:
    """Nested data as names and values; names that end in _bytes are sizes."""

    macro: ClassVar[str] = "fact_sheet"
    facts: Mapping[str, JSON]


@dataclass(frozen=True)
class Panel:
    title: str
    traces: tuple[Trace, ...]
    layout: Mapping[str, JSON]
    load: Load | None = None
    """The load to which it belongs, if the reader can choose one."""

    @property
    def choice(self) -> str:
        """The load in the selection: '16 streams', '2.5 req/s'."""
        return "" if self.load is None else self.load.level_text


@dataclass(frozen=True)
class Plots:
    """Small multiples with one legend. A reader can hide deployments, and choose a load if the panels belong to several."""

    macro: ClassVar[str] = "plots"
    caption: str
    panels: tuple[Panel, ...]
    deployments: tuple[str, ...]

    @property
    def choices(self) -> tuple[str, ...]:
        """The loads to choose from, ascending; empty if there is only one."""
        loads = sorted((panel.load for panel in self.panels if panel.load), key=lambda load: (load.open_loop, load.level))
        found = tuple(dict.fromkeys(load.level_text for load in loads))
        return found if len(found) > 1 else ()


@dataclass(frozen=True)
class Custom:
    """Data for a template of the section's own in reports/templates/sections."""

    macro: ClassVar[str] = "custom"
    template: str
    data: Mapping[str, Any]


Block: TypeAlias = Paragraph | Heading | Bullets | Table | Definitions | Facts | Plots | Custom
