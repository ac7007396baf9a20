"""The tables of a run (rows, cells, requests, figures) as Parquet, SQLite and DuckDB files."""

from __future__ import annotations

import io
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.analysis.frames import cells_frame, requests_frame, rows_frame
from enginebench.errors import UserError
from enginebench.metrics.registry import metrics
from enginebench.report.export import to_csv
from enginebench.report.exporter import File, Material, exporter

if TYPE_CHECKING:
    import pandas as pd

_DEFINITIONS = {
    "rows": "one row per deployment and load: each figure with `_low` and `_high`",
    "cells": "one row per deployment, load and repeat",
    "requests": "one row per request, times in s since the first send of its cell",
    "figures": "tidy: one row per deployment, load and figure",
    "metrics": "name, title, unit and definition of each metric (docs/metrics.md)",
}


def frames(run: Material) -> Mapping[str, pd.DataFrame]:
    """Name -> table; one without columns is left out."""
    import pandas as pd

    tidy = pd.read_csv(io.StringIO(to_csv(run.analysis)), keep_default_na=False, na_values=[""])
    listed = pd.DataFrame([(its.name, its.title, its.unit, its.definition) for its in metrics().values()])
    listed.columns = pd.Index(["metric", "title", "unit", "definition"])
    found = {
        "rows": rows_frame(run.analysis), "cells": cells_frame(run.analysis),
        "requests": requests_frame(run.analysis, run.folder.samples), "figures": tidy, "metrics": listed,
    }  # fmt: skip
    for frame in found.values():
        frame.attrs = {}  # units are in `metrics`; attributes would be written with some formats and not with others
    return {name: frame for name, frame in found.items() if len(frame.columns)}


@exporter("parquet", "Parquet, one file per table", read_by="pandas, Polars, DuckDB, Spark", definitions=_DEFINITIONS)
def parquet(run: Material) -> Iterator[File]:
    """Every table as a file, compressed with zstd."""
    for name, frame in frames(run).items():
        out = io.BytesIO()
        frame.to_parquet(out, index=False, compression="zstd")
        yield f"{name}.parquet", out.getvalue()


@exporter("sqlite", "SQLite", read_by="the sqlite3 shell, Datasette, any driver", definitions=_DEFINITIONS)
def sqlite(run: Material) -> Iterator[File]:
    """One database with every table."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.sqlite"
        opened = sqlite3.connect(file)
        try:
            for name, frame in frames(run).items():
                frame.to_sql(name, opened, index=False)
            opened.commit()
            opened.execute("VACUUM")
        finally:
            opened.close()
        yield "run.sqlite", file.read_bytes()


@exporter("duckdb", "DuckDB", read_by="the duckdb shell and its drivers", definitions=_DEFINITIONS)
def duckdb(run: Material) -> Iterator[File]:
    """One database with every table. UserError without the package duckdb."""
    try:
        import duckdb as engine
    except ImportError:
        raise UserError("--to duckdb needs the package duckdb", advice="pip install duckdb, or: bench export RUN --to parquet") from None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.duckdb"
        with engine.connect(str(file)) as opened:
            for name, frame in frames(run).items():
                opened.register("source", frame)
                opened.execute(f'CREATE TABLE "{name}" AS SELECT * FROM source')  # noqa: S608  # names are those of `frames`
                opened.unregister("source")
        yield "run.duckdb", file.read_bytes()
