"""Can this cell be trusted? Runs every check on a cell and gives a verdict with reasons.

Computed whenever a run is read, so a sharper check also judges old results. Does not know particular checks or reports.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, TypeAlias

from enginebench.machine.folders import modules_in
from enginebench.metrics.registry import Trait, names_with
from enginebench.validity import checks
from enginebench.validity.check import Check, Finding, Severity
from enginebench.validity.context import Context

Verdict: TypeAlias = Literal["not run", "valid", "scoped", "suspect", "invalid"]

VERDICTS: Mapping[Verdict, str] = {
    "not run": "the cell was skipped or failed, so there is nothing to judge",
    "valid": "measures what the scenario asked for",
    "scoped": "sound within a scope, such as random weights: ranked, and the conclusion states the scope",
    "suspect": "ranked, but read the reason first; drawn with an open marker",
    "invalid": "does not measure what the scenario asked for: shown greyed, never ranked, drawn as a grey cross",
}
"""Verdict -> meaning, from the best to the worst."""

_NOT_OF_A_BATCH: tuple[Trait, ...] = (Trait.LATENCY, Trait.ONLINE)
_BATCH = "an in-process batch has a throughput, not a latency for each request"
"""All requests of a batch are sent at its start: a latency would include queueing that a served request does not have."""


_SHOWN = 2
"""Kinds of details in one footnote."""


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst of several verdicts; 'not run' without any."""
    return max(verdicts, key=list(VERDICTS).index, default="not run")


@dataclass(frozen=True)
class Reason:
    """A finding with the check that made it."""

    check: Check
    severity: Severity
    detail: str
    advice: str = ""
    """What to type or change next; empty: the check's advice."""
    excess: float = 1.0
    """`Finding.excess`."""

    @property
    def note(self) -> str:
        """Meaning and advice, as a footnote shows them after the details."""
        return f"{self.check.meaning} ({self.advice or self.check.advice})"

    def __str__(self) -> str:
        return f"{self.detail}: {self.note}"


def merged(reasons: Sequence[Reason]) -> str:
    """One line for what one check found in many cells: the worst detail of each kind, then meaning and the advice on the first."""
    kinds: dict[str, list[Reason]] = {}
    for reason in reasons:
        kinds.setdefault(re.sub(r"[\d.,]+", "", reason.detail), []).append(reason)
    parts = [max(same, key=lambda each: each.excess).detail + _of(same) for same in kinds.values()]
    more = f"; and {len(parts) - _SHOWN} more" if len(parts) > _SHOWN else ""
    return f"{'; '.join(parts[:_SHOWN])}{more}: {reasons[0].note}"


def _of(same: Sequence[Reason]) -> str:
    return f" (the worst of {len(same)})" if len({reason.detail for reason in same}) > 1 else ""


@dataclass(frozen=True)
class Judgement:
    """What all checks together say of a cell. A check that is in neither mapping and has no reason has passed."""

    verdict: Verdict = "not run"
    reasons: tuple[Reason, ...] = ()
    """Worst first, then in the order of the checks."""
    not_checkable: Mapping[str, str] = field(default_factory=dict)
    """Id of a check that could not run -> the evidence that is missing."""
    withheld: Mapping[str, str] = field(default_factory=dict)
    """Metric that means nothing in this cell -> why. The cell's other metrics are sound."""


@cache
def all_checks() -> tuple[Check, ...]:
    """The checks: modules in alphabetical order, each in the order of its declarations. ValueError for an id used twice."""
    found: dict[str, Check] = {}
    for module in modules_in(checks.__name__):
        declared = [each for each in vars(module).values() if isinstance(each, Check) and each.function.__module__ == module.__name__]
        for each in declared:
            if each.id in found:
                raise ValueError(f"two checks have the id {each.id}: in {found[each.id].topic}.py and in {each.topic}.py")
            found[each.id] = each
    return tuple(found.values())


def judge(cell: Context) -> Judgement:
    reasons: list[Reason] = []
    not_checkable: dict[str, str] = {}
    withheld: dict[str, str] = {}
    for check in all_checks():
        lacking, findings = _run(check, cell)
        if lacking:
            not_checkable[check.id] = lacking
        for finding in findings:
            reasons.append(Reason(check, finding.severity, finding.detail, finding.advice, finding.excess))
            if finding.withholds:
                withheld |= _metrics_with(check.withholds, check.meaning)
    if cell.record.deployment.runtime == "in-process":
        withheld |= _metrics_with(_NOT_OF_A_BATCH, _BATCH)
    order = list(VERDICTS)
    reasons.sort(key=lambda reason: -order.index(reason.severity))
    return Judgement(worst(["valid", *(reason.severity for reason in reasons)]), tuple(reasons), not_checkable, withheld)


def _run(check: Check, cell: Context) -> tuple[str | None, tuple[Finding, ...]]:
    """The evidence that the check lacks, and what it has found."""
    try:
        lacking = check.lacking(cell)
        return lacking, () if lacking else tuple(check.function(cell))
    except Exception as error:  # noqa: BLE001  # a faulty check must neither end a sweep nor count as passed
        return None, (Finding("suspect", f"the check itself failed ({type(error).__name__}: {error})"),)


def _metrics_with(traits: tuple[Trait, ...], why: str) -> dict[str, str]:
    return dict.fromkeys(names_with(*traits), why)
