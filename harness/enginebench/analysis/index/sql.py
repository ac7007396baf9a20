"""The index in a database that a team shares: PostgreSQL, by way of SQLAlchemy. Its schema is upgraded by Alembic (`migrations`).

A run is replaced in one transaction, which begins by writing its line in `runs`: of two writers of one run the second waits for the first,
and a writer that is killed leaves the run as it was. Writers of different runs do not wait for each other.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enginebench.analysis.index.tables import COLUMNS, Known, Line
from enginebench.errors import UserError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

_MIGRATIONS = Path(__file__).with_name("migrations")
_UPGRADE_LOCK = 0x656E6762
"""Of PostgreSQL's advisory locks: one process upgrades the schema, others wait."""
_LISTS = ("values", "by_cell")
"""Columns with lists, as JSON."""
_AT_ONCE = 5_000
"""Lines of one statement."""


class DatabaseError(UserError):
    """The database cannot be reached, or refuses."""


@dataclass(frozen=True)
class SqlIndex:
    """The runs of one folder in a database. folder: its name, the same on every machine that may see it."""

    engine: Engine
    folder: str

    @classmethod
    def open(cls, url: str, folder: str) -> SqlIndex:
        """Connects, and creates or upgrades the tables. UserError if that is not possible."""
        engine = _engine(url)
        with _errors(engine):
            _upgrade(engine)
        return cls(engine, folder)

    def known(self) -> dict[str, Known]:
        return {name: (stamp, json.loads(data)) for name, stamp, data in self._select("runs", None)}

    def store(self, lines: Mapping[str, Sequence[Line]]) -> None:
        from sqlalchemy import delete, insert

        tables = _tables()
        for run in sorted(lines["runs"]):  # in one order everywhere, and one transaction each: nobody waits for long
            with self._begun() as base:
                name, stamp, data = run
                base.execute(_upsert(self.engine, tables["runs"], {"folder": self.folder, "id": name, "stamp": stamp, "data": data}))
                for table, columns in COLUMNS.items():
                    if table == "runs":
                        continue
                    its = tables[table]
                    base.execute(delete(its).where(its.c.folder == self.folder, its.c.run == name))
                    new = [self._line(columns, line) for line in lines[table] if line[0] == name]
                    for at in range(0, len(new), _AT_ONCE):
                        base.execute(insert(its), new[at : at + _AT_ONCE])

    def forget(self, runs: Iterable[str]) -> None:
        from sqlalchemy import delete

        tables, names = _tables(), sorted(runs)
        with self._begun() as base:
            for table in ("runs", "figures", "rows", "facts"):
                its = tables[table]
                base.execute(delete(its).where(its.c.folder == self.folder, its.c[COLUMNS[table][0]].in_(names)))

    def rows(self, run: str | None) -> list[Line]:
        return sorted(self._select("rows", run), key=lambda line: line[:2])

    def figures(self, run: str | None, figures: Sequence[str] | None) -> list[Line]:
        return self._select("figures", run, figures)

    def facts(self, run: str | None) -> list[Line]:
        return self._select("facts", run)

    def _line(self, columns: Sequence[str], line: Line) -> dict[str, Any]:
        named = zip(columns, line, strict=True)
        return {"folder": self.folder} | {name: json.dumps(value) if name in _LISTS else _storable(value) for name, value in named}

    def _select(self, table: str, run: str | None, figures: Sequence[str] | None = None) -> list[Line]:
        from sqlalchemy import select

        its, columns = _tables()[table], COLUMNS[table]
        asked = select(*(its.c[name] for name in columns)).where(its.c.folder == self.folder)
        if run is not None:
            asked = asked.where(its.c.run == run)
        if figures is not None:
            asked = asked.where(its.c.figure.in_(list(figures)))
        lists = [i for i, name in enumerate(columns) if name in _LISTS]
        with self._begun() as base:
            found = [list(line) for line in base.execute(asked)]
        for line in found:
            for i in lists:
                line[i] = json.loads(line[i])
        return [tuple(line) for line in found]

    @contextlib.contextmanager
    def _begun(self) -> Iterator[Connection]:
        with _errors(self.engine), self.engine.begin() as base:
            yield base


def folders(url: str) -> list[str]:
    """The folders that a database has runs of."""
    from sqlalchemy import select

    engine = _engine(url)
    with _errors(engine):
        _upgrade(engine)
        runs = _tables()["runs"]
        with engine.begin() as base:
            return sorted(base.execute(select(runs.c.folder).distinct()).scalars())


def _engine(url: str) -> Engine:
    try:
        alchemy: Any = importlib.import_module("sqlalchemy")
        importlib.import_module("alembic")
        driver = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
        wait: dict[str, Any] = {"connect_timeout": 10} if driver.startswith("postgresql") else {}
        made: Engine = alchemy.create_engine(driver, poolclass=alchemy.pool.NullPool, connect_args=wait)
    except ImportError as error:
        raise UserError(f"the index cannot be used here: {error}", key="--index", advice="pip install 'enginebench[postgresql]'") from None
    except Exception as error:  # noqa: BLE001  # of a URL: ArgumentError, ValueError, NoSuchModuleError
        advice = "write postgresql://USER@HOST/DATABASE"
        raise UserError(f"that is no URL of a database: {_reason(error)}", key="--index", advice=advice) from None
    return made


def _upgrade(engine: Engine) -> None:
    """Bring the tables up to date, if they are not. UserError if a newer version of enginebench has made them."""
    from alembic import command
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import text

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    script = ScriptDirectory.from_config(config)
    head, ours = script.get_current_head(), {each.revision for each in script.walk_revisions()}

    def current(base: Connection) -> str | None:
        found = MigrationContext.configure(base).get_current_revision()
        if found is not None and found not in ours:
            advice = "upgrade enginebench here, or give this version an index of its own"
            raise UserError(f"{_shown(engine)} has the tables of a newer enginebench ({found})", key="--index", advice=advice)
        return found

    with engine.begin() as base:
        if current(base) == head:
            return
    with engine.begin() as base:
        if engine.dialect.name == "postgresql":
            base.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        if current(base) != head:
            config.attributes["connection"] = base
            command.upgrade(config, "head")


def _tables() -> dict[str, Table]:
    """As the newest migration leaves them."""
    import sqlalchemy as alchemy

    whole, numbers = alchemy.MetaData(), ("level", "value", "low", "high")
    kinds: dict[str, Any] = {"position": alchemy.Integer} | dict.fromkeys(numbers, alchemy.Double)
    return {
        table: alchemy.Table(
            table, whole, alchemy.Column("folder", alchemy.Text), *(alchemy.Column(name, kinds.get(name, alchemy.Text)) for name in columns)
        )
        for table, columns in COLUMNS.items()
    }  # fmt: skip


def _upsert(engine: Engine, table: Table, values: dict[str, Any]) -> Any:
    dialect: Any = importlib.import_module(f"sqlalchemy.dialects.{engine.dialect.name}")
    changed = {name: values[name] for name in ("stamp", "data")}
    return dialect.insert(table).values(**values).on_conflict_do_update(index_elements=["folder", "id"], set_=changed)


@contextlib.contextmanager
def _errors(engine: Engine) -> Iterator[None]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        advice = "see whether the database runs and lets you in: psql URL"
        raise DatabaseError(f"{_shown(engine)} cannot be used: {_reason(error)}", key="--index", advice=advice) from error


def _shown(engine: Engine) -> str:
    return engine.url.set(drivername=engine.dialect.name, username=None, password=None).render_as_string()


def _reason(error: BaseException) -> str:
    """The first line of what the driver says, without a password."""
    cause = getattr(error, "orig", None) or error
    return re.sub(r"(?<=://)[^/@\s]*@", "", str(cause).strip().split("\n")[0])[:200]


def _storable(value: Any) -> Any:
    """PostgreSQL has no text with a null character."""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}") if isinstance(value, str) else value
