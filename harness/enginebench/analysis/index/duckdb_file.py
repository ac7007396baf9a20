"""The index in a DuckDB file of this machine. One that is missing, damaged or of another layout is made anew.

A lock beside it keeps writers and readers of several processes apart, since DuckDB lets only one process write.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.analysis.index.tables import COLUMNS, Known, Line
from enginebench.errors import UserError

if TYPE_CHECKING:
    import duckdb

_LAYOUT = 2
"""Raise it when a table changes; an index of another layout is made anew."""
_TYPES = {
    "position": "int", "level": "double", "value": "double", "low": "double", "high": "double", "values": "double[]",
    "by_cell": "double[]",
}  # fmt: skip
"""Of columns that are no text."""


@dataclass(frozen=True)
class DuckDBFile:
    path: Path

    def known(self) -> dict[str, Known]:
        import duckdb

        try:
            with self._opened() as base:
                if base.execute("select layout from meta").fetchall() == [(_LAYOUT,)]:
                    return {name: (stamp, json.loads(data)) for name, stamp, data in base.execute("select * from runs").fetchall()}
        except (duckdb.Error, ValueError):
            pass
        with self._locked(fcntl.LOCK_EX):
            for file in (self.path, self.path.with_name(f"{self.path.name}.wal")):
                file.unlink(missing_ok=True)
            with duckdb.connect(str(self.path)) as base:
                for table, columns in COLUMNS.items():
                    typed = ", ".join(f"{_quoted(name)} {_TYPES.get(name, 'text')}" for name in columns)
                    base.execute(f"create table {table} ({typed})")
                base.execute("create table meta as select ? as layout", [_LAYOUT])
        return {}

    def store(self, lines: Mapping[str, Sequence[Line]]) -> None:
        with self._opened(write=True) as base:
            base.begin()
            _forget(base, [line[0] for line in lines["runs"]])
            for table, its in lines.items():
                _insert(base, table, its)
            base.commit()

    def forget(self, runs: Iterable[str]) -> None:
        with self._opened(write=True) as base:
            _forget(base, sorted(runs))

    def rows(self, run: str | None) -> list[Line]:
        return self._select("rows", run, order=" order by run, position")

    def figures(self, run: str | None, figures: Sequence[str] | None) -> list[Line]:
        return self._select("figures", run, figures)

    def facts(self, run: str | None) -> list[Line]:
        return self._select("facts", run)

    def _select(self, table: str, run: str | None, figures: Sequence[str] | None = None, order: str = "") -> list[Line]:
        wanted = [("run = ?", run)] if run is not None else []
        wanted += [("list_contains(?, figure)", list(figures))] if figures is not None else []  # type: ignore[list-item]
        where = f" where {' and '.join(text for text, _ in wanted)}" if wanted else ""
        columns = ", ".join(map(_quoted, COLUMNS[table]))
        with self._opened() as base:
            found = base.execute(f"select {columns} from {table}{where}{order}", [value for _, value in wanted])  # noqa: S608  # no text from outside
            return found.fetchall()

    @contextlib.contextmanager
    def _opened(self, *, write: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection that no writer disturbs: writers of other processes wait, and are waited for."""
        import duckdb  # not above: it starts threads, for which a process that was forked later waits in vain when it ends

        how = fcntl.LOCK_EX if write else fcntl.LOCK_SH
        with self._locked(how), duckdb.connect(str(self.path), read_only=not write) as base:
            yield base

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """UserError if the folder of the index cannot be written to."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_suffix(".lock").open("w")
        except OSError as error:
            advice = "make the cache folder writable, or name another: ENGINEBENCH_HOME=/path"
            raise UserError(f"the index over runs cannot be written: {error.strerror}", file=self.path, advice=advice) from None
        with lock:
            fcntl.flock(lock, how)
            yield


def _quoted(name: str) -> str:
    return f'"{name}"'


def _forget(base: duckdb.DuckDBPyConnection, names: Sequence[str]) -> None:
    for table, columns in COLUMNS.items():
        base.execute(f"delete from {table} where list_contains(?, {columns[0]})", [list(names)])  # noqa: S608  # no text from outside


def _insert(base: duckdb.DuckDBPyConnection, table: str, lines: Sequence[Line]) -> None:
    """As one Arrow table: a statement for each line takes a millisecond."""
    import pyarrow as pa

    if lines:
        columns = [pa.array(column) for column in zip(*lines, strict=True)]
        base.register("new", pa.table(columns, names=[f"c{i}" for i in range(len(columns))]))
        base.execute(f"insert into {table} select * from new")  # noqa: S608  # no text from outside
        base.unregister("new")
