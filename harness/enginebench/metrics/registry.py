"""The one registry of metrics: how a metric is declared, found, named, and computed.

A metric is one function in a module of `enginebench.metrics.figures`, declared with `@metric`. Tables, JSON, CSV, the HTML definitions,
`compare --fail-if`, SLOs, docs/metrics.md and the lists of withheld figures are derived from the declaration. A *figure* is one number of
a metric: 'output_throughput', or a percentile such as 'ttft_p50'. The registry does not know engines, files or repeats.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from enginebench.machine.folders import modules_in
from enginebench.metrics.context import Context, Floats
from enginebench.metrics.slo import LIMITS
from enginebench.metrics.statistics import percentiles
from enginebench.records.cell import Lack
from enginebench.records.samples import Samples

Scope: TypeAlias = Literal["request", "event", "cell", "machine", "cost"]
"""What a metric has one value of: each request, each gap between events, or the cell (from samples, with its machine, with prices)."""

Compute: TypeAlias = Callable[[Context], Floats]
PERCENTILES = (50.0, 90.0, 99.0)
"""The figures of a metric with one value per request or event."""

DISPLAY_UNITS: Mapping[str, tuple[str, float]] = {
    "s": ("ms", 1e3),
    "1": ("%", 1e2),
    "B": ("GB", 1e-9),
    "money/Mtok": ("{currency}/M tok", 1),
    "tok/s/money": ("tok/s/{currency}", 1),
    "GB/s/money": ("GB/s/{currency}", 1),
}
"""Unit of a metric -> how people read it, and display value / stored value. Other units are shown as they are."""


class Trait(Enum):
    """How a metric behaves; validity withholds metrics by trait."""

    LATENCY = "counts from when a request was sent or scheduled, so it includes time in the server's queue"
    PACE = "describes the time between output events, so it is meaningless where they arrived in bursts"
    TOKENS = "divides by the tokens of a stream, so it is meaningless where some of them were never streamed"
    ONLINE = "exists only for requests that are served one by one, not in an in-process batch"
    DEVICE = "describes the GPUs, so it is meaningless where other processes used them"
    TIMELINE = "counts over a time, so it is unknown where a file does not say when requests were sent"
    DUE = "counts from when a request was due, so it is unknown where a file does not say that"
    GAPS = "looks at single output events, so it is unknown where a file has only the first and the last of a request"


_LACKING: Mapping[Lack, Trait] = {"start times": Trait.TIMELINE, "due times": Trait.DUE, "gaps": Trait.GAPS}
"""What an imported file may lack -> the trait of the metrics that need it."""


class Need(Enum):
    """What a metric is computed from; the value is the reason given where a figure is missing."""

    EVENTS = "needs 2 streamed events per request"
    TOKENS = "the output tokens were not counted"
    TELEMETRY = "there are no GPU readings for this cell"
    CEILING = "the model's size, its placement or the machine's limits are unknown"
    EXPECTATION = "no measurement of this engine in such a case is known"
    PRICES = "the price or the power is unknown"
    SLO = "no SLO is set"


@dataclass(frozen=True)
class Shown:
    """One column of the default table. Metrics without one are in every other output."""

    place: int = 100
    """Reading order, left to right."""
    rank: int = 100
    """Importance, 0 first: when space is short the column with the highest rank is dropped."""
    percentile: Literal[50, 90, 99, "tail"] = 50
    """For metrics per request or event. 'tail': the highest percentile that any row has enough samples for."""
    always: bool = False
    """Shown even if no row has the figure; a footnote then gives the reason."""
    unlike: str = ""
    """Shown only if it differs from this metric in some row, by more than 1 % and 1 ms."""
    instead_of: str = ""
    """Shown only if no row has this metric."""
    least: float = 0.0
    """Shown only if the figure reaches this value in some row."""


@dataclass(frozen=True)
class Metric:
    """One metric. Call it with a `Context`, or with `Samples` alone, to get its values: NaN where undefined, one value per cell."""

    name: str
    title: str
    unit: str
    """'s', 'tok', 'tok/s', 'req/s', 'W', 'J/tok', 'B', 'per token', '1' for a share, or an amount of money."""
    scope: Scope
    better: Literal["higher", "lower"] | None
    """Which direction is good; None: neither is."""
    compute: Compute
    """Its docstring is the definition; the first paragraph is the formula."""
    header: str
    """Column heading."""
    traits: frozenset[Trait] = frozenset()
    needs: tuple[Need, ...] = ()
    missing: str = "unknown, because the server did not report enough"
    """The reason given where the figure is missing."""
    shown: tuple[Shown, ...] = ()
    bundled_title: str = ""
    """Title where an event may hold several tokens, if it differs."""
    equal_within: float = 0.03
    """A difference below this share is equal in practice, however significant; `equal_within` of a scenario replaces it."""
    slo_limit: str = ""
    """Name of the SLO limit on this metric, a field of `Slo`: 'ttft' for `ttft_ms`."""

    def __call__(self, of: Context | Samples) -> Floats:
        """The values, computed once per context."""
        context = of if isinstance(of, Context) else Context(of)
        if self.name not in context.computed:
            context.computed[self.name] = self._as_stated(context) if self.lacks(context) else self.compute(context)
        return context.computed[self.name]

    def lacks(self, context: Context) -> bool:
        """Whether the cell was imported from a file that lacks what the metric needs."""
        return any(_LACKING.get(lack) in self.traits for lack in context.lacks)

    def _as_stated(self, context: Context) -> Floats:
        """The value of the cell as its file states it; no value for each request."""
        if self.scope == "event":
            return np.empty(0)
        return np.full(len(context.samples), np.nan) if self.spread else one(context.stated.get(self.name))

    @property
    def definition(self) -> str:
        """The whole docstring as one paragraph."""
        return " ".join(inspect.cleandoc(self.compute.__doc__ or "").split())

    @property
    def formula(self) -> str:
        """The first paragraph of the docstring."""
        return inspect.cleandoc(self.compute.__doc__ or "").split("\n\n")[0].replace("\n", " ")

    @property
    def spread(self) -> bool:
        """Whether it has many values per cell, so that its figures are percentiles."""
        return self.scope in ("request", "event")

    @property
    def figures(self) -> tuple[str, ...]:
        """The names of its figures."""
        return tuple(f"{self.name}_p{q:.0f}" for q in PERCENTILES) if self.spread else (self.name,)

    def applies(self, context: Context) -> bool:
        """Whether cells have this metric at all: one that needs an SLO or prices is left out without them."""
        return not ((Need.SLO in self.needs and context.run.slo is None) or (Need.PRICES in self.needs and context.run.prices is None))

    def display(self, currency: str = "money") -> tuple[str, float]:
        """(display unit, display value / stored value)."""
        unit, factor = DISPLAY_UNITS.get(self.unit, (self.unit, 1.0))
        return unit.format(currency=currency), factor


_declared: dict[str, Metric] = {}


def metric(
    title: str, *, header: str = "", traits: Iterable[Trait] = (), missing: str = "", **declared: Any
) -> Callable[[Compute], Metric]:
    """Declare a metric: the function's name is the metric's, its docstring the definition. ValueError if the name is taken or the SLO
    limit unknown.

    header: the title if empty. missing: the reason of the first need if empty. declared: further fields of `Metric`.
    """

    def declare(compute: Compute) -> Metric:
        name, needs = compute.__name__, declared.get("needs", ())
        if name in _declared and _declared[name].compute.__module__ != compute.__module__:
            raise ValueError(f"metric '{name}' is declared twice: {_declared[name].compute.__module__} and {compute.__module__}")
        if (limit := declared.get("slo_limit")) not in (None, *LIMITS):
            raise ValueError(f"metric '{name}': `enginebench.metrics.slo.Slo` does not have the limit '{limit}'")
        reason = missing or (needs[0].value if needs else Metric.missing)
        _declared[name] = Metric(name, title, compute=compute, header=header or title, traits=frozenset(traits), missing=reason, **declared)
        return _declared[name]

    return declare


@cache
def discover() -> None:
    """Import every module of `enginebench.metrics.figures`, which declares its metrics."""
    modules_in("enginebench.metrics.figures")


def metrics() -> Mapping[str, Metric]:
    """Name -> metric, by scope, then by module, then in the order of definition."""
    discover()
    order = sorted(_declared.values(), key=lambda its: (get_args(Scope).index(its.scope), its.compute.__module__))
    return {its.name: its for its in order}


def find(figure: str) -> tuple[Metric, float | None] | None:
    """The metric and the percentile of a figure: 'ttft_p50' -> (TTFT, 50), 'goodput' -> (goodput, None); None if it is unknown."""
    discover()
    name, _, q = figure.rpartition("_p")
    if (whole := _declared.get(figure)) is not None and not whole.spread:
        return whole, None
    part = _declared.get(name)
    return (part, float(q)) if part is not None and part.spread and figure in part.figures else None


def metric_of(figure: str) -> Metric | None:
    """The metric of a figure: 'ttft_p50' -> TTFT."""
    found = find(figure)
    return found[0] if found is not None else None


def metric_name(figure: str) -> str:
    """'ttft_p50' -> 'ttft', 'goodput' -> 'goodput'; a figure of no known metric is returned as it is."""
    found = metric_of(figure)
    return found.name if found is not None else figure


def unit_of(figure: str) -> str:
    """The stored unit of a figure; empty if it is unknown."""
    found = metric_of(figure)
    return found.unit if found is not None else ""


def names_with(*traits: Trait) -> tuple[str, ...]:
    """The metrics that have any of these traits."""
    return tuple(name for name, its in metrics().items() if its.traits & set(traits))


def figures_of(context: Context) -> dict[str, float | None]:
    """Every figure of a cell in a window by name; None where it is undefined or has too few samples."""
    out: dict[str, float | None] = {}
    for its in metrics().values():
        if its.applies(context):
            values = its(context)
            found = percentiles(values, PERCENTILES) if its.spread else [None if np.isnan(values[0]) else float(values[0])]
            if its.spread and its.lacks(context):
                found = [context.stated.get(figure) for figure in its.figures]
            out |= zip(its.figures, found, strict=True)
    return out


def one(value: float | None) -> Floats:
    """The value of a whole cell as metrics return it; None is undefined."""
    return np.array([np.nan if value is None else value])
