"""What an importer is: a function that turns files of another tool into cells, with single requests where the files have them.

An importer is one file in `enginebench.records.importers`. It declares by which keys its files are recognised, and the tool's dialect: what
each of its metrics means (`enginebench.records.dialect`). Reads; does not write runs.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from io import TextIOWrapper
from pathlib import Path
from typing import TypeAlias

from enginebench.domain import Deployment, Load
from enginebench.errors import UserError
from enginebench.records import file_kinds
from enginebench.records.dialect import CONCEPTS, Dialect
from enginebench.records.foreign_record import ForeignRecord
from enginebench.records.imported_samples import Requests
from enginebench.records.json_stream import Skim, open_file, read_objects

UNKNOWN_PRECISION = "unknown"


@dataclass(frozen=True)
class ImportedCell:
    """One cell as the source states it. Lengths that the source does not state are 'data'; other fields of the load keep their defaults."""

    deployment: Deployment
    """The server, as far as the source describes it; precision 'unknown' where it does not."""
    load: Load
    """What the source sent."""
    figures: Mapping[str, float]
    """Figure ('ttft_p50', 'output_throughput', ...) -> value in the metric's unit (docs/metrics.md)."""
    completed: int
    """Successful requests. Percentiles that need more of them are left out; without any the cell has failed."""
    wall_s: float | None = None
    """Duration of the load."""
    own: Mapping[str, float] = field(default_factory=dict)
    """Figures that have no equal here, under the tool's own names."""
    requests: Requests | None = None
    """The single requests, where the source has them; figures are then used only for what these cannot give."""
    version: str | None = None
    """Of the tool or its format, if the file states it."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What the file says of the server besides the deployment: 'engine_version', 'hardware'."""
    caveats: tuple[str, ...] = ()
    """Further caveats, found in this file: 'all replies were stopped by ...'."""
    rejected: str = ""
    """Why the tool itself says that this is no valid result; empty: it does not."""


@dataclass(frozen=True)
class Form:
    """One kind of file that a tool writes."""

    name: str
    """'summary', 'requests'."""
    has: tuple[str, ...]
    """Paths that the first object of each such file has, and no other tool's: 'model_id', 'benchmarks.*.metrics'. Of CSV, SQL and SQLite:
    columns."""
    part_of: str = ""
    """The form that this file belongs to, which is imported instead where it lies beside it."""
    pattern: str = "*"
    """How such files are named, to find them beside another: 'profile_export*.jsonl'."""
    aside: bool = False
    """Whether such a file holds no results itself: in a folder it is passed over."""

    named: bool = False
    """Whether only files with such a name are of this form: its content is that of another form."""

    def found_in(self, seen: frozenset[str], name: str) -> bool:
        """Whether a file is of this form. seen: the paths of its first object, or its columns."""
        return (not self.named or fnmatch(name, self.pattern)) and all(path in seen for path in self.has)

    @property
    def text(self) -> str:
        return f"has {', '.join(self.has)}"


@dataclass(frozen=True)
class Source:
    """One file to import, recognised as a form of its tool."""

    file: Path
    form: str
    """Name of the form."""
    beside: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Form -> the files of the same tool in the same folder."""

    def records(
        self, *, skip: Iterable[str] = (), rows: Mapping[str, Callable[[ForeignRecord], None]] | None = None
    ) -> Iterator[ForeignRecord]:
        """The file's objects (JSON: alone, in a list, or one after another; others as `file_kinds` reads them), or its rows, one by one.

        skip: paths of values that are not built ('requests.*.prompt'). rows: path of a list -> what gets each of its items, before the
        object itself is returned.
        """
        if is_json(self.file):
            handlers = {tuple(path.split(".")): self._handler(handle) for path, handle in (rows or {}).items()}
            skim = Skim(frozenset(tuple(path.split(".")) for path in skip), handlers)
            for line, data in read_objects(self.file, skim):
                yield ForeignRecord(self.file, line, data)
        elif (read := file_kinds.reader(self.file)) is not None:
            for place, data in read(self.file, frozenset(skip)):
                yield ForeignRecord(self.file, place, data)
        else:
            yield from read_csv(self.file)

    def other(self, form: str) -> Source | None:
        """The one file of another form beside this one; None if there is none, or several."""
        found = self.beside.get(form, ())
        return replace(self, file=found[0], form=form) if len(found) == 1 else None

    def error(self, message: str, key: str | None = None) -> UserError:
        return UserError(message, file=self.file, key=key)

    def _handler(self, handle: Callable[[ForeignRecord], None]) -> Callable[[object], None]:
        def called(item: object) -> None:
            handle(ForeignRecord(self.file, None, item if isinstance(item, dict) else {"": item}))

        return called


def is_json(file: Path) -> bool:
    """Whether the file begins like JSON."""
    with open_file(file) as stream:
        return stream.read(4096).lstrip()[:1] in (b"{", b"[")


def read_csv(file: Path) -> Iterator[ForeignRecord]:
    """Every row below the header. UserError where the file is damaged."""
    with TextIOWrapper(open_file(file), encoding="utf-8", newline="") as text:
        reader = csv.DictReader(text)
        try:
            for row in reader:
                yield ForeignRecord(file, reader.line_num, row)
        except (csv.Error, UnicodeDecodeError) as error:
            why = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else f"invalid CSV ({error})"
            raise UserError(f"is damaged: {why}", file=file, line=reader.line_num) from None


Read: TypeAlias = Callable[[Source], Iterable[ImportedCell]]


@dataclass(frozen=True, eq=False)
class Importer:
    """One importer, as `importer` declares it."""

    tool: str
    """'vllm bench serve'."""
    forms: tuple[Form, ...]
    """The files that it reads."""
    dialect: Dialect
    """What the tool's metrics mean, and its known faults."""
    read: Read
    """Turns one file into its cells. UserError if it is incomplete."""

    def form(self, name: str) -> Form:
        return next(form for form in self.forms if form.name == name)

    def beside(self, file: Path) -> Iterator[Path]:
        """Files in the same folder that may be of this tool."""
        patterns = {form.pattern for form in self.forms if form.pattern != "*"}
        yield from (other for other in sorted(file.parent.iterdir()) if other.is_file() and any(fnmatch(other.name, p) for p in patterns))


def importer(tool: str, *, forms: tuple[Form, ...], dialect: Dialect) -> Callable[[Read], Importer]:
    """Declare the decorated function as the importer of a tool's files. ValueError where the dialect leaves out a concept."""

    def declare(read: Read) -> Importer:
        if undeclared := dialect.undeclared():
            raise ValueError(
                f"the dialect of {tool} says nothing of {', '.join(undeclared)}; it must say something of {', '.join(CONCEPTS)}"
            )
        return Importer(tool, forms, dialect, read)

    return declare
