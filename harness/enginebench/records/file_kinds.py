"""Reads other tools' files that are neither JSON nor CSV as objects: YAML, MLPerf logs, SQL dumps and SQLite databases.

The kind of a file is told by its first bytes. Every kind gives (line, object), as JSON and CSV do, so importers do not see the difference.
 Nothing in a file is run: an SQL text is parsed and not executed, YAML makes plain data, and pickled columns are never opened.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeAlias

from enginebench.errors import UserError
from enginebench.records.json_stream import open_file

Objects: TypeAlias = Iterator[tuple[int | None, dict[str, Any]]]

MOST_YAML = 16 << 20
MOST_LINE = 4 << 20
MOST_CELL = 64 << 20
"""Bytes of one value of a database."""
MOST_VALUES = 200_000
"""Values of one document, aliases followed."""
_TOO_MANY = f"has more than {MOST_VALUES:,} values, which no known tool writes as YAML"
_MLLOG = ":::MLLOG "
_YAML = re.compile(r"""(?:(?:%YAML|---|[ \t]*#)[^\n]*\n|[ \t\r]*\n)*+["']?[A-Za-z_][\w.-]*+["']?:(?:\s|$)""")
_SQL = re.compile(r"(?:\s*+(?:--|PRAGMA\b|BEGIN\b)[^\n]*\n)*+\s*+(?:CREATE\s++TABLE|INSERT\s++INTO)\s", re.IGNORECASE)
_INSERT = re.compile(
    r"""INSERT\s++INTO\s++["`]?(\w++)["`]?\s*+(?:\(([^)]*+)\))?\s*+VALUES\s*+\((.*)\)\s*+;?\s*+$""", re.IGNORECASE | re.DOTALL
)
_CREATE = re.compile(r"""CREATE\s++TABLE\s++(?:IF\s++NOT\s++EXISTS\s++)?["`]?(\w++)["`]?\s*+\((.*)\)\s*+;""", re.IGNORECASE | re.DOTALL)
_LITERAL = re.compile(r"\s*+(?:'((?:[^']|'')*+)'|([^,']*+))\s*+(,|$)")
"""Possessive, so that no text makes them slow."""


def reader(file: Path) -> Callable[[Path, frozenset[str]], Objects] | None:
    """What reads this file, which takes the columns that are not wanted; None: it is JSON, CSV or nothing known."""
    with open_file(file) as stream:
        head = stream.read(4096)
    if head.startswith(b"SQLite format 3\0"):
        return read_sqlite
    text = head.decode("utf-8", errors="replace")
    if _MLLOG in text[: text.find("\n") if "\n" in text else None]:
        return read_mllog
    if _SQL.match(text):
        return read_sql
    return read_yaml if _YAML.match(text) else None


def paths_of(data: Mapping[str, Any], *, deepest: int = 6) -> frozenset[str]:
    """The paths of an object ('a.b.c'), for the detection of its tool."""
    found: set[str] = set()
    waiting: list[tuple[str, Mapping[str, Any], int]] = [("", data, 1)]
    while waiting and len(found) < 5_000:
        prefix, part, depth = waiting.pop(0)
        for key, value in part.items():
            found.add(f"{prefix}{key}")
            if isinstance(value, Mapping) and depth < deepest:
                waiting.append((f"{prefix}{key}.", value, depth + 1))
    return frozenset(found)


# -- YAML ----------------------------------------------------------------------------------------------------------------------


def read_yaml(file: Path, _: frozenset[str] = frozenset()) -> Objects:
    """Each document that is a mapping. Dates and times stay text."""
    import yaml

    with open_file(file) as stream:
        data = stream.read(MOST_YAML + 1)
    if len(data) > MOST_YAML:
        raise UserError(f"is longer than {MOST_YAML >> 20} MB, which no known tool writes as YAML", file=file)

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, regex) for tag, regex in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in Loader.yaml_implicit_resolvers.items()
    }
    try:
        text = data.decode("utf-8")
        _count(yaml.parse(text, Loader), file)
        for document in yaml.load_all(text, Loader):
            _check_size(document, file)
            if isinstance(document, dict):
                yield 1, _text_keys(document)
    except UnicodeDecodeError:
        raise UserError("cannot be read: it is not UTF-8 text", file=file) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or (
            "it is nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        )
        raise UserError(f"is damaged: invalid YAML ({why})", file=file, line=mark.line + 1 if mark else None) from None


def _count(events: Iterable[Any], file: Path) -> None:
    """UserError for a text of too many values, before anything is built of it."""
    for count, event in enumerate(events):
        if count > 2 * MOST_VALUES:
            raise UserError(_TOO_MANY, file=file, line=event.start_mark.line + 1)


def _check_size(document: Any, file: Path) -> None:
    """UserError for a document that its aliases make huge or endless."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(value: Any, depth: int) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) in sizes:
            return sizes[id(value)]
        if id(value) in open_ or depth > 64:
            raise UserError("cannot be read: it is nested too deeply, or contains itself", file=file)
        open_.add(id(value))
        items = value.values() if isinstance(value, dict) else value
        sizes[id(value)] = total = 1 + sum(size(item, depth + 1) for item in items)
        open_.discard(id(value))
        return total

    if size(document, 0) > MOST_VALUES:
        raise UserError(_TOO_MANY, file=file)


def _text_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _text_keys(item) for key, item in value.items()}
    return [_text_keys(item) for item in value] if isinstance(value, list) else value


# -- MLPerf logs ---------------------------------------------------------------------------------------------------------------


def read_mllog(file: Path, skip: frozenset[str] = frozenset()) -> Objects:
    """One object of all lines ':::MLLOG {"key": ..., "value": ...}'; the last value of a key counts."""
    made: dict[str, Any] = {}
    for line, text in _lines(file):
        rest = text.partition(_MLLOG)[2]
        if not rest:
            continue
        try:
            entry = json.loads(rest)
            key, value = entry["key"], entry.get("value")
        except (ValueError, TypeError, KeyError, RecursionError):
            raise UserError("is damaged: this line is no MLPerf log entry", file=file, line=line) from None
        if len(made) > MOST_VALUES:
            raise UserError(f"has more than {MOST_VALUES:,} keys", file=file, line=line)
        if isinstance(value, str | int | float) and key not in skip:
            made[str(key)[:200]] = value[:4096] if isinstance(value, str) else value
    if made:
        yield 1, made


# -- SQL -----------------------------------------------------------------------------------------------------------------------


def read_sql(file: Path, _: frozenset[str] = frozenset()) -> Objects:
    """The rows that INSERT statements state, as text. Quotes within a text may be doubled, or not, as llama-bench leaves them."""
    columns: dict[str, list[str]] = {}
    statement, begun = "", 1
    for line, text in _lines(file):
        begun = begun if statement else line
        statement += text
        if len(statement) > MOST_LINE:
            raise UserError("is damaged: a statement has no end", file=file, line=begun)
        if not text.rstrip().endswith(";"):
            continue
        if created := _CREATE.match(statement.strip()):
            columns[created[1].lower()] = [part.split()[0].strip('"`') for part in created[2].split(",") if part.split()]
        elif inserted := _INSERT.match(statement.strip()):
            table, names, values = inserted.groups()
            named = [name.strip().strip('"`') for name in names.split(",")] if names else columns.get(table.lower(), [])
            yield begun, _row(named, values, file, begun)
        elif statement.lstrip()[:6].upper() == "INSERT":
            raise UserError("is damaged: this INSERT states no values", file=file, line=begun)
        statement = ""
    if statement.strip():
        raise UserError("is damaged: it ends within a statement", file=file, line=begun)


def _row(names: list[str], values: str, file: Path, line: int) -> dict[str, Any]:
    for found in (_literals(values), values.strip()[1:-1].split("', '")):
        if found is not None and len(found) == len(names):
            return dict(zip(names, found, strict=True))
    raise UserError(f"is damaged: the statement has no value for each of its {len(names)} columns", file=file, line=line)


def _literals(values: str) -> list[str] | None:
    """The values of a list of SQL literals; None if it is none."""
    found, at = list[str](), 0
    while (literal := _LITERAL.match(values, at)) is not None:
        found.append(
            literal[1].replace("''", "'") if literal[1] is not None else (literal[2].strip() if literal[2].strip() != "NULL" else "")
        )
        at = literal.end()
        if not literal[3]:
            return found
    return None


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of each line. UserError for one without end, or that is no UTF-8."""
    with open_file(file) as raw, TextIOWrapper(raw, encoding="utf-8") as text:
        line = 0
        try:
            while piece := text.readline(MOST_LINE):
                line += 1
                if len(piece) >= MOST_LINE:
                    raise UserError(f"has a line of more than {MOST_LINE >> 20} MB, which no known tool writes", file=file, line=line)
                yield line, piece
        except UnicodeDecodeError:
            raise UserError("cannot be read: it is not UTF-8 text", file=file, line=line) from None


# -- SQLite --------------------------------------------------------------------------------------------------------------------


def read_sqlite(file: Path, skip: frozenset[str] = frozenset()) -> Objects:
    """The rows of the first table, without the columns that are skipped."""
    for suffix in ("-wal", "-journal"):
        if (beside := file.with_name(file.name + suffix)).is_file() and beside.stat().st_size:
            raise UserError(
                f"has changes in {beside.name} that are not in it yet",
                file=file,
                advice=f"run sqlite3 {file.name} .schema, or end what writes it",
            )
    address = f"{file.resolve().as_uri()}?mode=ro&immutable=1"
    try:
        connection = sqlite3.connect(address, uri=True)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_CELL)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            connection.text_factory = lambda data: data.decode("utf-8", errors="replace")
            yield from _rows(connection, skip)
        finally:
            connection.close()
    except (sqlite3.Error, OverflowError) as error:
        raise UserError(f"is damaged: invalid SQLite database ({error})", file=file) from None


def _rows(connection: sqlite3.Connection, skip: Iterable[str]) -> Objects:
    tables = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND sql LIKE 'CREATE TABLE%' ORDER BY rowid"
    found = connection.execute(tables).fetchone()
    if found is None:
        return
    table = _quoted(found[0])
    names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})") if row[1] not in skip]
    if names:
        for row in connection.execute(f"SELECT {', '.join(map(_quoted, names))} FROM {table}"):  # noqa: S608 -- names are quoted
            yield None, dict(zip(names, row, strict=True))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
