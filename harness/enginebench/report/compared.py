"""Two runs compared as a user of Python sees it: the change of every figure, thresholds, and the comparison in every form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.analysis import comparison
from enginebench.analysis.frames import figures_frame
from enginebench.analysis.thresholds import Finding, fails, judge, parse_rule
from enginebench.domain import JSON
from enginebench.metrics.costs import Prices
from enginebench.report.comparison import to_data, to_markdown, to_text
from enginebench.report.run import Run, open_run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """Two runs, figure by figure, and the verdict on thresholds."""

    pairs: comparison.Comparison
    """The deployments and loads that both runs have, with the change of every figure; what differs around them."""
    findings: tuple[Finding, ...] = ()
    """One per threshold and pair."""

    def failed(self, *, strict: bool = False) -> bool:
        """Whether a threshold is broken. strict: or inconclusive."""
        return any(fails(finding, strict=strict) for finding in self.findings)

    @cached_property
    def figures(self) -> pd.DataFrame:
        """One row per figure of each pair.

        Columns: pair (deployment and load), figure, base, candidate (medians over the restarts, SI units), change, low, high (relative
        change and its interval; 0.05 is 5 %), p, verdict ('better', 'worse', 'changed', 'alike', 'unsure', 'unknown').
        """
        return figures_frame(self.pairs)

    def to_text(self) -> str:
        """For a terminal."""
        return to_text(self.pairs, self.findings)

    def to_markdown(self) -> str:
        """As GitHub-flavoured Markdown."""
        return to_markdown(self.pairs, self.findings)

    def to_dict(self) -> JSON:
        """What `bench compare --json` prints: SI units and shares."""
        return to_data(self.pairs, self.findings)


def compare(
    base: Run | str | Path, candidate: Run | str | Path, *, fail_if: Sequence[str] = (), prices: Prices | None = None
) -> Comparison:
    """What changed from one run to another.

    base, candidate: runs or their folders. fail_if: thresholds such as 'ttft.p99 > +5%'; one is broken when the whole 95 % interval of
    the change lies beyond it, which takes four restarts (repeats) in each run. prices: also compare the cost of tokens.
    UserError for an unknown figure, and for a folder that is not a run.
    """
    rules = [parse_rule(text) for text in fail_if]
    opened = [each if isinstance(each, Run) else open_run(each) for each in (base, candidate)]
    one, other = (each.judged_by(prices=prices) for each in opened) if prices is not None else opened
    found = comparison.compare_runs(one.analysis, other.analysis)
    return Comparison(found, tuple(finding for rule in rules for finding in judge(found, rule)))
