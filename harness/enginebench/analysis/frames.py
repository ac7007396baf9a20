"""A run as pandas data frames: rows, cells, requests. Values are in SI units; `frame.attrs["units"]` has the unit of each figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from enginebench.analysis.analysis import Analysis, CellResult, Row
from enginebench.analysis.comparison import Comparison
from enginebench.domain import Deployment, Load, plain_object
from enginebench.metrics.context import Context
from enginebench.metrics.registry import Metric, metrics, unit_of
from enginebench.records.samples import Samples

if TYPE_CHECKING:
    import pandas as pd

Value: TypeAlias = str | float | int | bool | None
ReadSamples: TypeAlias = Callable[[str], Samples | None]
"""The samples of the cell with this id."""

_ASKED = ("asked_input_tokens", "asked_output_tokens")
_COUNTED = ("input_tokens", "output_tokens", "cached_tokens")
_TIMES = ("due", "sent", "end")
_PLAIN = (str, float, int, type(None))


def rows_frame(analysis: Analysis) -> pd.DataFrame:
    """One row per deployment and load, its repeats folded. See `enginebench.report.run.Run.rows`."""
    lines = []
    for row in analysis.rows:
        line = {**_named(row.name, row.deployment, row.load), **_described(row.deployment, row.load)}
        line |= {"status": row.status, "verdict": row.verdict, "ranked": row.ranked, "reasons": "; ".join(row.reasons)}
        line |= {"repeats": len(row.cells)}
        for name, found in row.figures.items():
            line |= {name: found.value if found else None, f"{name}_low": found.low if found else None}
            line |= {f"{name}_high": found.high if found else None}
        lines.append(line)
    return _frame(lines, {name for row in analysis.rows for name in row.figures})


def cells_frame(analysis: Analysis) -> pd.DataFrame:
    """One row per stored cell, and per phase of a load that has several. See `enginebench.report.run.Run.cells`."""
    lines = []
    for row, cell in _cells(analysis):
        record, window = cell.record, cell.window
        line = {"cell": record.id, **_named(row.name, record.deployment, cell.load), **_described(record.deployment, cell.load)}
        line |= {"repeat": record.repeat, "launch": record.launch_id}
        line |= {"status": record.status, "reason": record.reason, "verdict": cell.verdict, "reasons": "; ".join(map(str, cell.reasons))}
        line |= {"window": window.state if window else None, "window_s": window.length_s if window else None, "requests": cell.requests}
        lines.append(line | dict(cell.figures))
    return _frame(lines, {name for _, cell in _cells(analysis) for name in cell.figures})


def requests_frame(analysis: Analysis, samples: ReadSamples) -> pd.DataFrame:
    """One row per request. See `enginebench.report.run.Run.requests`."""
    import pandas as pd

    parts = []
    for row, cell in _cells(analysis):
        found = samples(cell.record.id)
        if found is not None and len(found):
            columns: dict[str, object] = {"cell": cell.record.id, **_named(row.name, cell.record.deployment, cell.load)}
            columns["repeat"] = cell.record.repeat
            part = pd.DataFrame(columns | _request_columns(found.within(cell.window)))
            parts.append(part if cell.phase is None else part[part["in_window"]])  # a request belongs to one phase
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    frame.attrs["units"] = {f"{name}_s": "s" for name in _TIMES} | {name: metric.unit for name, metric in _per_request().items()}
    return frame


def figures_frame(comparison: Comparison) -> pd.DataFrame:
    """One row per figure of each pair. See `enginebench.report.comparison.Comparison.figures`."""
    import pandas as pd

    names = ("pair", "figure", "base", "candidate", "change", "low", "high", "p", "verdict")
    lines = [
        (pair.name, name, each.base.value, each.candidate.value, its.relative, its.low, its.high, its.p, each.verdict)
        for pair in comparison.pairs
        for name, each in pair.figures.items()
        for its in (each.change,)
    ]
    return pd.DataFrame(lines, columns=list(names))


def _request_columns(samples: Samples) -> dict[str, object]:
    """Of the requests of one cell. Times are seconds since the cell's first send; what was not counted is NaN."""
    sent = samples.sent_ns[samples.sent_ns > 0]
    zero = int(sent.min()) if len(sent) else 0
    columns: dict[str, object] = {name: getattr(samples, name) for name in ("index", "conversation", "turn")}
    columns |= {"outcome": samples.outcome, "error": samples.error, "finish_reason": samples.finish_reason, "in_window": samples.inside}
    columns |= {name: getattr(samples, name) for name in _ASKED}
    columns |= {name: _counted(getattr(samples, name), -1) for name in _COUNTED}
    columns |= {f"{name}_s": (_counted(getattr(samples, f"{name}_ns"), 0) - zero) / 1e9 for name in _TIMES}
    context = Context(samples)
    return columns | {name: metric(context) for name, metric in _per_request().items()}


def _per_request() -> dict[str, Metric]:
    return {name: metric for name, metric in metrics().items() if metric.scope == "request"}


def _counted(values: np.ndarray[tuple[int, ...], np.dtype[np.int64]], unknown: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """The values, NaN in place of the one that means unknown."""
    return np.where(values == unknown, np.nan, values.astype(np.float64))


def _cells(analysis: Analysis) -> list[tuple[Row, CellResult]]:
    return [(row, cell) for row in analysis.rows for cell in row.cells]


def _named(name: str, deployment: Deployment, load: Load) -> dict[str, Value]:
    about = {"deployment": name, "engine": deployment.engine, "model": deployment.model, "precision": deployment.known_precision}
    return {**about, "load": f"{load.level_text}, {load.shape_text}", "level": load.level}


def _described(deployment: Deployment, load: Load) -> dict[str, Value]:
    settings: dict[str, Value] = {"runtime": deployment.runtime, **vars(deployment.parallelism)}
    settings |= {"speculation": deployment.speculation.text} if deployment.speculation is not None else {}
    settings |= {f"option.{key}": value if isinstance(value, _PLAIN) else str(value) for key, value in deployment.options.items()}
    return settings | {f"load.{key}": value for key, value in plain_object(load).items() if isinstance(value, _PLAIN)}


def _frame(lines: list[dict[str, Value]], figures: set[str]) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(lines)
    figure_of = {column: column.removesuffix("_low").removesuffix("_high") for column in frame.columns}
    frame.attrs["units"] = {column: unit_of(name) for column, name in figure_of.items() if name in figures}
    return frame
