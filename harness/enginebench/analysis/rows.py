"""From stored cells to rows: one per deployment and load, with its repeats folded into estimates and the labels that distinguish it.

It reads records and samples, and decides which figures of a cell are withheld. It ranks nothing and does not know tables.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from enginebench.analysis.cell_result import CellResult as CellResult
from enginebench.analysis.cell_result import result_in as result_in
from enginebench.analysis.cell_result import result_of as result_of
from enginebench.analysis.cell_result import window_of
from enginebench.analysis.figure_cache import FigureCache
from enginebench.analysis.labels import SELDOM_NAMED, SELDOM_SHOWN, deployment_names
from enginebench.domain import JSON, Deployment, Load, Phase, field_names, load_fields, plain
from enginebench.domain.formatting import label
from enginebench.domain.ids import text_of
from enginebench.errors import UserError
from enginebench.metrics.context import RunContext
from enginebench.metrics.costs import Prices
from enginebench.metrics.slo import Slo, parse
from enginebench.metrics.statistics import Estimate, estimate
from enginebench.records.cell import CellRecord, has_samples
from enginebench.records.launch import LaunchRecord
from enginebench.records.run_folder import Run
from enginebench.validity import Verdict, worst

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
    excluded: str = ""
    """Why it is not ranked although its figures are usable: it breaks the rule for quality."""

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
        """Whether the row may be ranked, within its weights: it is sound, and keeps the rule for quality."""
        return self.sound and not self.excluded


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


def context_of(run: Run, prices: Prices | None = None) -> RunContext:
    """What the figures of a run are computed with. UserError if its SLO is invalid."""
    return RunContext(run.record, run.launches(), parse(run.record.slo) if run.record.slo is not None else None, prices)


def keep_figures(run: Run, cells: Collection[str]) -> None:
    """Compute the figures of these cells now, so that the first report of the run finds them."""
    context = context_of(run)
    known = FigureCache(run.path, context, part=True)
    for record, digest in run.cells_with_hash(cells) if known.on else ():
        _read(run, record, digest, context, known)
    known.save()


def read_rows(run: Run, context: RunContext) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Every stored cell, folded into rows in plan order, and the label columns of this run."""
    groups: dict[tuple[str, str, int | None], list[CellResult]] = {}
    known = FigureCache(run.path, context)
    for record, digest in run.cells_with_hash():
        for result in _read(run, record, digest, context, known):
            key = text_of(record.deployment), text_of(record.load), result.phase.index if result.phase else None
            groups.setdefault(key, []).append(result)
    known.save()
    flat = [_label_columns(group[0], context.launches) for group in groups.values()]
    columns = _columns(flat, [group[0].load for group in groups.values()])
    shown = [{c: labels.get(c, "") for c in columns} for labels in flat]
    names = _names([group[0] for group in groups.values()], flat)
    return tuple(map(fold, groups.values(), shown, names)), columns


def _read(run: Run, record: CellRecord, digest: str, context: RunContext, known: FigureCache) -> Sequence[CellResult]:
    """A cell with its figures, once for each phase of its load; from the cache if they are in it. digest: of its record's file.

    A measured cell without readable samples has failed, whatever its record says.
    """
    if record.status != "ok":
        return _failed(run, record)
    if record.stated is not None and not has_samples(record):
        return (result_of(record, record.stated, context),)
    try:
        stored = run.stored_samples(record)
        if stored is not None and (kept := known.find(record, digest, stored.sha256)):
            return kept
        samples = stored.read() if stored is not None else None
    except UserError as error:
        return _failed(run, replace(record, status="failed", reason=error.message))
    if stored is None or samples is None or not len(samples):
        return _failed(run, replace(record, status="failed", reason="raw samples are missing"))
    found = [replace(result_in(window_of(samples, record, phase), record, samples, context), phase=phase) for phase in _phases(record)]
    known.keep(record, digest, stored.sha256, found)
    return found


def _failed(run: Run, record: CellRecord) -> Sequence[CellResult]:
    log = str(found) if (found := run.log_of(record)) else None
    return [CellResult(record, {}, phase=phase, log=log) for phase in _phases(record)]


def _phases(record: CellRecord) -> Sequence[Phase | None]:
    """The phases of its load; (None,) for a load that is one."""
    phases = record.load.phases()
    return phases if len(phases) > 1 else (None,)


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
    if record.deployment.loras:
        deployment["loras loaded"] = " ".join(record.deployment.loras)
    deployment.pop("loras", None)
    if record.deployment.speculation is not None:
        deployment["speculation"] = record.deployment.speculation.text
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
