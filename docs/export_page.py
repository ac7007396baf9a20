"""docs/export.md, from the exporters."""

from __future__ import annotations

import inspect

from enginebench.report.exporter import Exporter, all_exporters
from physics_pages import GENERATED

_HEAD = """
# Exporting a run

`bench export` writes a run in the format of another program, so that its plots, dashboards and databases can be used:

```bash
bench export                                                # the formats
bench export results/2026-11-21-quickstart --to vllm -o serve/
bench export run.ebz --to sqlite -o run.sqlite              # a capsule, too
```

From Python: `enginebench.export(run, "vllm").write("serve")`; `Exported.notes` says what was left out.

**A metric is exported by the definition of its target.** Other programs use our names for other things: they measure the whole load, with its filling and draining, where we
measure the steady part, and count tokens and gaps in their own way. So their fields are computed from the raw samples as their documentation or source defines them, and differ
from ours where the definitions do. `csv`, `parquet`, `sqlite`, `duckdb` and `openmetrics` are formats without definitions of their own: they hold our figures
([metrics.md](metrics.md)).

What a format cannot hold is left out, and `bench export` says so on stderr: cells that failed, metrics that the validity of a cell withholds, fields that need samples where another tool's file
states only figures. Cells that are invalid are exported, with a note and, where the format has a place for it, with their verdict.

[export-readers.md](export-readers.md) says which tools read the exports, with how many numbers compared. Exports that can be imported again are compared with the run by
tests/unit/report/test_export_round_trips.py. Not read by a tool here: the summaries in MLPerf's style, and DuckDB files by anything but DuckDB itself.

A new format is one file in harness/enginebench/report/exporters/.
"""


def export_page() -> str:
    """The page."""
    return GENERATED + inspect.cleandoc(_HEAD) + "\n\n" + "\n\n".join(_format(each) for each in all_exporters().values()) + "\n"


def _format(each: Exporter) -> str:
    parts = [f"## `{each.name}`: {each.title}", f"{inspect.cleandoc(each.write.__doc__ or '')}", f"Read by: {each.read_by}."]
    if each.definitions:
        rows = [f"| {name} | {text} |" for name, text in each.definitions.items()]
        parts.append("\n".join(["| field | definition |", "|---|---|", *rows]))
    if each.left_out:
        parts.append("\n".join(["Left out:", "", *(f"- {name}: {why}." for name, why in each.left_out.items())]))
    return "\n\n".join(parts)
