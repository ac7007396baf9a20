"""Thresholds such as 'ttft.p99 > +5%': how they are written, and which pairs of two runs break them.

A threshold is broken when the whole 95 % interval of the change lies beyond it. With too few restarts for such an interval it is broken if
the change is far beyond it (three times, as ratios, and at least 10 %) and no restart disagrees: every one of the candidate lies on the
same side of every one of the base. Otherwise, and without the figure in both runs, the result is inconclusive. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from enginebench.analysis.comparison import Comparison, Figure
from enginebench.domain.formatting import percent, relative_change
from enginebench.errors import UserError, did_you_mean
from enginebench.metrics.registry import metrics
from enginebench.metrics.statistics import CONFIDENCE, repeats_needed

_WRITTEN = re.compile(r"\s*([a-z0-9_.]+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*%\s*")
FAR, FAR_LEAST = 3, 0.10
"""A change is far beyond a threshold if it is beyond this many times it, as ratios, and at least so large."""
_EXAMPLES = "write a figure, > or <, and a change in percent: 'ttft.p99 > +5%', 'output_throughput < -3%'"


@dataclass(frozen=True)
class Rule:
    """Fail if the relative change of a figure is above or below a limit."""

    figure: str
    above: bool
    """True: '>', False: '<'."""
    limit: float
    """As a share: 0.05 for 5 %."""
    text: str

    def beyond(self, relative: float) -> bool:
        return relative > self.limit if self.above else relative < self.limit


@dataclass(frozen=True)
class Finding:
    rule: Rule
    pair: str
    state: Literal["broken", "kept", "inconclusive"]
    why: str = ""
    """The reason, for people; empty where the rule is kept."""


def figures() -> dict[str, str]:
    """Every figure that a rule may name, as it is written -> its name: 'ttft.p99' -> 'ttft_p99'."""
    return {name.replace(f"{metric.name}_", f"{metric.name}.", 1): name for metric in metrics().values() for name in metric.figures}


def parse_rule(text: str) -> Rule:
    """'ttft.p99 > +5%'; 'ttft_p99' is the same figure. UserError for anything else, with what would be accepted."""
    found = _WRITTEN.fullmatch(text)
    if found is None:
        raise UserError(f"--fail-if '{text}': invalid threshold", advice=_EXAMPLES)
    name, sign, percent = found.groups()
    figure = read_figure(name, f"--fail-if '{text}'")
    return Rule(figure, sign == ">", float(percent) / 100, " ".join(text.split()))


def read_figure(written: str, where: str) -> str:
    """The name of a figure: 'ttft.p99' and 'ttft_p99' -> 'ttft_p99'. UserError for an unknown one, which begins with `where`."""
    known = figures()
    figure = known.get(written, written if written in known.values() else None)
    if figure is None:
        metric = written.partition(".")[0]
        if near := [each for each in known if each.startswith(f"{metric}.p")]:
            raise UserError(f"{where}: no percentile, or one that is not computed", advice=f"say which: {', '.join(near)}")
        raise UserError(f"{where}: unknown figure '{written}'", advice=did_you_mean(written, known))
    return figure


def default_rules(limit: float) -> list[Rule]:
    """Output tokens/s must not be lower, TTFT and TPOT not higher, by more than a share. Figures that a run lacks are not judged."""
    written = f"{100 * limit:.6g}%"
    return [parse_rule(text) for text in (f"output_throughput < -{written}", f"ttft.p50 > +{written}", f"tpot.p50 > +{written}")]


def judge(comparison: Comparison, rule: Rule) -> Iterator[Finding]:
    """One finding per pair, or a single one if there are no pairs."""
    if not comparison.pairs:
        yield Finding(rule, "every pair", "inconclusive", "the runs have no deployment and load in common")
    for pair in comparison.pairs:
        figure = pair.figures.get(rule.figure)
        if figure is None:
            yield Finding(rule, pair.name, "inconclusive", pair.why_missing(rule.figure))
        elif comparison.moved:
            yield Finding(rule, pair.name, "inconclusive", "the runs were made on different machines")
        else:
            yield _judged(rule, pair.name, figure)


def fails(finding: Finding, *, strict: bool = False) -> bool:
    """Whether a finding fails a nightly job: its threshold is broken. strict: or inconclusive."""
    return finding.state == "broken" or (strict and finding.state == "inconclusive")


def far_limit(limit: float, *, above: bool) -> float:
    """The change that is far beyond a limit: 0.05 -> 0.158 above it, -0.05 -> -0.143 and -0.4 -> -0.784 below."""
    ratio: float = (1 + limit) ** FAR - 1
    return max(ratio, FAR_LEAST) if above else min(ratio, -FAR_LEAST)


def is_far(figure: Figure, beyond: float) -> bool:
    """Whether the change is beyond `beyond`, and no restart disagrees."""
    relative, base, candidate = figure.change.relative, figure.base.values, figure.candidate.values
    if relative is None:
        return False
    return relative >= beyond and min(candidate) > max(base) if beyond > 0 else relative <= beyond and max(candidate) < min(base)


def _judged(rule: Rule, pair: str, figure: Figure) -> Finding:
    change = figure.change
    if change.relative is None:
        return Finding(rule, pair, "inconclusive", "the base is 0, so there is no relative change")
    if change.coverage < CONFIDENCE or change.low is None or change.high is None:
        n = f"{figure.base.n} + {figure.candidate.n} restarts are too few for a {CONFIDENCE:.0%} interval"
        if is_far(figure, beyond := far_limit(rule.limit, above=rule.above)):
            why = f"{relative_change(change.relative)}; {n}, but it is beyond {percent(beyond)} and no restart disagrees"
            return Finding(rule, pair, "broken", why)
        return Finding(rule, pair, "inconclusive", f"{relative_change(change.relative)}, but {n}: repeat each {repeats_needed()} times")
    if rule.beyond(change.low) and rule.beyond(change.high):
        return Finding(rule, pair, "broken", relative_change(change.relative, change.low, change.high))
    return Finding(rule, pair, "kept")
