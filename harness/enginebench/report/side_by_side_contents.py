"""What runs side by side show: names, the figures that any of them has, changes and doubts as text. Knows no output form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from enginebench.analysis import side_by_side as lines_of
from enginebench.analysis.side_by_side import Line
from enginebench.metrics.registry import metric_name
from enginebench.report.columns import Column, column, shown
from enginebench.report.run import Run

Extent: TypeAlias = Literal["summary", "latency", "text"]
"""The main figures, the latencies, or every figure of every line."""
UNLIKE = "(no)"
"""In place of a change that must not be given."""
_LATENCIES = ("ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99")


@dataclass(frozen=True)
class Contents:
    found: lines_of.SideBySide
    """The lines of deployment and load with a row per run, and what differs around them."""
    runs: tuple[Run, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The folders of the runs, by their names; with the folder above where two have the same."""
        names = [run.path.name for run in self.runs]
        return tuple(
            name if names.count(name) == 1 else f"{run.path.parent.name}/{name}" for name, run in zip(names, self.runs, strict=True)
        )

    def columns(self, extent: Extent = "summary") -> tuple[Column, ...]:
        """The figures to show, of those that any line has."""
        runs = self.found.runs
        if extent == "text":
            every = [each for run in runs for each in shown(run)]
            wanted = list({each.figure: each for each in every}.values())
        else:
            main = ("goodput", "output_throughput", "ttft_p50", "tpot_p50") if extent == "summary" else _LATENCIES
            wanted = [column(name, runs[0]) for name in main]
        have = {name for line in self.found.lines for row in line.rows if row is not None for name, its in row.figures.items() if its}
        return tuple(each for each in wanted if each.figure in have)


def change_text(line: Line, place: int, figure: str) -> str:
    """How a figure differs from that of the reference: '-14 %', '~', '+3 %?'; UNLIKE if it must not be compared; '' of the reference."""
    pair = line.pairs[place]
    its = pair.figures.get(figure) if pair is not None else None
    if its is None:
        row = line.rows[place]
        unlike = pair is not None and (pair.why_not is not None or metric_name(figure) in pair.withheld)
        return UNLIKE if unlike and row is not None and row.figures.get(figure) else ""
    if its.verdict == "alike":
        return "~"
    relative = its.change.relative
    text = "of 0" if relative is None else f"{100 * relative:+.0f} %" if abs(relative) >= 0.095 else f"{100 * relative:+.1f} %"
    return f"{text}?" if its.verdict in ("unsure", "unknown") else text


def doubt(line: Line, place: int) -> str:
    """Why a row is not to be trusted, or cannot be compared; '' if nothing speaks against it."""
    row, pair = line.rows[place], line.pairs[place]
    if row is None:
        return ""
    bad = row.status != "ok" or row.verdict in ("suspect", "invalid")
    its = f"{row.verdict if row.status == 'ok' else row.status}: {'; '.join(row.reasons)}" if bad else ""
    return "; ".join(filter(None, (its, pair.why_not if pair is not None and row.sound else "")))


def withheld(its: Contents) -> list[str]:
    """Why single figures must not be compared, each reason once with the runs that it concerns."""
    shown_names = {metric_name(each.figure) for each in its.columns("text")}
    found: dict[str, dict[str, None]] = {}
    for line in its.found.lines:
        for letter, pair in zip(its.found.letters, line.pairs, strict=True):
            for name, why in pair.withheld.items() if pair is not None else ():
                if name in shown_names:
                    found.setdefault(f"{name}: {why}", {})[letter] = None
    return [f"{', '.join(letters)} {why}" for why, letters in found.items()]
