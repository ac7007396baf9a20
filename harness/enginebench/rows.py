"""From stored cells to rows: one per deployment and load, its repeats folded into estimates, with the labels that tell it apart.

Reads records and samples. Decides what may be shown of a cell, not which deployment wins; knows neither tables nor HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from enginebench.errors import UserError
from enginebench.metrics import METRICS, Metric, itl, itl_is_exact
from enginebench.nouns import JSON, Deployment, Load, canonical, fingerprint, plain
from enginebench.samples import Samples
from enginebench.statistics import Estimate, estimate, percentile
from enginebench.store import CellRecord, Run
from enginebench.validity import Reason, Verdict, judge, withheld

PERCENTILES = (50.0, 90.0, 99.0)


@dataclass(frozen=True)
class CellResult:
    """One cell that was read back: its record, its figures ('ttft_p50', 'output_throughput', ...), and whether to trust them.

    withheld: metrics that mean nothing in this cell, each with why; their figures are None.
    """

    record: CellRecord
    figures: Mapping[str, float | None]
    verdict: Verdict | None
    reasons: tuple[Reason, ...] = ()
    itl_exact: bool = False
    withheld: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A deployment under a load, over its repeats. status: 'ok' when any repeat is, else 'failed' or 'skipped'.

    figures: name -> estimate over the repeats that are not invalid (over all of them when every one is). verdict: the worst
    of the repeats that ran; None when none did. labels: what distinguishes this row, column -> value. name: the shortest
    text that distinguishes the deployment from the others of its model, for tables and legends: 'vllm', or 'vllm fp8 tp=4'.
    """

    deployment: Deployment
    load: Load
    labels: Mapping[str, str]
    cells: tuple[CellResult, ...]
    status: str
    figures: Mapping[str, Estimate | None]
    verdict: Verdict | None
    reasons: tuple[str, ...]
    name: str

    @property
    def ranked(self) -> bool:
        """Whether this row may be compared with others: it ran and is not invalid."""
        return self.status == "ok" and self.verdict != "invalid"


LOAD_COLUMNS = tuple(field.name for field in fields(Load))
_IDENTITY = ("engine", "model", "precision")
_HIDDEN = (
    "checkpoint",
    "url",
    "api_key_env",
    "max_context",
    "max_concurrency",
    "warmup_requests",
    "timeout_s",
    "ready_timeout_s",
    "requests",
)
"""Shown only where two rows would look alike without them: they follow from what is shown, or are nobody's question."""


def read_rows(run: Run) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Every stored cell, folded into rows in plan order, and the label columns of this run."""
    groups: dict[str, list[CellResult]] = {}
    for record in run.cells():
        key = fingerprint({"d": canonical(record.deployment), "l": canonical(record.load)})
        groups.setdefault(key, []).append(_read(run, record))
    flat = [_flat(group[0].record) for group in groups.values()]
    columns = _columns(flat)
    shown = [{c: labels.get(c, "") for c in columns} for labels in flat]
    return tuple(map(_row, groups.values(), shown, _names(shown))), columns


def _read(run: Run, record: CellRecord) -> CellResult:
    """A cell with its figures. Without readable samples it has failed, whatever its record says: there is nothing to compute from."""
    if record.status != "ok":
        return CellResult(record, {}, None)
    try:
        samples = run.samples(record.id)
    except UserError as error:
        return CellResult(replace(record, status="failed", reason=error.message), {}, None)
    if samples is None or not len(samples):
        return CellResult(replace(record, status="failed", reason="raw samples are missing"), {}, None)
    verdict, reasons = judge(record, samples)
    hidden = withheld(record, reasons)
    figures = {name: None if metric_name(name) in hidden else value for name, value in figures_of(samples).items()}
    return CellResult(record, figures, verdict, reasons, itl_is_exact(samples), hidden)


def figures_of(samples: Samples) -> dict[str, float | None]:
    """Every figure of a cell: per-cell metrics under their name, per-request ones and the ITL as <name>_p50, _p90, _p99."""
    out: dict[str, float | None] = {}
    for metric in METRICS.values():
        values = metric.compute(samples)
        if metric.scope == "cell":
            out[metric.name] = None if values[0] != values[0] else float(values[0])
        else:
            out |= {f"{metric.name}_p{q:.0f}": percentile(values, q) for q in PERCENTILES}
    gaps = itl(samples)
    return out | {f"itl_p{q:.0f}": percentile(gaps, q) for q in PERCENTILES}


def metric_of(figure: str) -> Metric | None:
    """The metric behind a figure's name ('ttft_p50' -> TTFT); None for ITL, which is per event."""
    return METRICS.get(metric_name(figure))


def metric_name(figure: str) -> str:
    """'ttft_p50' -> 'ttft', 'itl_p99' -> 'itl', 'output_throughput' -> 'output_throughput'."""
    return figure if figure in METRICS else figure.rpartition("_p")[0]


def _row(group: Sequence[CellResult], labels: Mapping[str, str], name: str) -> Row:
    ran = [cell for cell in group if cell.verdict is not None]
    usable = [cell for cell in ran if cell.verdict != "invalid"] or ran
    names = dict.fromkeys(name for cell in usable for name in cell.figures)
    figures = {name: estimate([cell.figures.get(name) for cell in usable]) for name in names}
    severities = {cell.verdict for cell in ran}
    verdict: Verdict | None = next((v for v in ("invalid", "suspect", "valid") if v in severities), None)
    if usable != ran and verdict == "invalid":
        verdict = "suspect"  # some repeats are usable, and only they were counted
    status = "ok" if ran else "failed" if any(c.record.status == "failed" for c in group) else "skipped"
    failures = [c.record.reason for c in group if c.record.status != "ok" and c.record.reason]
    reasons = dict.fromkeys([*(str(r) for c in ran for r in c.reasons), *failures])
    first = group[0].record
    return Row(first.deployment, first.load, labels, tuple(group), status, figures, verdict, tuple(reasons), name)


def _flat(record: CellRecord) -> dict[str, str]:
    """Every field of the deployment and the load as column -> text; options by their own names."""
    deployment: dict[str, Any] = dict(plain(record.deployment))  # type: ignore[arg-type]  # a dataclass becomes a dict
    options, spread, load = deployment.pop("options"), deployment.pop("parallelism"), plain(record.load)
    ours = {**deployment, **spread, **load}  # type: ignore[dict-item]
    named = {f"options.{name}" if name in ours else name: value for name, value in options.items()}  # an engine may have its own `seed`
    out: dict[str, JSON] = {**deployment, **spread, **named, **load}  # type: ignore[dict-item]
    return {name: _short(value) for name, value in out.items()}


def _short(value: JSON) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _columns(flat: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """The identity columns and whatever varies over the run: a table shows a column only if it says something."""
    names = dict.fromkeys(name for labels in flat for name in labels)
    varies = {name for name in names if len({labels.get(name, "") for labels in flat}) > 1}
    always = {*_IDENTITY, "concurrency", "input_tokens"}
    shown = [n for n in names if n in always or (n in varies and n not in _HIDDEN)]
    alike = len({tuple(labels.get(n, "") for n in shown) for labels in flat}) < len(flat)
    return tuple(n for n in names if n in varies | always) if alike else tuple(shown)


def _names(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """For each row: the deployment's label or engine, and what tells it from the deployments of the same model that share that."""
    heads = [labels.get("label") or labels["engine"] for labels in rows]
    peers: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for labels, head in zip(rows, heads, strict=True):
        peers.setdefault((head, labels["model"]), []).append(labels)
    differs = {key: _differing(group) for key, group in peers.items()}
    out: list[str] = []
    for labels, head in zip(rows, heads, strict=True):
        columns = differs[head, labels["model"]]
        told = [labels[c] if c in _IDENTITY else f"{c}={labels[c]}" for c in columns if labels[c]]
        out.append(" ".join([head, *told]))
    return out


def _differing(group: Sequence[Mapping[str, str]]) -> list[str]:
    """Columns of the deployment that are not the same in the whole group."""
    return [c for c in group[0] if c not in (*LOAD_COLUMNS, "label") and len({labels[c] for labels in group}) > 1]
