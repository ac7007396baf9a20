"""The figures of counted routing: how uneven it is, how much the hottest experts cover, and what a decode step touches. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from enginebench.physics.routing import (
    Routing,
    distinct_per_step,
    entropy,
    hottest_share,
    rank_imbalance,
    uniform_distinct,
)
from enginebench.physics.routing_curve import Coverage, coverages, curve_page, marks


@dataclass(frozen=True)
class StepExperts:
    """Distinct experts that a decode step touches in a layer."""

    batch: int
    """Sequences in the step."""
    distinct: float
    """Mean over the layers."""
    layers: tuple[float, ...]
    uniform: float
    """What uniform routing would give."""


@dataclass(frozen=True)
class RoutingSummary:
    """How unevenly a model's experts are used."""

    model: str
    source: str
    """Who counted, and over what."""
    experts: int
    top_k: int | None
    """Experts per token; None: only counts are known."""
    layers: tuple[int, ...]
    """Numbers of the layers with experts."""
    hottest: int
    """The number of experts behind 'hottest_share': an eighth of all."""
    choices: int
    mean: Mapping[str, float]
    """'hottest_share', 'entropy' and 'imbalance_ep<N>', mean over the layers."""
    worst: Mapping[str, float]
    """The same of the most uneven layer."""
    per_layer: Mapping[str, tuple[float, ...]]
    steps: tuple[StepExperts, ...]
    """One per batch; empty where only counts are known."""
    curves: tuple[Coverage, ...]
    """The share of choices that the hottest experts cover, for each kind of input."""

    @property
    def marks(self) -> list[int]:
        """Numbers of experts worth a row of a table."""
        return marks(self.experts)

    def page(self) -> str:
        """The curves as an HTML page that opens offline."""
        return curve_page(self.model, self.source, self.experts, self.curves)


def routing_summary(routing: Routing, *, ranks: Sequence[int] = (2, 4, 8), batches: Sequence[int] = (1, 4, 16)) -> RoutingSummary:
    """The figures of a model, without `ranks` that do not divide the experts, and without `batches` (sequences) larger than was counted."""
    hottest = max(1, routing.experts // 8)
    per_layer = {
        "hottest_share": hottest_share(routing.counts, hottest),
        "entropy": entropy(routing.counts),
        **{f"imbalance_ep{n}": rank_imbalance(routing.counts, n) for n in ranks if routing.experts % n == 0},
    }
    return RoutingSummary(
        routing.model, routing.source, routing.experts, routing.top_k, routing.layers, hottest, int(routing.counts.sum()),
        mean={name: float(values.mean()) for name, values in per_layer.items()},
        worst={name: float(values.min() if name == "entropy" else values.max()) for name, values in per_layer.items()},
        per_layer={name: tuple(values.tolist()) for name, values in per_layer.items()},
        steps=tuple(_steps(routing, batches)), curves=coverages(routing),
    )  # fmt: skip


def _steps(routing: Routing, batches: Sequence[int]) -> Iterator[StepExperts]:
    if routing.choices is None or routing.top_k is None:
        return
    for batch in batches:
        if (found := distinct_per_step(routing.choices, batch)) is not None:
            uniform = uniform_distinct(routing.experts, routing.top_k, batch)
            yield StepExperts(batch, float(found.mean()), tuple(found.tolist()), uniform)
