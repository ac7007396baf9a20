"""Two runs compared, in a terminal: the rows that changed, then counts, then what changed around them. At most 24 lines of 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from textwrap import shorten

from enginebench.analysis.busyness import compare_busyness
from enginebench.analysis.comparison import Changed, Comparison, Figure, weight
from enginebench.analysis.outcomes import WORDS, Moved, Outcome, outcomes
from enginebench.analysis.thresholds import Finding, far_limit
from enginebench.domain.formatting import counted, number, percent
from enginebench.report.columns import column, shown
from enginebench.report.layout import columns_of, joined, labelled

_MOST = {"worse": 6, "better": 4}
_MOST_CHANGES, _MOST_VERDICTS = 3, 4
_LIMIT = 0.05
"""For changes that cannot be tested, where no limit is given."""
_LABEL = 8
_REASON = 100
"""Characters of a reason; --all has it whole."""


def render_comparison(
    found: Comparison, findings: Sequence[Finding], limit: float | None, names: tuple[str, str], *, width: int | None = None
) -> str:
    """limit: that of the findings, if no thresholds were given. names: of the two runs, to show all."""
    width = columns_of(width)
    columns = {each.figure for analysis in (found.base, found.candidate) for each in shown(analysis)}
    judged = outcomes(found, columns, limit or _LIMIT)
    lines = [_head(found, judged, findings, limit)]
    for word in ("worse", "better"):
        lines += _rows(found, word.upper(), [each for each in judged if each.word == word], _MOST[word], width)
    lines += [line for label, text in _doubts(judged, limit or _LIMIT) for line in labelled(label, text, width)]
    lines += labelled("CHANGED", " · ".join(_around(found)), width)
    lines += [line for label, text in _verdicts(judged, findings, limit) for line in labelled(label, text, width)]
    lines += [f"{'more':<{_LABEL}}bench compare {shlex.join(names)} --all"]
    return joined([lines])


def _head(found: Comparison, judged: Sequence[Outcome], findings: Sequence[Finding], limit: float | None) -> str:
    """'compare · 15 loads paired · 2 worse, 1 better, 12 unchanged · limit 5 %'"""
    if not judged:
        return "compare · nothing could be compared: the runs have no deployment and load in common"
    counts = [f"{n} {word}" for word in WORDS if (n := sum(each.word == word for each in judged))]
    rules = counted(len({finding.rule for finding in findings}), "threshold")
    alone = sum(map(len, found.alone.values()))
    parts = ["compare", f"{counted(len(judged), 'load')} paired", ", ".join(counts), *([f"{alone} in one run only"] if alone else [])]
    return " · ".join([*parts, f"limit {percent(limit)}" if limit is not None else rules if findings else "no limit"])


def _rows(found: Comparison, label: str, changed: Sequence[Outcome], most: int, width: int) -> Iterator[str]:
    """A row for each pair, with its throughput or the figure that changed most."""
    if not changed:
        return
    names, loads = _names(found), _loads(found)
    rows: list[list[str]] = []
    for each in changed[:most]:
        moved = next(its for its in each.moved if its.figure.direction == each.word)
        key = id(each.pair.base)
        rows.append([names.get(key, ""), loads.get(key, ""), *_cells(moved, found)])
    for i, line in enumerate(_fitted(rows, width - _LABEL)):
        yield f"{'' if i else label:<{_LABEL}}{line}"
    if len(changed) > most:
        yield f"{'':<{_LABEL}}and {len(changed) - most} more: --all"


def _fitted(rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Columns two spaces apart without the empty ones; the first, a name, is cut where they are too wide."""
    columns = [cells for cells in zip(*rows, strict=True) if any(cells)]
    widths = [max(map(len, cells)) for cells in columns]
    widths[0] = min(widths[0], max(12, width - sum(widths[1:]) - 2 * (len(widths) - 1)))
    right = range(len(columns) - 3, len(columns) - 1)  # the values and the change
    for row in zip(*columns, strict=True):
        cells = [text if len(text) <= size else f"{text[: size - 3]}..." for text, size in zip(row, widths, strict=True)]
        yield "  ".join(text.rjust(widths[i]) if i in right else text.ljust(widths[i]) for i, text in enumerate(cells))


def _cells(moved: Moved, found: Comparison) -> list[str]:
    """'tok/s', '627 -> 541', '-14 %', '4 of 4 restarts'"""
    figure = moved.figure
    its = column(figure.name, found.base)
    label = its.unit if figure.name == "output_throughput" else f"{its.label} {its.unit}"
    values = [number(each.value * its.factor) for each in (figure.base, figure.candidate)]
    return [label, " -> ".join(values), _percent(figure), f"{moved.agreeing} of {counted(figure.candidate.n, 'restart')}"]


def _percent(figure: Figure) -> str:
    relative = figure.change.relative
    return "" if relative is None else f"{100 * relative:+.0f} %" if abs(relative) >= 0.095 else f"{100 * relative:+.1f} %"


def _names(found: Comparison) -> dict[int, str]:
    """Names of the base's rows, with the model where there are several; nothing if all have one name."""
    rows = [pair.base for pair in found.pairs]
    several = len({row.deployment.model for row in rows}) > 1
    names = {id(row): f"{row.deployment.model} {row.name}" if several else row.name for row in rows}
    return names if len(set(names.values())) > 1 or len(rows) == 1 else {}


def _loads(found: Comparison) -> dict[int, str]:
    """What differs between the loads of the base's rows: lengths, level, or both."""
    loads = {id(pair.base): pair.base.load for pair in found.pairs}
    parts = [
        {key: load.shape_text.removesuffix(" tokens") for key, load in loads.items()},
        {k: load.level_text for k, load in loads.items()},
    ]
    varying = [each for each in parts if len(set(each.values())) > 1]
    return {key: " x ".join(each[key] for each in varying) for key in loads}


def _doubts(judged: Sequence[Outcome], limit: float) -> Iterator[tuple[str, str]]:
    """Why untested changes count, and what could not be told or compared."""
    if untested := [its for each in judged for its in each.moved[:1] if not its.tested]:
        n = f"{untested[0].figure.base.n} + {untested[0].figure.candidate.n} restarts"
        less, more = (percent(abs(far_limit(sign * limit, above=sign > 0)), 2) for sign in (-1, 1))
        why = f"no restart disagrees and the change is beyond three times {percent(limit)} (-{less}, +{more})"
        yield "SURE", f"{n} are too few for a test; counted because {why}"
    if doubtful := [each.doubtful for each in judged if each.doubtful is not None]:
        most = max(doubtful, key=lambda figure: abs(figure.change.relative or 0.0))
        size = f"at most {_percent(most)} ({column(most.name).label})"
        yield "UNKNOWN", f"{counted(len(doubtful), 'load')}, {size}: too few restarts to tell; measure both runs with --repeats 4"
    if apart := [each.pair.why_not for each in judged if each.word == "not comparable"]:
        yield "UNKNOWN", f"{counted(len(apart), 'load')} not comparable: {_short(apart[0] or 'no figure in common')}"


def _around(found: Comparison) -> list[str]:
    """'vllm: version 0.33.0 -> 0.34.0 · enginebench same · machine as busy as before'"""
    merged: dict[tuple[str, str, str], list[str]] = {}
    for each in found.changed:
        merged.setdefault((each.what, each.base, each.candidate), []).append(each.of)
    texts = [
        _change(Changed(" and ".join(of[:2]) + " ..." * (len(of) > 2), *key))
        for key, of in sorted(merged.items(), key=lambda item: weight(item[0][0]))
    ]
    more = [f"{len(texts) - _MOST_CHANGES} more"] if len(texts) > _MOST_CHANGES else []
    versions = [analysis.run.enginebench for analysis in (found.base, found.candidate)]
    own = [] if versions[0] == versions[1] else [f"enginebench {versions[0]} -> {versions[1]}"]
    machine = ["another machine: no threshold is judged"] if found.moved else []
    nothing = ["nothing that is recorded"] if not (texts or own or machine) else []
    return [*machine, *texts[:_MOST_CHANGES], *more, *own, *nothing, compare_busyness(found.base, found.candidate)]


def _change(each: Changed) -> str:
    texts = [text if len(text) <= 24 else f"{text[:21]}..." for text in (each.base, each.candidate)]
    return f"{each.of}: {each.what} {texts[0]} -> {texts[1]}"


def _verdicts(judged: Sequence[Outcome], findings: Sequence[Finding], limit: float | None) -> Iterator[tuple[str, str]]:
    """What decides the exit code."""
    broken = [finding for finding in findings if finding.state == "broken"]
    if limit is not None:
        if broken:
            pairs = len({finding.pair for finding in broken})
            yield "FAIL", f"{pairs} of {counted(len(judged), 'load')} worse by more than {percent(limit)}: exit code 1"
        return
    for finding in broken[:_MOST_VERDICTS]:
        yield "FAIL", f"{finding.rule.text}: {finding.pair}: {finding.why}"
    if len(broken) > _MOST_VERDICTS:
        yield "", f"and {len(broken) - _MOST_VERDICTS} more: --all"
    for rule in dict.fromkeys(finding.rule for finding in findings):
        its = [finding for finding in findings if finding.rule == rule]
        if kept := sum(finding.state == "kept" for finding in its):
            yield "ok", f"{rule.text}: not broken in {kept} of {counted(len(its), 'load')}"
        if unknown := [finding for finding in its if finding.state == "inconclusive"]:
            yield "unknown", f"{rule.text}: inconclusive in {len(unknown)} of {counted(len(its), 'load')}: {_short(unknown[0].why)}"


def _short(reason: str) -> str:
    return shorten(reason, _REASON, placeholder=" ...")
