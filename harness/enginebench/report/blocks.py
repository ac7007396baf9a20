"""The building blocks of a page: paragraphs, lists, tables, definitions, facts, plots, folded ones, or a template of the section's own.

Plain data. The macro of a block in reports/templates/blocks.html.j2 has the name in `macro` and escapes all texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """'num' aligns a column to the right; 'quiet' is grey, 'differs' bold; 'again' repeats the heading above, unseen in a table."""
    hint: str = ""
    """A tooltip, such as the definition of a metric."""
    bar: float | None = None
    """A share, 0 to 1, that is also drawn as a bar."""


@dataclass(frozen=True)
class Table:
    """A table. The first cell of a row is its heading; a row has one value per heading."""

    macro: ClassVar[str] = "table"
    headings: tuple[str | Cell, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    css: str = "lined"
    caption: str = ""

    @property
    def fit(self) -> str:
        """The class that turns rows into blocks where the page is too narrow for the columns."""
        if len(self.headings) < 3:
            return ""
        columns = zip(self.headings, *self.rows, strict=True)
        return fit_class([max(map(_room, column)) for column in columns])


_CHARACTER, _PADDING, _WIDEST = 7.3, 18.0, 30
"""Of a table: px of a character and between columns; the characters at which a text wraps."""
_FITS = ((330, ""), (690, "f760"), (950, "f1040"), (1150, "f1240"))


def fit_class(characters: Sequence[float]) -> str:
    """The class for columns of so many characters: '' fits a phone, 'f760' needs more than 760 px, 'f0' never fits."""
    room = sum(_CHARACTER * count + _PADDING for count in characters)
    return next((css for most, css in _FITS if room <= most), "f0")


def _room(cell: str | Cell) -> int:
    """The characters that a cell needs in a line; texts wrap."""
    texts = (cell,) if isinstance(cell, str) else (cell.text, cell.small)
    bar = 0 if isinstance(cell, str) or cell.bar is None else 9
    return bar + max(min(len(text), _WIDEST) if " " in text else len(text) for text in texts)


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
    tab: str = ""
    """The context (model and lengths) under which it is shown, if there are several."""
    aside: Table | None = None
    """A table below it."""

    @property
    def choice(self) -> str:
        """The load in the selection: '16 streams', '2.5 req/s'."""
        return "" if self.load is None else self.load.level_text


@dataclass(frozen=True)
class Plots:
    """Small multiples. A reader can hide deployments, and choose a context, and a load if the panels belong to several."""

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

    @property
    def tabs(self) -> tuple[str, ...]:
        """The contexts to choose from; empty if there is only one."""
        found = tuple(dict.fromkeys(panel.tab for panel in self.panels if panel.tab))
        return found if len(found) > 1 else ()


@dataclass(frozen=True)
class Folded:
    """Blocks that a reader opens."""

    macro: ClassVar[str] = "folded"
    summary: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Custom:
    """Data for a template of the section's own in reports/templates/sections."""

    macro: ClassVar[str] = "custom"
    template: str
    data: Mapping[str, Any]


Block: TypeAlias = "Paragraph | Heading | Bullets | Table | Definitions | Facts | Plots | Folded | Custom"
