"""Two runs compared as a user of Python sees it: every change, verdicts on thresholds; as text, Markdown and data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from enginebench.analysis import comparison
from enginebench.analysis.busyness import compare_busyness
from enginebench.analysis.comparison import Changed, Figure, Pair
from enginebench.analysis.frames import figures_frame
from enginebench.analysis.rows import Row
from enginebench.analysis.thresholds import Finding, default_rules, fails, judge, parse_rule
from enginebench.domain import JSON, plain, plain_object
from enginebench.domain.formatting import percent, printable, relative_change
from enginebench.errors import UserError
from enginebench.metrics.costs import Prices
from enginebench.metrics.registry import unit_of
from enginebench.metrics.statistics import CONFIDENCE, Estimate, repeats_needed
from enginebench.report.columns import column, estimate_data, full_text, shown
from enginebench.report.export import escape_markdown
from enginebench.report.run import Run, open_run

if TYPE_CHECKING:
    import pandas as pd

COMPARISON_SCHEMA = 2
"""Version of `to_dict`. Raise it when a reader of the old form would misread the new one."""

_HEADINGS = ("", "base", "candidate", "change", "p", "n", "")
_RULE = (":--", "--:", "--:", "--:", "--:", "--:", ":--")
_MOST = 20
"""Further changes between the runs are only counted; the data has all."""
_WORDS = {"alike": "~", "unknown": "?"}
_STATES = {"broken": "FAIL", "kept": "ok", "inconclusive": "inconclusive"}


@dataclass(frozen=True)
class Comparison:
    pairs: comparison.Comparison
    """The deployments and loads that both runs have, with the change of every figure; what differs around them."""
    findings: tuple[Finding, ...] = ()
    """One per threshold and pair."""
    limit: float | None = None
    """The share by which throughput, TTFT and TPOT must not be worse, if thresholds were not given."""

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

    @property
    def warning(self) -> str:
        """Why this should not be compared; '' if nothing is known to be unlike."""
        reasons = "; ".join(each.reason for each in self.pairs.unlike)
        return f"compared although it should not be: {reasons}" if reasons else ""

    def to_summary(self, names: tuple[str, str] = ("BASE", "CANDIDATE"), *, width: int | None = None) -> str:
        """For the terminal: the rows that changed, counts, what changed around them. names: of the runs, for the command that shows all."""
        from enginebench.report.comparison_summary import render_comparison

        head = f"{printable(self.warning)}\n\n" if self.warning else ""
        return head + render_comparison(self.pairs, self.findings, self.limit, names, width=width)

    def to_text(self) -> str:
        """Everything, for the terminal: what changed, one table per pair, the verdicts."""
        parts = [[self.warning] if self.warning else [], [f"{side:<10} {title}" for side, title in _runs(self.pairs)]]
        parts += [[heading, *(f"  {line}" for line in lines)] for heading, lines in _around(self.pairs)]
        for pair in self.pairs.pairs:
            rows = list(_rows(self.pairs, pair, self.findings))
            lines = [*(_aligned([_HEADINGS, *rows]) if rows else [_nothing(pair)]), *_doubts(pair)]
            parts.append([pair.name, *(f"  {line}" for line in lines)])
        parts += [list(_notes(self.pairs)), [f"{state}: {text}" for state, text in _verdicts(self.findings)], [_sentence(self.pairs)]]
        return "\n\n".join("\n".join(printable(line) for line in part) for part in parts if part) + "\n"

    def to_markdown(self) -> str:
        """The same as GitHub-flavoured Markdown, with the verdicts first."""
        parts = [[f"**{escape_markdown(self.warning)}**"]] if self.warning else []
        parts += [[f"**{escape_markdown(_sentence(self.pairs))}**"]]
        parts += [[f"- **{state}**: {escape_markdown(text)}" for state, text in _verdicts(self.findings)]]
        parts += [[f"- {side}: {escape_markdown(title)}" for side, title in _runs(self.pairs)]]
        parts += [[f"{heading}:\n", *(f"- {escape_markdown(line)}" for line in lines)] for heading, lines in _around(self.pairs)]
        for pair in self.pairs.pairs:
            rows = [tuple(map(escape_markdown, row)) for row in _rows(self.pairs, pair, self.findings)]
            table = [f"| {' | '.join(row)} |" for row in (_HEADINGS, _RULE, *rows)]
            lines = [*(table if rows else [escape_markdown(_nothing(pair))]), *(f"\n{escape_markdown(each)}" for each in _doubts(pair))]
            parts.append([f"{escape_markdown(pair.name)}\n", *lines])
        parts.append([f"- {escape_markdown(note)}" for note in _notes(self.pairs)])
        return "\n\n".join("\n".join(part) for part in parts if part) + "\n"

    def to_dict(self) -> JSON:
        """What `bench compare --json` prints: every figure that both runs have, in SI units and shares."""
        runs = (("base", self.pairs.base), ("candidate", self.pairs.candidate))
        return {
            "schema": COMPARISON_SCHEMA,
            **{side: {"name": run.run.name, "created_at": run.run.created_at} for side, run in runs},
            "sentence": _sentence(self.pairs),
            "unlike": [plain(each) for each in self.pairs.unlike],
            "changed": [plain(each) for each in self.pairs.changed],
            "different_machines": self.pairs.moved,
            "busyness": compare_busyness(self.pairs.base, self.pairs.candidate),
            "alone": plain(self.pairs.alone),
            "pairs": [_pair_data(pair) for pair in self.pairs.pairs],
            "findings": [{**plain_object(each), "rule": each.rule.text} for each in self.findings],
        }


def compare(
    base: Run | str | Path,
    candidate: Run | str | Path,
    *,
    fail_if: Sequence[str] = (),
    limit: float | None = None,
    prices: Prices | None = None,
    anyway: bool = False,
) -> Comparison:
    """What changed from one run to another.

    base, candidate: runs or their folders. fail_if: thresholds such as 'ttft.p99 > +5%'; one is broken when the whole 95 % interval of
    the change lies beyond it, which takes four restarts (repeats) in each run, or, with fewer, when the change is far beyond it
    (`enginebench.analysis.thresholds`). limit: without fail_if, the share by which output tokens/s, TTFT and TPOT must not be worse.
    prices: also compare the cost of tokens. anyway: also compare imported figures that are not alike; the reason is in `warning`.
    UserError for an unknown figure, for a folder that is not a run, and for imported figures that are not alike in what was served, in
    load, or in what the client could do, with what would make it possible.
    """
    rules = [parse_rule(text) for text in fail_if]
    limit = None if rules else limit
    opened = [each if isinstance(each, Run) else open_run(each) for each in (base, candidate)]
    one, other = (each.judged_by(prices=prices) for each in opened) if prices is not None else opened
    found = comparison.compare_runs(one.analysis, other.analysis, anyway=anyway)
    if found.unlike and not anyway:
        first = found.unlike[0]
        more = f" (and {len(found.unlike) - 1} more)" if len(found.unlike) > 1 else ""
        raise UserError(f"cannot be compared: {first.reason}{more}", advice=f"{first.remedy}; or show it all the same: --anyway")
    findings = [finding for rule in rules for finding in judge(found, rule)]
    if limit is not None:
        judged = (finding for rule in default_rules(limit) for finding in judge(found, rule))
        findings = [finding for finding in judged if finding.state != "inconclusive"]
    return Comparison(found, tuple(findings), limit)


# -- content -------------------------------------------------------------------------------------------------------------


def _runs(found: comparison.Comparison) -> Iterator[tuple[str, str]]:
    for side, analysis in (("base", found.base), ("candidate", found.candidate)):
        yield side, f"{analysis.run.name} of {analysis.run.created_at}, enginebench {analysis.run.enginebench}"


def _around(found: comparison.Comparison) -> Iterator[tuple[str, list[str]]]:
    lines = list(_changed(found.changed))
    more = [f"and {len(lines) - _MOST:,} more: --json has them"] if len(lines) > _MOST else []
    yield "what changed", [*lines[:_MOST], *more] if lines else ["nothing that is recorded"]
    if found.moved:
        yield "the machines differ", ["a difference may come from the machine, so no threshold is judged"]
    for side, names in found.alone.items():
        if names:
            yield f"only in the {side}", list(names)


def _changed(changed: Iterable[Changed]) -> Iterator[str]:
    """One line per change, with all deployments that have it."""
    names_by_change: dict[tuple[str, str, str], list[str]] = {}
    for each in changed:
        names_by_change.setdefault((each.what, each.base, each.candidate), []).append(each.of)
    for (what, base, candidate), names in names_by_change.items():
        yield f"{', '.join(names)}: {what} {base} -> {candidate}"


def _rows(found: comparison.Comparison, pair: Pair, findings: Sequence[Finding]) -> Iterator[tuple[str, ...]]:
    """A line of cells per figure, in the order of `_HEADINGS`."""
    columns = {each.figure: each for analysis in (found.base, found.candidate) for each in shown(analysis)}
    judged = {finding.rule.figure: "" for finding in findings}
    judged |= {finding.rule.figure: "FAIL" for finding in findings if finding.pair == pair.name and finding.state == "broken"}
    for name in dict.fromkeys([*columns, *judged]):
        if figure := pair.figures.get(name):
            its = columns.get(name) or column(name, found.base)
            values = (full_text(figure.base, its), full_text(figure.candidate, its), _change_text(figure))
            p = "" if figure.change.p is None else f"{figure.change.p:.2g}"
            n = f"{figure.base.n}+{figure.candidate.n}"
            yield its.heading, *values, p, n, f"{_word(figure)} {judged.get(name, '')}".strip()


def _change_text(figure: Figure) -> str:
    its = figure.change
    return "of 0" if its.relative is None else relative_change(its.relative, its.low, its.high)


def _word(figure: Figure) -> str:
    return f"{figure.direction}?" if figure.verdict == "unsure" else _WORDS.get(figure.verdict, figure.verdict)


def _nothing(pair: Pair) -> str:
    return f"not comparable: {pair.why_not or 'the runs have no figure in common'}"


def _sides(pair: Pair) -> tuple[tuple[str, Row], ...]:
    return ("base", pair.base), ("candidate", pair.candidate)


def _doubts(pair: Pair) -> Iterator[str]:
    """The verdict of each side that is compared although there is a reason to doubt it."""
    for side, row in _sides(pair):
        if pair.why_not is None and row.verdict != "valid" and row.reasons:
            yield f"the {side} is {row.verdict}: {'; '.join(row.reasons)}"


def _notes(found: comparison.Comparison) -> Iterator[str]:
    """The meaning of the marks and intervals in this comparison."""
    figures = [figure for pair in found.pairs for figure in pair.figures.values()]
    verdicts = {figure.verdict for figure in figures}
    covered = {(f.base.n, f.candidate.n): f.change.coverage for f in figures if f.change.low is not None}
    if covered:
        shares = ", ".join(f"{percent(share, 2)} for n={a}+{b}" for (a, b), share in sorted(covered.items()))
        yield f"change [low to high]: the median ratio of restarts; the interval holds the true ratio with a probability of {shares}"
    if "alike" in verdicts:
        yield f"~: cannot be told apart (exact rank test over the restarts, p >= {1 - CONFIDENCE:.2g})"
    if "unsure" in verdicts:
        yield f"better?, worse?: all restarts agree, but {repeats_needed()} in each run are needed to be sure"
    if "unknown" in verdicts:
        yield f"?: a single restart, so the variation is unknown: --repeats {repeats_needed()}"
    if verdicts & {"better", "worse", "changed"}:
        yield "one of twenty unchanged figures is expected to be called changed; differences between two days affect every figure"


def _verdicts(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """Each broken and each inconclusive threshold; for kept ones the number of pairs that keep them."""
    for state in ("broken", "inconclusive"):
        for finding in findings:
            if finding.state == state:
                yield _STATES[state], f"{finding.rule.text}: {finding.pair}: {finding.why}"
    for rule in dict.fromkeys(finding.rule for finding in findings):
        if kept := sum(finding.rule == rule and finding.state == "kept" for finding in findings):
            yield _STATES["kept"], f"{rule.text}: not broken in {kept} of {sum(finding.rule == rule for finding in findings)} pairs"


def _sentence(found: comparison.Comparison) -> str:
    """How many of the figures in reports changed, over all pairs."""
    names = {each.figure for analysis in (found.base, found.candidate) for each in shown(analysis)}
    figures = [figure for pair in found.pairs for name, figure in pair.figures.items() if name in names]
    if not figures:
        return "Nothing could be compared."
    counts = {word: sum(figure.verdict == word for figure in figures) for word in ("worse", "better", "changed", "alike")}
    unsure = len(figures) - sum(counts.values())
    parts = [f"{n} {word}" for word, n in counts.items() if n and word != "alike"]
    parts += [f"{counts['alike']} cannot be told apart"] if counts["alike"] else []
    parts += [f"{unsure} have too few restarts to tell"] if unsure else []
    return f"Of {len(figures)} figures in {sum(bool(pair.figures) for pair in found.pairs)} pairs: {', '.join(parts)}."


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns two spaces apart, all right-aligned but the first and the last."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = [(str.ljust if i in (0, len(widths) - 1) else str.rjust) for i in range(len(widths))]
    return ["  ".join(align(text, width) for align, text, width in zip(aligned, row, widths, strict=True)).rstrip() for row in rows]


# -- data ----------------------------------------------------------------------------------------------------------------


def _pair_data(pair: Pair) -> JSON:
    return {
        "name": pair.name, "deployment": {"base": pair.base.deployment.shown, "candidate": pair.candidate.deployment.shown},
        "load": plain(pair.base.load), "why_not": pair.why_not, "withheld": plain(pair.withheld),
        "verdicts": {side: {"verdict": row.verdict, "reasons": list(row.reasons)} for side, row in _sides(pair)},
        "figures": {name: _figure_data(figure) for name, figure in pair.figures.items()},
    }  # fmt: skip


def _figure_data(figure: Figure) -> JSON:
    known = {"unit": unit_of(figure.name), "verdict": figure.verdict, "direction": figure.direction}
    return {**known, "base": _side(figure.base), "candidate": _side(figure.candidate), "change": plain(figure.change)}


def _side(found: Estimate) -> JSON:
    return {**estimate_data(found), "values": list(found.values)}
