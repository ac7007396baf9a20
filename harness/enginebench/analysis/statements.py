"""Sentences of a grid: regimes with the same leaders are merged, and what leads nowhere is said once. Decides nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from enginebench.analysis.conclusion import Grid, Outcome, Regime, Scale, Standing, Statement
from enginebench.analysis.regimes import Field
from enginebench.analysis.regions import Axes
from enginebench.analysis.scales import Group
from enginebench.analysis.sequential import Looks
from enginebench.domain.formatting import number, percent

_LEADS: tuple[Outcome, ...] = ("leads", "probably leads")
_NAMED = 3
"""A sentence names at most so many deployments and counts more of them."""


def grid(group: Group, field: Field | Looks) -> Grid | None:
    """The grid of a scale; None if it has no figure at all."""
    regimes = tuple(field.regime(load) for _, load in group.loads)
    found = tuple(each for each in regimes if each.outcome != "nothing")
    if not found:
        return None
    axes = Axes(group.scale, [((each.context, each.level), each.load) for each in found])
    merged: dict[tuple[object, ...], list[Regime]] = {}
    for each in found:
        merged.setdefault(_alike(each), []).append(each)
    statements = [_statement(its, axes, field.equal_within) for its in merged.values()]
    statements.sort(key=lambda its: (_ORDER.index(its.outcome) if its.of < len(found) else -1, -its.of))
    return Grid(group.scale, regimes, tuple(statements), tuple(_others(found, group.scale)), tuple(_left_out(found, axes)))


_ORDER: tuple[Outcome, ...] = ("leads", "probably leads", "equal", "cannot tell", "alone", "none holds", "nothing")


def _alike(regime: Regime) -> tuple[object, ...]:
    """Regimes with the same key are one statement: the same leader, sure or not; the same deployments that are equal, or not told apart."""
    if regime.outcome in _LEADS:
        return "leads", regime.leaders, _of_nothing(regime)
    return regime.outcome, tuple(sorted(regime.leaders))


def _of_nothing(regime: Regime) -> bool:
    """Whether the next has a figure of 0, of which nothing is a share."""
    return bool(regime.runner_up) and regime.margin is None


def _statement(regimes: Sequence[Regime], axes: Axes, margin: float) -> Statement:
    outcomes = {each.outcome for each in regimes}
    outcome: Outcome = next(each for each in _ORDER if each in outcomes)
    sure = sum(each.sure for each in regimes)
    if outcome == "leads" and not sure:
        outcome = "probably leads"
    leaders = regimes[0].leaders
    places = tuple((each.context, each.level) for each in regimes)
    where, lead = axes.words(set(places)), _lead(regimes)
    text = _text(outcome, regimes, where or _everywhere(axes), lead, sure, margin, axes.scale)
    suspect = any(each.suspect for each in regimes)
    return Statement(outcome, leaders, where, lead, sure, len(regimes), text, places, _why(regimes), suspect)


def _everywhere(axes: Axes) -> str:
    if len(axes.loads) == 2:
        return "at both loads tried"
    if len(axes.loads) > 2:
        return f"at all {len(axes.loads)} loads tried"
    (((context, level), _),) = axes.loads
    return f"at {level} of {context}"


def _text(outcome: Outcome, regimes: Sequence[Regime], where: str, lead: str, sure: int, margin: float, scale: Scale) -> str:
    names = regimes[0].leaders
    first = regimes[0].best
    if outcome in _LEADS:
        verb = "leads" if outcome == "leads" else "is probably ahead"
        if not lead and _of_nothing(regimes[0]):
            lead = f"{' or '.join(dict.fromkeys(each.runner_up for each in regimes))} reaches 0 {scale.unit}"
        ahead = f": {lead}" if lead else ": only it meets the SLO"
        return f"{names[0]} {verb} {where}{ahead}{_surety(regimes, sure)}"
    if outcome == "equal":
        return f"{_listed(names)} are equal {where} (within {percent(margin)}{f'; {lead}' if lead else ''})"
    if outcome == "cannot tell":
        return f"{_listed(names)} cannot be told apart {where}{f' ({lead})' if lead else ''}"
    if outcome == "none holds":
        return f"no deployment meets the SLO {where}" + (f" ({regimes[-1].why})" if regimes[-1].why else "")
    reached = [best.value.value for each in regimes if (best := each.best) is not None and best.value is not None]
    if first is None or not reached:
        return f"nothing is known {where}"
    unit = f"{scale.unit} within the SLO" if scale.figure == "goodput" else scale.unit
    return f"{names[0]} reaches {_range_of(reached)} {unit} {where}"


def _surety(regimes: Sequence[Regime], sure: int) -> str:
    """'; sure at 4 of 6 loads'; '' if it is sure, or not sure, at all of them."""
    return f"; sure at {sure} of {len(regimes)} loads" if 0 < sure < len(regimes) else ""


def _why(regimes: Sequence[Regime]) -> str:
    """The causes for which regimes are not sure, the commonest first."""
    whys = Counter(each.why for each in regimes if not each.sure and each.why)
    (first, _), *others = whys.most_common() or [("", 0)]
    return first + (f", and {len(others)} more" if others else "")


def _lead(regimes: Sequence[Regime]) -> str:
    """'3-5 % ahead of vllm'; '2.0-2.4x vllm' for far more; '' without a runner-up."""
    margins = [each.margin.value for each in regimes if each.margin is not None]
    seconds = tuple(dict.fromkeys(each.runner_up for each in regimes if each.runner_up and each.margin is not None))
    if not margins:
        return ""
    whom = " or ".join(seconds) if len(seconds) <= _NAMED else "the next"
    if min(margins) >= 1:
        return f"{_span([f'{1 + each:.2g}' if each < 9 else f'{1 + each:.0f}' for each in (min(margins), max(margins))])}x {whom}"
    return f"{_percents(min(margins), max(margins))} ahead of {whom}"


def _percents(low: float, high: float) -> str:
    """'3.2-4.0 %', '41-57 %': one digit after the point below 10 %."""
    places = 1 if 100 * low < 9.95 else 0
    return f"{_span([number(100 * each, places if 100 * each < 9.95 else 0) for each in (low, high)])} %"


def _span(ends: Sequence[str]) -> str:
    return ends[0] if ends[0] == ends[1] else "-".join(ends)


def _range_of(values: Sequence[float]) -> str:
    return _span([number(min(values)), number(max(values))])


def _listed(names: Sequence[str]) -> str:
    if len(names) > _NAMED + 1:
        return f"{names[0]} and {len(names) - 1} others"
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]


def _others(regimes: Sequence[Regime], scale: Scale) -> Iterator[str]:
    """'llamacpp: 12-51 % of the best' for each deployment that is nowhere among the leaders; many of them are counted."""
    leading = {name for each in regimes for name in each.leaders}
    always_second = {each.runner_up for each in regimes} if len({each.runner_up for each in regimes}) == 1 else set()
    rest = [name for name in scale.deployments if name not in leading | always_second]
    each_of = {name: [s for each in regimes for s in each.standings if s.deployment == name] for name in rest}
    known = {name: its for name, its in each_of.items() if any(s.share is not None or s.relation == "misses the SLO" for s in its)}
    if len(known) > _NAMED:
        yield f"the other {len(known)}: {_behind([s for its in known.values() for s in its])}"
    else:
        yield from (f"{name}: {_behind(its)}" for name, its in known.items())


def _left_out(regimes: Sequence[Regime], axes: Axes) -> Iterator[str]:
    """'c failed at 64 streams', 'd is invalid at all 9 loads tried, and not ranked'."""
    for why in ("failed", "invalid"):
        alike: dict[str, list[str]] = {}
        for name in axes.scale.deployments:
            places = {(r.context, r.level) for r in regimes for s in r.standings if s.deployment == name and s.left_out == why}
            if places:
                alike.setdefault(axes.words(places) or _everywhere(axes), []).append(name)
        for where, names in alike.items():
            verb = "failed" if why == "failed" else f"{'is' if len(names) == 1 else 'are'} invalid"
            yield f"{_listed(names)} {verb} {where}{', and not ranked' if why == 'invalid' else ''}"


def _behind(its: Sequence[Standing]) -> str:
    """'12-51 % of the best, misses the SLO at 2 of 6 loads'."""
    shares = [s.share for s in its if s.share is not None and s.relation != "misses the SLO"]
    misses, loads = sum(s.relation == "misses the SLO" for s in its), len(its)
    parts = [f"{_span([f'{100 * each:.0f}' for each in (min(shares), max(shares))])} % of the best"] if shares else []
    parts += [f"misses the SLO at {misses} of {loads} loads"] if misses else []
    return ", ".join(parts)
