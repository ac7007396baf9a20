"""From stored cells to rows: one per deployment and load, with its repeats folded into estimates and the labels that distinguish it.

It reads records and samples, and decides which figures of a cell are withheld. It ranks nothing and does not know tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from enginebench.adapter import GAUGES
from enginebench.analysis.labels import SELDOM_NAMED, SELDOM_SHOWN, deployment_names
from enginebench.domain import JSON, Deployment, Load, Phase, canonical, field_names, fingerprint, load_fields, plain
from enginebench.domain.formatting import label, number
from enginebench.domain.ids import text_of
from enginebench.errors import UserError
from enginebench.metrics.context import RunContext
from enginebench.metrics.hardware import Hardware
from enginebench.metrics.registry import figures_of, metric_name, metric_of, metrics
from enginebench.metrics.slo import Slo
from enginebench.metrics.statistics import Estimate, estimate
from enginebench.metrics.tokens import TokenSource, one_token_per_event, token_source
from enginebench.metrics.window import steady_window
from enginebench.records.cell import CellRecord, Stated, has_samples
from enginebench.records.counters import Gauge, gauges
from enginebench.records.launch import LaunchRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.records.window import Window
from enginebench.validity import CacheProof, Context, Reason, Verdict, judge, worst

if TYPE_CHECKING:
    from enginebench.physics.expectation import Expected, PhysicalEstimate
else:
    PhysicalEstimate = object  # for typing.get_type_hints


@dataclass(frozen=True)
class CellResult:
    """One cell in one window: its record, its figures, and whether to trust them."""

    record: CellRecord
    figures: Mapping[str, float | None]
    """Figure ('ttft_p50', 'output_throughput', ...) -> value in the metric's unit."""
    verdict: Verdict = "not run"
    reasons: tuple[Reason, ...] = ()
    not_checkable: Mapping[str, str] = field(default_factory=dict)
    """Id of a validity check that could not run -> the evidence that is missing."""
    one_token_per_event: bool = False
    """Whether the gaps between events are intervals between tokens."""
    withheld: Mapping[str, str] = field(default_factory=dict)
    """Metrics that are meaningless in this cell, each with the reason; their figures are None."""
    window: Window | None = None
    """The part of the load that the figures describe; None where nothing was measured."""
    tokens: TokenSource = "unknown"
    requests: int = 0
    cache: CacheProof = field(default_factory=CacheProof)
    """Whether the prefix cache was cold, and how that is known."""
    gauges: Mapping[str, Gauge] = field(default_factory=dict)
    """The engine's own gauges over the window."""
    hardware: Hardware = field(default_factory=Hardware)
    phase: Phase | None = None
    """The phase of the load that the figures describe; None: the whole load."""
    log: str | None = None
    """Path of the engine's log, if the cell failed and there is one."""
    estimate: PhysicalEstimate | None = None
    """What physics alone expects of the deployment under its load, before the efficiency of its engine; None where it is unknown."""

    @property
    def load(self) -> Load:
        """What was sent; in a phase of a load that has several, the load that the phase is by itself."""
        return self.record.load if self.phase is None else self.record.load.in_phase(self.phase)

    @property
    def expected(self) -> Expected | None:
        """What the engine usually reaches, by published measurements; None if no measurement of such a case is known."""
        if self.estimate is None:
            return None
        from enginebench.physics.expectation import published

        return published().expected(self.record.deployment.engine, self.estimate)

    @property
    def ran(self) -> bool:
        return self.verdict != "not run"

    @property
    def summary(self) -> str:
        """The most important figures that it has, in the order of the table: 'output 283 tok/s  TTFT p50 25.3 ms'."""
        parts = []
        for _, name in sorted((its.place, name) for name, metric in metrics().items() for its in metric.shown if its.rank <= MAIN):
            metric = metrics()[name]
            unit, factor = metric.display()
            if (value := self.figures.get(metric.figures[0])) is not None:
                parts.append(f"{metric.header}{' p50' if metric.spread else ''} {number(value * factor)} {unit}")
        return "  ".join(parts)


MAIN = 3
"""The highest rank of a column (`Shown.rank`) that the summary of a cell has."""
_ANSWERS = ("ended_early", "failed_requests", "oversaturated")
"""Checks by which a cell may be invalid and still answer: the server did not bear the load."""
_SLOWED = ("client_bound", "crowded_machine", "foreign_load")
"""Checks that say that the figures are too slow: then a cell that keeps its limits answers, and one that does not leaves it open."""


def meets(cell: CellResult, slo: Slo) -> bool | None:
    """Whether a cell ran to its end and enough of the requests in its steady window kept every limit.

    None if unknown: the cell is invalid for another reason than the server's, a limit on TPOT where tokens were not counted, or latencies
    that are withheld for this cell.
    """
    if cell.record.status != "ok" or cell.record.delivery.stopped:
        return False
    attained = cell.figures.get("slo_attainment")
    doubts = {reason.check.id for reason in cell.reasons if reason.severity == "invalid"}.difference(_ANSWERS)
    if attained is None or (doubts and not (doubts <= set(_SLOWED) and attained >= slo.share)):
        return None
    return attained >= slo.share


@dataclass(frozen=True)
class Row:
    """A deployment under a load, with its repeats folded into estimates."""

    deployment: Deployment
    load: Load
    labels: Mapping[str, str]
    """What distinguishes this row: column -> value."""
    cells: tuple[CellResult, ...]
    status: str
    """'ok' if any repeat is, else 'failed' or 'skipped'."""
    figures: Mapping[str, Estimate | None]
    """Figure -> estimate over the repeats that are not invalid, or over all of them if every one is."""
    verdict: Verdict
    """The worst of the repeats that ran."""
    reasons: tuple[str, ...]
    name: str
    """The shortest text that distinguishes the deployment from others of its model: 'vllm', or 'vllm fp8 tp=4'."""

    @property
    def attached(self) -> bool:
        """Whether the server was running already: all that is known about it is what it reports."""
        return self.deployment.runtime == "attach"

    @property
    def sound(self) -> bool:
        """Whether the row's figures are usable: it ran and is not invalid."""
        return self.status == "ok" and self.verdict != "invalid"

    @property
    def ranked(self) -> bool:
        """Whether the row may be ranked, within its weights: it is sound."""
        return self.sound


def holds(row: Row, slo: Slo | None) -> bool | None:
    """Whether a row meets the SLO in more than half of the restarts that can be judged; None without an SLO, or if none can be."""
    met = restarts_within(row, slo)
    return sum(met) * 2 > len(met) if met else None


def restarts_within(row: Row, slo: Slo | None) -> list[bool]:
    """For each restart that can be judged, whether it meets the SLO."""
    return [answer for cell in row.cells if slo is not None and cell.ran and (answer := meets(cell, slo)) is not None]


LOAD_COLUMNS = tuple(load_fields())
_IDENTITY = ("engine", "model", "precision")
_HIDDEN = (*SELDOM_NAMED, *field_names(*SELDOM_SHOWN))
"""Shown only where two rows would look the same without them: they follow from other columns, or seldom matter."""


def read_rows(run: Run, context: RunContext) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Every stored cell, folded into rows in plan order, and the label columns of this run."""
    groups: dict[str, list[CellResult]] = {}
    for record in run.cells():
        key = fingerprint({"d": canonical(record.deployment), "l": canonical(record.load)})
        for result in _read(run, record, context):
            groups.setdefault(f"{key}.{result.phase.index}" if result.phase else key, []).append(result)
    flat = [_label_columns(group[0], context.launches) for group in groups.values()]
    columns = _columns(flat, [group[0].load for group in groups.values()])
    shown = [{c: labels.get(c, "") for c in columns} for labels in flat]
    names = _names([group[0] for group in groups.values()], flat)
    return tuple(map(fold, groups.values(), shown, names)), columns


def _read(run: Run, record: CellRecord, context: RunContext) -> Iterator[CellResult]:
    """A cell with its figures, once for each phase of its load.

    A measured cell without readable samples has failed, whatever its record says.
    """
    phases = record.load.phases()
    each: Sequence[Phase | None] = phases if len(phases) > 1 else (None,)
    samples = None
    if record.status == "ok" and has_samples(record):
        try:
            samples = run.samples(record.id)
            reason = "raw samples are missing"
        except UserError as error:
            reason = error.message
        if samples is None or not len(samples):
            record = replace(record, status="failed", reason=reason)
    for phase in each:
        if record.status != "ok":
            yield CellResult(record, {}, phase=phase, log=str(log) if (log := run.log_of(record)) else None)
        elif samples is not None:
            yield replace(result_in(_window(samples, record, phase), record, samples, context), phase=phase)
        elif record.stated is not None:
            yield result_of(record, record.stated, context)
            return


def result_of(record: CellRecord, evidence: Samples | Stated, context: RunContext | None = None) -> CellResult:
    """The figures of a cell and its verdict: of samples over their steady window, or as its source states them."""
    if isinstance(evidence, Stated):
        return _as_stated(record, evidence)
    return result_in(_window(evidence, record), record, evidence, context or RunContext())


def _window(samples: Samples, record: CellRecord, phase: Phase | None = None) -> Window:
    """The steady window; all of a load of which a file does not say when its requests were sent."""
    if record.imported is None or "start times" not in record.imported.lacks:
        return steady_window(samples, record.load, phase)
    length_ns = round((record.wall_s or 0.0) * 1e9)
    end = max(int(samples.end_ns.max()), int(samples.sent_ns.min()) + length_ns)
    return Window(int(samples.sent_ns.min()), end, "too short to tell", "the file does not say when requests were sent")


def _as_stated(record: CellRecord, stated: Stated) -> CellResult:
    its = judge(Context.without_samples(record))
    gaps = any(metric.scope == "event" for name in stated.figures if (metric := metric_of(name)) is not None)  # with unknown tokens
    figures = _shown(stated.figures, its.withheld)
    return CellResult(record, figures, its.verdict, its.reasons, its.not_checkable, one_token_per_event=not gaps, withheld=its.withheld)


def result_in(window: Window, record: CellRecord, samples: Samples, context: RunContext) -> CellResult:
    """The figures of a cell over any window of its samples: a cell may have several windows."""
    cell = Context(samples.within(window), record, window, context)
    its = judge(cell)
    return CellResult(
        record, _shown(figures_of(cell), its.withheld), its.verdict, its.reasons, its.not_checkable, one_token_per_event(samples),
        its.withheld, window, token_source(samples), int(cell.samples.inside.sum()), cell.cache, gauges(cell.readings, tuple(GAUGES)),
        cell.hardware, estimate=cell.estimate,
    )  # fmt: skip


def _shown(figures: Mapping[str, float | None], withheld: Mapping[str, str]) -> dict[str, float | None]:
    return {name: None if metric_name(name) in withheld else value for name, value in figures.items()}


def fold(group: Sequence[CellResult], labels: Mapping[str, str], name: str) -> Row:
    ran = [cell for cell in group if cell.ran]
    usable = [cell for cell in ran if cell.verdict != "invalid"] or ran
    names = dict.fromkeys(name for cell in usable for name in cell.figures)
    figures = {name: estimate([cell.figures.get(name) for cell in usable]) for name in names}
    verdict = worst(cell.verdict for cell in group)
    if usable != ran and verdict == "invalid":
        verdict = "suspect"  # the invalid repeats are left out
    status = "ok" if ran else "failed" if any(c.record.status == "failed" for c in group) else "skipped"
    failures = [c.record.reason for c in group if c.record.status != "ok" and c.record.reason]
    reasons = dict.fromkeys([*(str(r) for c in ran for r in c.reasons), *failures])
    first = group[0]
    return Row(first.record.deployment, first.load, labels, tuple(group), status, figures, verdict, tuple(reasons), name)


def _label_columns(cell: CellResult, launches: Mapping[str, LaunchRecord]) -> dict[str, str]:
    """Every field of the deployment and the load as column -> text; options by their own names. Empty: it has no effect in this load.

    A phase has the columns of the load that it is by itself, and those that set the level of the whole load.
    """
    record, whole = cell.record, cell.record.load
    deployment: dict[str, Any] = dict(plain(record.deployment))  # type: ignore[arg-type]  # a dataclass becomes a dict
    launch = launches.get(record.launch_id)
    reported = launch.configuration.resolved.get("precision") if launch is not None else None
    deployment["precision"] = record.deployment.known_precision or reported
    options, spread, load = deployment.pop("options"), deployment.pop("parallelism"), plain(cell.load)
    ours = {**deployment, **spread, **load}  # type: ignore[dict-item]
    named = {f"options.{name}" if name in ours else name: value for name, value in options.items()}  # an engine may have its own `seed`
    out: dict[str, JSON] = {**deployment, **spread, **named, **load}  # type: ignore[dict-item]
    of_whole = {name: label(whole.value(name)) for name in whole.level_fields} if cell.phase is not None else {}
    unused = [name for name in field_names("level", "arrivals", "lengths") if not cell.load.uses(name)]
    return {name: label(value) for name, value in out.items()} | dict.fromkeys(unused, "") | of_whole


def _columns(flat: Sequence[Mapping[str, str]], loads: Sequence[Load]) -> tuple[str, ...]:
    """The identity columns and whatever varies over the run: a table shows a column only if it says something."""
    names = dict.fromkeys(name for labels in flat for name in labels)
    # A load's field is empty where another has taken its place; that alone is not a difference.
    values = {name: {labels.get(name, "") for labels in flat} - ({""} if name in LOAD_COLUMNS else set()) for name in names}
    varies = {name for name in names if len(values[name]) > 1}
    always = {*_IDENTITY, *(column for load in loads for column in load.main_fields)}
    shown = [n for n in names if n in always or (n in varies and n not in _HIDDEN)]
    alike = len({tuple(labels.get(n, "") for n in shown) for labels in flat}) < len(flat)
    return tuple(n for n in names if n in varies | always) if alike else tuple(shown)


def _names(groups: Sequence[CellResult], labels: Sequence[Mapping[str, str]]) -> list[str]:
    """For each row the name of its deployment among those of its model."""
    models: dict[str, dict[str, tuple[Deployment, str]]] = {}
    for cell, its in zip(groups, labels, strict=True):
        deployment = cell.record.deployment
        models.setdefault(deployment.model, {})[text_of(deployment)] = deployment, its["precision"]
    found: dict[str, str] = {}
    for each in models.values():
        precisions = {text: precision for text, (_, precision) in each.items()}
        found |= dict(zip(each, deployment_names([deployment for deployment, _ in each.values()], precisions), strict=True))
    return [found[text_of(cell.record.deployment)] for cell in groups]
