"""The section on quality: perplexity, divergence and tasks of each deployment, and its quality against its speed."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.quality import Quality
from enginebench.domain import JSON, plain_object
from enginebench.domain.formatting import counted, number, percent
from enginebench.metrics.paired import Mean
from enginebench.report.blocks import Block, Cell, Panel, Paragraph, Plots, Table
from enginebench.report.columns import THROUGHPUT
from enginebench.report.plotly_traces import Trace, axis, frontier_line, panel_groups, value
from enginebench.report.section import Context, Section, Summary
from enginebench.report.sections.frontier import pareto

_CAPTION = (
    "Each point is one deployment at one load, with the 95 % interval of its perplexity over the windows of the text. Further down: better "
    "predictions. Further right: faster. Rings: no other deployment that keeps the rule is better in both. Crosses: not ranked."
)
_VERDICTS: Mapping[str, str] = {
    "reference": "reference", "no rule": "", "within": "keeps the rule", "breaks": "not ranked", "cannot tell": "cannot tell",
    "unknown": "unknown",
}  # fmt: skip


def _measured(analysis: Analysis) -> bool:
    return bool(analysis.quality)


def _blocks(context: Context) -> Iterator[Block]:
    analysis = context.analysis
    for model in context.models:
        its = [each for each in analysis.quality if each.model == model]
        if its:
            several = len({each.model for each in analysis.quality}) > 1
            yield _table(its, model if several else "")
            if any(each.tasks for each in its):
                yield _tasks(its)
    yield Paragraph(" ".join(_rules(analysis)))
    if panels := tuple(_panels(context)):
        yield Plots(_CAPTION, panels, tuple(context.slots))
    if missing := tuple(_missing(analysis)):
        yield Paragraph("Not measured: " + "; ".join(missing) + ".")


def _table(its: Sequence[Quality], model: str) -> Table:
    columns = [(name, unit, hint, text) for name, unit, hint, text in _COLUMNS if any(text(each) for each in its)]
    headings = tuple(Cell(name, unit, "num", hint=hint) for name, unit, hint, _ in columns)
    rows: list[tuple[str | Cell, ...]] = []
    for each in its:
        cells = (Cell(text(each) or "-", css="num") for _, _, _, text in columns)
        rows.append((each.deployment, *cells, _VERDICTS[each.verdict]))
    return Table(("deployment", *headings, "rule"), tuple(rows), caption=model)


def _interval(found: Mean | None, digits: int = 2, *, share: bool = False) -> str:
    """'8.14 [8.02 to 8.26]', or of a share '+1.2 % [+0.9 to +1.5]'."""
    if found is None:
        return ""
    if share:
        ends = "" if found.low is None or found.high is None else f" [{100 * found.low:+.{digits}f} to {100 * found.high:+.{digits}f}]"
        return f"{100 * found.value:+.{digits}f} %{ends}"
    ends = "" if found.low is None or found.high is None else f" [{found.low:.{digits}f} to {found.high:.{digits}f}]"
    return f"{found.value:.{digits}f}{ends}"


_COLUMNS: tuple[tuple[str, str, str, Callable[[Quality], str]], ...] = (
    ("perplexity", "95 % over windows", "e to the mean negative log-probability of the scored tokens", lambda q: _interval(q.perplexity)),
    ("increase", "over the reference", "of the perplexity, from the differences in the same windows",
     lambda q: _interval(q.increase, share=True)),
    ("under load", "over idle", "the same deployment while it answers other requests", lambda q: _interval(q.loaded, 3, share=True)),
    ("KL", "nats, at least", "of the most probable tokens from the reference's, teacher-forced",
     lambda q: _interval(q.divergence.kl, 4) if q.divergence else ""),
    ("same best token", "share of places", "as the reference", lambda q: percent(q.divergence.same_best.value) if q.divergence else ""),
    ("greedy agreement", "tokens before the first that differs", "of the continuations of the same prompts",
     lambda q: _interval(q.divergence.agreement, 1) if q.divergence else ""),
)  # fmt: skip


def _tasks(its: Sequence[Quality]) -> Table:
    rows = []
    for each in its:
        for task in each.tasks:
            score = task.score
            shown = f"{score.value:.4f}" + (f" ± {score.stderr:.4f}" if score.stderr is not None else "")
            p = "" if task.p is None else f"{task.p:.3g}"
            rows.append((each.deployment, score.task, score.metric, Cell(shown, css="num"), Cell(p, css="num")))
    heading = Cell("p", "McNemar, against the reference", "num", hint="that both answer the same documents correctly")
    return Table(("deployment", "task", "metric", Cell("score", "± standard error", "num"), heading), tuple(rows))


def _rules(analysis: Analysis) -> Iterator[str]:
    """One sentence for each rule by which a text was scored, and for each way in which an engine scored it."""
    scored = [its.record.perplexity for its in analysis.quality if its.record.perplexity is not None]
    for rule in dict.fromkeys(each.rule for each in scored):
        begins = f"after the tokens {', '.join(map(str, rule.begins))}" if rule.begins else "without a token before it"
        yield (
            f"{counted(rule.windows, 'window')} of {rule.window} tokens of '{rule.text}' (SHA-256 {rule.sha256[:12]}), "
            f"{rule.stride} apart, each {begins}; the last {rule.scored} tokens of each are scored."
        )
    ways: dict[str, list[str]] = {}
    for its in analysis.quality:
        if its.record.perplexity is not None:
            ways.setdefault(its.record.perplexity.how, []).append(its.deployment)
    yield from (f"By {how}: {', '.join(names)}." for how, names in ways.items())


def _panels(context: Context) -> Iterator[Panel]:
    known = {(its.model, its.deployment): its for its in context.analysis.quality if its.perplexity is not None}
    layout: dict[str, JSON] = {"xaxis": axis("output tok/s, all requests", rangemode="tozero"), "yaxis": axis("perplexity")}
    for title, rows in panel_groups(context.analysis):
        usable = [row for row in rows if row.sound and row.figures.get(THROUGHPUT.figure) and (row.deployment.model, row.name) in known]
        if not usable:
            continue
        level = max(row.load.level for row in usable)
        at = [(row, known[row.deployment.model, row.name]) for row in usable if row.load.level == level]
        best = pareto((value(row, THROUGHPUT), -its.perplexity.value) for row, its in at if row.ranked and its.perplexity is not None)
        traces = (frontier_line([(x, -y) for x, y in best]), *(_point(row, its, context) for row, its in at))
        yield Panel(f"{title}, {at[0][0].load.level_text}", traces, layout, tab=title)


def _point(row: Row, its: Quality, context: Context) -> Trace:
    style, found = context.slots[row.name], its.perplexity
    assert found is not None  # noqa: S101  # `_panels` keeps only those with one
    bars: Trace = {
        "type": "data", "symmetric": False, "thickness": 1.2, "width": 3,
        "array": [0.0 if found.high is None else found.high - found.value],
        "arrayminus": [0.0 if found.low is None else found.value - found.low],
    }  # fmt: skip
    text = f"<b>{html.escape(row.name)}</b><br>{number(value(row, THROUGHPUT))} tok/s, perplexity {_interval(found)}"
    text += "<br>not ranked" if row.excluded else ""
    return {
        "mode": "markers", "name": html.escape(row.name), "meta": {"slot": style.slot}, "x": [value(row, THROUGHPUT)], "y": [found.value],
        "error_y": bars, "marker": {"size": 9, "symbol": "x-thin" if row.excluded else style.symbol, "line": {"width": 2}}, "text": [text],
    }  # fmt: skip


def _missing(analysis: Analysis) -> Iterator[str]:
    for its in analysis.quality:
        yield from (f"{part.replace('_', ' ')} of {its.deployment}: {why}" for part, why in its.record.missing.items())


def _sentences(analysis: Analysis) -> Iterator[str]:
    """What the rule says, for the footnotes."""
    for its in analysis.quality:
        if its.verdict == "breaks":
            yield f"quality: {its.deployment} is not ranked: {its.why}"
        elif its.verdict in ("cannot tell", "unknown") and its.why:
            yield f"quality: {its.deployment}: {its.why}"
    yield from (f"quality: not measured: {text}" for text in _missing(analysis))


def _summaries(analysis: Analysis) -> Iterable[Summary]:
    lines = []
    for its in analysis.quality:
        parts = [f"{name} {text(its)}" for name, _, _, text in _COLUMNS if text(its)]
        parts += [f"{task.score.task} {task.score.metric} {task.score.value:.4f}" for task in its.tasks]
        parts += [_VERDICTS[its.verdict]] if _VERDICTS[its.verdict] else []
        lines.append(f"{its.deployment}: {', '.join(parts) or 'not measured'}")
    return [Summary("quality", tuple(lines))] if lines else []


def _data(analysis: Analysis) -> Mapping[str, JSON]:
    return {"quality": [plain_object(replace(its, record=replace(its.record, predictions=()))) for its in analysis.quality]}


def _finding(context: Context) -> str:
    """'c is not ranked for quality; all others are at most 0.6 % above a', by the upper ends of the intervals; of a single model."""
    found = context.analysis.quality
    broken = [its.deployment for its in found if its.verdict == "breaks"]
    ends = [its.increase.high for its in found if its.increase is not None and its.increase.high is not None and its.verdict != "breaks"]
    reference = {its.reference for its in found if its.increase is not None}
    barred = f"{', '.join(broken)} {'is' if len(broken) == 1 else 'are'} not ranked for quality" if broken else ""
    others = "all others are" if broken else "every perplexity is"
    rest = f"{others} at most {percent(max(0.0, *ends), 2)} above that of {min(reference)}" if ends and len(reference) == 1 else ""
    text = "; ".join(filter(None, (barred, rest)))
    return text[:1].upper() + text[1:] if not barred else text


SECTION = Section(
    "quality", "Quality beside speed", _blocks, label="Quality", needs=(_measured,), summaries=_summaries, notes=_sentences, data=_data,
    finding=_finding,
)  # fmt: skip
