"""One cell with its figures and whether to trust them, computed from its samples or as their source states them. Reads no file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from enginebench.adapter import GAUGES
from enginebench.domain import Load, Phase
from enginebench.domain.formatting import number
from enginebench.metrics import context as metrics_context
from enginebench.metrics.context import RunContext
from enginebench.metrics.hardware import Hardware
from enginebench.metrics.registry import Trait, figures_of, metric_name, metric_of, metrics
from enginebench.metrics.tokens import TokenSource, one_token_per_event, token_source
from enginebench.metrics.window import steady_window
from enginebench.records.cell import CellRecord, Stated
from enginebench.records.counters import Gauge, gauges
from enginebench.records.samples import Samples
from enginebench.records.window import Window
from enginebench.validity import CacheProof, Context, Reason, Verdict, judge
from enginebench.workload.lengths import classes_of

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
    classes: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    """Class of requests in a mixed load -> its figures, in the same window; empty where the load has no classes."""
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


def result_of(record: CellRecord, evidence: Samples | Stated, context: RunContext | None = None) -> CellResult:
    """The figures of a cell and its verdict: of samples over their steady window, or as its source states them."""
    if isinstance(evidence, Stated):
        return _as_stated(record, evidence)
    return result_in(window_of(evidence, record), record, evidence, context or RunContext())


def window_of(samples: Samples, record: CellRecord, phase: Phase | None = None) -> Window:
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
        cell.hardware, classes=_by_class(cell, its.withheld), estimate=cell.estimate,
    )  # fmt: skip


def _by_class(cell: Context, withheld: Mapping[str, str]) -> dict[str, Mapping[str, float | None]]:
    """The figures of each class of requests. What is of the whole machine, such as power, is left out."""
    labels = classes_of(cell.record.load, cell.samples.index)
    if not labels:
        return {}
    found: dict[str, Mapping[str, float | None]] = {}
    for name in dict.fromkeys(sorted(labels)):
        part = cell.samples.only(np.array([label == name for label in labels]))
        figures = figures_of(metrics_context.Context(part, cell.record, cell.window, cell.run))
        figures["requests"] = float(part.inside.sum())
        found[name] = {figure: value for figure, value in _shown(figures, withheld).items() if figure == "requests" or _of_requests(figure)}
    return found


def _of_requests(figure: str) -> bool:
    """Whether a figure of some requests means the same as one of all."""
    metric = metric_of(figure)
    return metric is not None and metric.scope in ("request", "event", "cell") and Trait.DEVICE not in metric.traits


def _shown(figures: Mapping[str, float | None], withheld: Mapping[str, str]) -> dict[str, float | None]:
    return {name: None if metric_name(name) in withheld else value for name, value in figures.items()}
