"""From stored cells to rows: one per deployment and load, its repeats folded into estimates, with the labels that tell it apart.

Reads records and samples. Decides what may be shown of a cell, not which deployment wins; knows neither tables nor HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from enginebench.adapter import GAUGES
from enginebench.domain import JSON, Deployment, Load, canonical, fingerprint, plain
from enginebench.errors import UserError
from enginebench.metrics.cost_and_ceiling import COST_AND_CEILING_METRICS
from enginebench.metrics.hardware import Hardware
from enginebench.metrics.hardware_metrics import HARDWARE_METRICS
from enginebench.metrics.requests import METRICS, Floats, Metric, itl, itl_is_exact
from enginebench.metrics.slo import SLO_METRICS, Slo
from enginebench.metrics.statistics import Estimate, estimate, percentiles
from enginebench.metrics.tokens import TokenSource, token_source
from enginebench.metrics.window import steady_window
from enginebench.records.counters import Gauge, gauges
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord, Run
from enginebench.records.window import Window
from enginebench.validity import CacheProof, Context, Reason, Verdict, judge, worst

PERCENTILES = (50.0, 90.0, 99.0)
ALL_METRICS: Mapping[str, Metric] = {**METRICS, **SLO_METRICS, **HARDWARE_METRICS, **COST_AND_CEILING_METRICS}


@dataclass(frozen=True)
class CellResult:
    """One cell that was read back: its record, its figures ('ttft_p50', 'output_throughput', ...), and whether to trust them.

    withheld: metrics that mean nothing in this cell, each with why; their figures are None. window: the part of the load that the
    figures describe, None where nothing was measured. tokens: who counted the output tokens.
    """

    record: CellRecord
    figures: Mapping[str, float | None]
    verdict: Verdict = "not run"
    reasons: tuple[Reason, ...] = ()
    not_checkable: Mapping[str, str] = field(default_factory=dict)
    """Id of a validity check that could not run -> the evidence that is missing."""
    itl_exact: bool = False
    withheld: Mapping[str, str] = field(default_factory=dict)
    window: Window | None = None
    tokens: TokenSource = "unknown"
    requests: int = 0
    """How many requests belong to the window."""
    cache: CacheProof = field(default_factory=CacheProof)
    """Whether the prefix cache was cold, and how that is known."""
    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    """The engine's own gauges over the window."""
    hardware: Hardware = field(default_factory=Hardware)
    """What the machine did in the window."""

    @property
    def ran(self) -> bool:
        """Whether there is anything to judge."""
        return self.verdict != "not run"


@dataclass(frozen=True)
class Row:
    """A deployment under a load, over its repeats. status: 'ok' when any repeat is, else 'failed' or 'skipped'.

    figures: name -> estimate over the repeats that are not invalid (over all of them when every one is). verdict: the worst
    of the repeats that ran. labels: what distinguishes this row, column -> value. name: the shortest
    text that distinguishes the deployment from the others of its model, for tables and legends: 'vllm', or 'vllm fp8 tp=4'.
    """

    deployment: Deployment
    load: Load
    labels: Mapping[str, str]
    cells: tuple[CellResult, ...]
    status: str
    figures: Mapping[str, Estimate | None]
    verdict: Verdict
    reasons: tuple[str, ...]
    name: str

    @property
    def sound(self) -> bool:
        """Whether this row's figures mean what they say: it ran and is not invalid."""
        return self.status == "ok" and self.verdict != "invalid"

    @property
    def ranked(self) -> bool:
        """Whether this row may be compared with others: it is sound, and nothing in it forbids the comparison."""
        return self.sound and not any(reason.severity == "unranked" for cell in self.cells for reason in cell.reasons)


LOAD_COLUMNS = tuple(field.name for field in fields(Load))
_IDENTITY = ("engine", "model", "precision")
_HIDDEN = (
    "checkpoint",
    "container",
    "url",
    "api_key_env",
    "max_context",
    "max_concurrency",
    "warmup_requests",
    "timeout_s",
    "ready_timeout_s",
    "requests",
    "duration_s",
)
"""Shown only where two rows would look alike without them: they follow from what is shown, or are nobody's question."""


def read_rows(run: Run, slo: Slo | None = None) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Every stored cell, folded into rows in plan order, and the label columns of this run. With an SLO the cells have a goodput."""
    groups: dict[str, list[CellResult]] = {}
    for record in run.cells():
        key = fingerprint({"d": canonical(record.deployment), "l": canonical(record.load)})
        groups.setdefault(key, []).append(_read(run, record, slo))
    flat = [_flat(group[0].record) for group in groups.values()]
    columns = _columns(flat, [group[0].record.load for group in groups.values()])
    shown = [{c: labels.get(c, "") for c in columns} for labels in flat]
    return tuple(map(_row, groups.values(), shown, _names(shown))), columns


def _read(run: Run, record: CellRecord, slo: Slo | None) -> CellResult:
    """A cell with its figures. Without readable samples it has failed, whatever its record says: there is nothing to compute from."""
    if record.status != "ok":
        return CellResult(record, {})
    try:
        samples = run.samples(record.id)
    except UserError as error:
        return CellResult(replace(record, status="failed", reason=error.message), {})
    if samples is None or not len(samples):
        return CellResult(replace(record, status="failed", reason="raw samples are missing"), {})
    return result_of(record, samples, slo)


def result_of(record: CellRecord, samples: Samples, slo: Slo | None = None) -> CellResult:
    """A cell that ran, from its raw samples: its window, its figures and its verdict. Seconds for ten million events."""
    window = steady_window(samples, record.load)
    cell = Context(record, samples.within(window), window)
    judgement = judge(cell)
    hidden = judgement.withheld
    figures = {name: None if metric_name(name) in hidden else value for name, value in figures_of(cell.samples, slo, cell.hardware).items()}
    return CellResult(
        record,
        figures,
        judgement.verdict,
        judgement.reasons,
        judgement.not_checkable,
        itl_is_exact(samples),
        hidden,
        window,
        token_source(samples),
        int(cell.samples.inside.sum()),
        cell.cache,
        gauges(cell.readings, tuple(GAUGES)),
        cell.hardware,
    )


def figures_of(samples: Samples, slo: Slo | None = None, hardware: Hardware | None = None) -> dict[str, float | None]:
    """Every figure of a cell: per-cell metrics under their name, per-request ones and the ITL as <name>_p50, _p90, _p99.

    They describe the window that the samples have (`Samples.within`), else all of the load; so must the hardware, where it is given.
    """
    out: dict[str, float | None] = {}
    for metric in METRICS.values():
        values = metric.compute(samples)
        if metric.scope == "cell":
            out[metric.name] = _defined(values[0])
        else:
            out |= _percentiles(metric.name, values)
    if slo is not None:
        out |= {name: _defined(metric.compute(samples, slo)[0]) for name, metric in SLO_METRICS.items()}
    if hardware is not None:
        out |= {name: _defined(metric.compute(samples, hardware)[0]) for name, metric in HARDWARE_METRICS.items()}
    return out | _percentiles("itl", itl(samples))


def _percentiles(name: str, values: Floats) -> dict[str, float | None]:
    return {f"{name}_p{q:.0f}": found for q, found in zip(PERCENTILES, percentiles(values, PERCENTILES), strict=True)}


def _defined(value: float) -> float | None:
    return None if value != value else float(value)


def metric_of(figure: str) -> Metric | None:
    """The metric behind a figure's name ('ttft_p50' -> TTFT); None for ITL, which is per event."""
    return ALL_METRICS.get(metric_name(figure))


def metric_name(figure: str) -> str:
    """'ttft_p50' -> 'ttft', 'itl_p99' -> 'itl', 'output_throughput' -> 'output_throughput'."""
    return figure if figure in ALL_METRICS else figure.rpartition("_p")[0]


def _row(group: Sequence[CellResult], labels: Mapping[str, str], name: str) -> Row:
    ran = [cell for cell in group if cell.ran]
    usable = [cell for cell in ran if cell.verdict != "invalid"] or ran
    names = dict.fromkeys(name for cell in usable for name in cell.figures)
    figures = {name: estimate([cell.figures.get(name) for cell in usable]) for name in names}
    verdict = worst(cell.verdict for cell in group)
    if usable != ran and verdict == "invalid":
        verdict = "suspect"  # some repeats are usable, and only they were counted
    status = "ok" if ran else "failed" if any(c.record.status == "failed" for c in group) else "skipped"
    failures = [c.record.reason for c in group if c.record.status != "ok" and c.record.reason]
    reasons = dict.fromkeys([*(str(r) for c in ran for r in c.reasons), *failures])
    first = group[0].record
    return Row(first.deployment, first.load, labels, tuple(group), status, figures, verdict, tuple(reasons), name)


def _flat(record: CellRecord) -> dict[str, str]:
    """Every field of the deployment and the load as column -> text; options by their own names. Empty: it has no say in this load."""
    deployment: dict[str, Any] = dict(plain(record.deployment))  # type: ignore[arg-type]  # a dataclass becomes a dict
    options, spread, load = deployment.pop("options"), deployment.pop("parallelism"), plain(record.load)
    ours = {**deployment, **spread, **load}  # type: ignore[dict-item]
    named = {f"options.{name}" if name in ours else name: value for name, value in options.items()}  # an engine may have its own `seed`
    out: dict[str, JSON] = {**deployment, **spread, **named, **load}  # type: ignore[dict-item]
    return {name: _short(value) for name, value in out.items()} | dict.fromkeys(_replaced(record.load), "")


def _replaced(load: Load) -> tuple[str, ...]:
    """Fields of a load that others have taken the place of."""
    out: tuple[str, ...] = ()
    if load.trace is not None:
        out += ("rate", "rate_to", "input_tokens", "output_tokens", "lengths")
    if load.rate is None:
        out += ("arrivals",)
    if load.rate is None or load.arrivals != "gamma":
        out += ("burstiness",)
    if load.lengths is not None:
        out += ("input_tokens", "output_tokens")
    return (*out, "concurrency") if load.open_loop and not load.concurrency else out


def _telling(load: Load) -> tuple[str, ...]:
    """The columns that say how heavy a load is and of what shape."""
    if load.trace is not None:
        return "trace", "time_scale"
    level = "concurrency" if load.rate is None else "rate"
    return level, "lengths" if load.lengths is not None else "input_tokens"


def _short(value: JSON) -> str:
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _columns(flat: Sequence[Mapping[str, str]], loads: Sequence[Load]) -> tuple[str, ...]:
    """The identity columns and whatever varies over the run: a table shows a column only if it says something."""
    names = dict.fromkeys(name for labels in flat for name in labels)
    # A load's field is empty where another has taken its place; that alone is no difference.
    values = {name: {labels.get(name, "") for labels in flat} - ({""} if name in LOAD_COLUMNS else set()) for name in names}
    varies = {name for name in names if len(values[name]) > 1}
    always = {*_IDENTITY, *(column for load in loads for column in _telling(load))}
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
