"""Thresholds such as 'ttft.p99 > +5%': what they mean, and which pairs of two runs break them.

A threshold is broken when the whole 95 % interval of the change lies beyond it, and not when a median happens to. Where the restarts
are too few for such an interval, or there is nothing to compare, it cannot be told, and that is said. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from enginebench.analysis.comparison import Comparison, Figure
from enginebench.analysis.rows import PERCENTILES
from enginebench.errors import UserError, did_you_mean
from enginebench.metrics.requests import METRICS
from enginebench.metrics.slo import SLO_METRICS
from enginebench.metrics.statistics import CONFIDENCE, repeats_needed

_WRITTEN = re.compile(r"\s*([a-z0-9_.]+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*%\s*")
_EXAMPLES = "write a figure, > or <, and a change in percent: 'ttft.p99 > +5%', 'output_throughput < -3%'"


@dataclass(frozen=True)
class Rule:
    """Fail if the relative change of a figure is above (or below) a limit. limit: a share, 0.05 for 5 %. text: as it was written."""

    figure: str
    above: bool
    limit: float
    text: str

    def beyond(self, relative: float) -> bool:
        """Whether a change lies beyond the limit."""
        return relative > self.limit if self.above else relative < self.limit


@dataclass(frozen=True)
class Finding:
    """The outcome of a rule for a pair. why: the reason, for people; empty where the rule is kept."""

    rule: Rule
    pair: str
    state: Literal["broken", "kept", "inconclusive"]
    why: str = ""


def figures() -> dict[str, str]:
    """Every figure that a rule may name, as it is written -> its name: 'ttft.p99' -> 'ttft_p99'."""
    cells = {name: name for name, metric in (METRICS | dict(SLO_METRICS)).items() if metric.scope == "cell"}
    spread = [*(name for name, metric in METRICS.items() if metric.scope == "request"), "itl"]
    return cells | {f"{name}.p{q:.0f}": f"{name}_p{q:.0f}" for name in spread for q in PERCENTILES}


def parse_rule(text: str) -> Rule:
    """'ttft.p99 > +5%'; 'ttft_p99' is the same figure. UserError for anything else, with the nearest known figure."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise UserError(f"--fail-if '{text}': that is no threshold", advice=_EXAMPLES)
    name, sign, percent = found.groups()
    known = figures()
    figure = known.get(name, name if name in known.values() else None)
    if figure is None:
        near = [written for written in known if written.partition(".")[0] == name]
        advice = f"say which percentile: {', '.join(near)}" if near else did_you_mean(name, known)
        raise UserError(f"--fail-if '{text}': there is no figure '{name}'", advice=advice)
    return Rule(figure, sign == ">", float(percent) / 100, " ".join(text.split()))


def judge(comparison: Comparison, rule: Rule) -> Iterator[Finding]:
    """What a rule says of every pair; of none at all, that nothing could be compared."""
    if not comparison.pairs:
        yield Finding(rule, "every pair", "inconclusive", "no deployment and load is in both runs")
    for pair in comparison.pairs:
        figure = pair.figures.get(rule.figure)
        if figure is None:
            yield Finding(rule, pair.name, "inconclusive", pair.why_missing(rule.figure))
        elif comparison.moved:
            yield Finding(rule, pair.name, "inconclusive", "the runs were made on different machines")
        else:
            yield _judged(rule, pair.name, figure)


def _judged(rule: Rule, pair: str, figure: Figure) -> Finding:
    change = figure.change
    if change.relative is None:
        return Finding(rule, pair, "inconclusive", "the base is 0, and nothing is a share of that")
    if change.coverage < CONFIDENCE or change.low is None or change.high is None:
        n = f"{figure.base.n} + {figure.candidate.n} restarts are too few for a {CONFIDENCE:.0%} interval"
        return Finding(rule, pair, "inconclusive", f"{100 * change.relative:+.1f} %, but {n}: repeat each {repeats_needed()} times")
    if rule.beyond(change.low) and rule.beyond(change.high):
        return Finding(rule, pair, "broken", f"{100 * change.relative:+.1f} % [{100 * change.low:+.1f} to {100 * change.high:+.1f}]")
    return Finding(rule, pair, "kept")
