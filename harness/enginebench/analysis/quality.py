"""The quality of each deployment from what was stored, compared with that of its model's reference, and whether it keeps the rule.

A deployment breaks the rule if the whole 95 % interval of its perplexity's increase lies above `max_increase`, or if the engine returned
log-probabilities that are no numbers. It is then not ranked. One whose interval holds the limit is ranked, and the report says so. Figures
that look like logarithms to another base than the reference's are not judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from enginebench.analysis.rows import Row
from enginebench.domain.formatting import percent
from enginebench.domain.ids import text_of
from enginebench.metrics.divergence import agreed, kl_of_top, same_best, stretch
from enginebench.metrics.paired import Mean, mcnemar, mean
from enginebench.records.launch import LaunchRecord, latest_quality
from enginebench.records.quality import Prediction, QualityRecord, Scored, TaskScore

_BASES = {"base 10": 1 / math.log(10), "base 2": 1 / math.log(2)}
"""What natural logarithms are multiplied by to become others."""
_NEAR, _ALIKE = 0.01, 0.99
_SLOPE = 0.15
"""A slope of log-probabilities that is farther from 1 is no precision of the same weights, if they correlate by `_ALIKE`."""

Verdict: TypeAlias = Literal["reference", "no rule", "within", "breaks", "cannot tell", "unknown"]


@dataclass(frozen=True)
class Divergence:
    """How far predictions are from those of the reference."""

    places: int
    """Places of the text in which both are known."""
    windows: int
    kl: Mean
    """KL(reference || deployment) in nats, at least; mean over windows of the mean over their places."""
    same_best: Mean
    """Share of the places in which both have the same most probable token."""
    agreed: tuple[int, ...] = ()
    """For each greedy continuation, equal tokens before the first that differs."""
    lengths: tuple[int, ...] = ()
    """Tokens of each longer continuation."""
    agreement: Mean | None = None
    """Mean of `agreed`."""


@dataclass(frozen=True)
class TaskResult:
    score: TaskScore
    p: float | None = None
    """Of McNemar's test against the reference on the same documents; None where it does not apply."""


@dataclass(frozen=True)
class Quality:
    """Of one deployment."""

    deployment: str
    """Its name in the run, as `Row.name`."""
    model: str
    record: QualityRecord
    verdict: Verdict
    reference: str = ""
    """Name of the deployment that it is compared with; empty for the reference itself, and without one."""
    perplexity: Mean | None = None
    """e to the mean negative log-probability of a token, with an interval over windows."""
    increase: Mean | None = None
    """Of the perplexity over the reference's, as a share, from the differences in the same windows."""
    loaded: Mean | None = None
    """The same under load, over that of the same deployment without."""
    divergence: Divergence | None = None
    tasks: tuple[TaskResult, ...] = ()
    why: str = ""
    """Why it breaks the rule, or why that is unknown."""


def nats_per_token(scored: Scored) -> list[float]:
    """Of each window."""
    return [each / scored.rule.scored for each in scored.nats]


def qualities(rows: Sequence[Row], launches: Mapping[str, LaunchRecord], check: Mapping[str, object]) -> tuple[Quality, ...]:
    """One for each deployment whose quality was asked for, in the order of the rows. check: of the scenario, as it was stored."""
    label = check.get("reference")
    measured = {text_of(its.deployment): its.deployment for its in launches.values() if its.quality is not None}
    records = {text: record for text, its in measured.items() if (record := latest_quality(launches, its)) is not None}
    first = {(row.deployment.model, row.name): row for row in reversed(rows)}
    order = dict.fromkeys((row.deployment.model, row.name) for row in rows)
    found = [(first[key], record) for key in order if (record := records.get(text_of(first[key].deployment))) is not None]
    perplexity = check.get("perplexity")
    limit = perplexity.get("max_increase") if isinstance(perplexity, Mapping) else None
    out = []
    for row, record in found:
        of_model = [each for each in found if each[0].deployment.model == row.deployment.model]
        named = any(each.deployment.label == label for each in rows if label and each.deployment.model == row.deployment.model)
        out.append(_quality(row, record, _reference(of_model, label if named else None), limit))
    return tuple(out)


def _reference(found: Sequence[tuple[Row, QualityRecord]], label: object) -> tuple[Row, QualityRecord] | None:
    """The one with this label; without a label the one with the lowest perplexity. None if it has no record."""
    named = [each for each in found if label and each[0].deployment.label == label]
    known = [(sum(its.perplexity.nats) / its.perplexity.rule.windows, i) for i, (_, its) in enumerate(found)
             if its.perplexity is not None and its.perplexity.nats]  # fmt: skip
    return named[0] if named else found[min(known)[1]] if known and label is None else None


def _quality(row: Row, record: QualityRecord, reference: tuple[Row, QualityRecord] | None, limit: object) -> Quality:
    scored, its = record.perplexity, Quality(row.name, row.deployment.model, record, "unknown")
    if scored is not None and scored.nats and (level := mean(nats_per_token(scored))) is not None:
        its = replace(its, perplexity=level.exp(), loaded=_increase(record.under_load, scored))
    if scored is not None and scored.invalid:
        why = f"{scored.invalid} scored tokens have a log-probability that is no finite number, or above 0"
        return replace(its, verdict="breaks", why=why)
    if reference is None or reference[0] is row:
        its = replace(
            its,
            verdict="reference" if reference else "unknown",
            why=record.missing.get("perplexity", "" if reference else "the reference was not measured"),
        )
        return replace(its, tasks=tuple(map(TaskResult, record.tasks)))
    other_row, other = reference
    its = replace(
        its, reference=other_row.name, increase=_increase(scored, other.perplexity), divergence=_divergence(record, other),
        tasks=tuple(TaskResult(task, _paired(task, other.tasks)) for task in record.tasks),
    )  # fmt: skip
    return _judged(its, other, limit)


def _judged(its: Quality, other: QualityRecord, limit: object) -> Quality:
    """With the verdict by the interval."""
    found = its.increase
    if found is None:
        return replace(its, verdict="unknown", why=_incomparable(its.record, other))
    if doubt := _other_unit(its, other):
        return replace(its, verdict="unknown", why=doubt)
    if not isinstance(limit, int | float):
        return replace(its, verdict="no rule")
    if found.low is None or found.high is None:
        return replace(its, verdict="cannot tell", why="one window has no interval")
    text = f"perplexity {percent(found.value, 2)} above {its.reference} [{percent(found.low, 2)} to {percent(found.high, 2)}]"
    if found.low > limit:
        return replace(its, verdict="breaks", why=f"{text}, more than {percent(limit, 2)}")
    if found.high <= limit:
        return replace(its, verdict="within")
    return replace(its, verdict="cannot tell", why=f"{text}, not shown to be more or less than {percent(limit, 2)}")


def _other_unit(its: Quality, other: QualityRecord) -> str:
    """That its logarithms are the reference's in another unit; '' if nothing speaks for it."""
    for whose, power in (("its", 1), (f"{its.reference}'s", -1)):
        for base, unit in _BASES.items():
            if _times(its.record.perplexity, other.perplexity, unit**power):
                return f"{whose} log-probabilities are {unit:.3g} times the other's in every window, as logarithms to {base} are"
    theirs = {(each.window, each.place): _distribution(each) for each in other.predictions}
    pairs = [
        (theirs[each.window, each.place], _distribution(each)) for each in its.record.predictions if (each.window, each.place) in theirs
    ]
    found_slope = stretch(pairs)
    if found_slope is None or found_slope[1] < _ALIKE or abs(found_slope[0] - 1) <= _SLOPE:
        return ""
    slope = found_slope[0]
    return f"its log-probabilities are {slope:.3g} times those of {its.reference}: another temperature, or another base of the logarithm"


def _times(scored: Scored | None, base: Scored | None, factor: float) -> bool:
    """Whether the windows' figures are the others', each times the factor, to within 1 %."""
    if scored is None or base is None or len(scored.nats) < 2 or len(scored.nats) != len(base.nats):
        return False
    return all(b > 0 and abs(a / b / factor - 1) < _NEAR for a, b in zip(scored.nats, base.nats, strict=True))


def _incomparable(record: QualityRecord, other: QualityRecord) -> str:
    if record.perplexity is None:
        return record.missing.get("perplexity", "its perplexity was not measured")
    if other.perplexity is None or not other.perplexity.nats:
        return "the reference has no perplexity"
    return "its windows are not those of the reference: another text, tokenizer or rule"


def _increase(scored: Scored | None, base: Scored | None) -> Mean | None:
    """Of a perplexity over another on the same windows; None where they are not the same."""
    if scored is None or base is None or scored.rule != base.rule or not scored.nats or not base.nats:
        return None
    differences = [a - b for a, b in zip(nats_per_token(scored), nats_per_token(base), strict=True)]
    found = mean(differences)
    return found.exp(less=1.0) if found is not None else None


def _divergence(record: QualityRecord, other: QualityRecord) -> Divergence | None:
    if record.perplexity is None or other.perplexity is None or record.perplexity.rule != other.perplexity.rule:
        return None
    theirs = {(each.window, each.place): each for each in other.predictions}
    pairs = [(its, theirs[its.window, its.place]) for its in record.predictions if (its.window, its.place) in theirs]
    by_window: dict[int, list[tuple[float, bool]]] = {}
    for its, reference in pairs:
        apart = kl_of_top(_distribution(reference), _distribution(its))
        by_window.setdefault(its.window, []).append((apart, same_best(_distribution(reference), _distribution(its))))
    kl = mean([math.fsum(apart for apart, _ in each) / len(each) for each in by_window.values()])
    same = mean([sum(best for _, best in each) / len(each) for each in by_window.values()])
    if kl is None or same is None:
        return None
    outputs = {each.window: each.ids for each in other.continuations}
    both = [(each.ids, outputs[each.window]) for each in record.continuations if each.window in outputs]
    common = tuple(agreed(a, b) for a, b in both)
    return Divergence(len(pairs), len(by_window), kl, same, common, tuple(max(len(a), len(b)) for a, b in both), mean(common))


def _distribution(its: Prediction) -> Mapping[int, float]:
    return dict(zip(its.ids, its.logprobs, strict=True))


def _paired(task: TaskScore, others: Sequence[TaskScore]) -> float | None:
    """p of McNemar's test on the same documents."""
    for other in others:
        if (other.task, other.metric) == (task.task, task.metric) and task.right and other.documents == task.documents:
            return mcnemar(task.right, other.right) if len(other.right) == len(task.right) else None
    return None


def without_broken(rows: Sequence[Row], found: Sequence[Quality]) -> tuple[Row, ...]:
    """The rows, of which those that break the rule are not ranked."""
    broken = {(its.model, its.deployment): its.why for its in found if its.verdict == "breaks"}
    return tuple(
        replace(row, excluded=why, reasons=(why, *row.reasons)) if (why := broken.get((row.deployment.model, row.name))) else row
        for row in rows
    )
