"""Which deployment to run for a model if the load is mixed or unknown: the one that loses least over all loads. Decides no regime."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from enginebench.analysis.conclusion import Capacity, Choice, Grid, Regime
from enginebench.analysis.headline import name_of
from enginebench.domain.formatting import counted, percent


def choice(model: str, grids: Sequence[Grid], limits: Sequence[Capacity], commands: Mapping[str, str]) -> Choice | None:
    """With an SLO the deployment that holds the most, else the one whose typical share of the best is the highest; None without either.

    Where all hold every level that was tried, they are not told apart by it.
    """
    held = [its for its in limits if its.model == model and its.level is not None]
    tell = any(its.bound != "at least" for its in limits if its.model == model)
    found = (_by_capacity(held) if held and tell else None) or _by_regimes(model, grids) or (_by_capacity(held) if held else None)
    return Choice(model, *found, commands.get(f"{model}/{found[0]}", "")) if found is not None else None


def _by_capacity(held: Sequence[Capacity]) -> tuple[str, str]:
    """A deployment that holds nothing with one of the contexts comes after those that hold something with each."""
    best = {(its.settings, its.context, its.unit): 0.0 for its in held}
    for its in held:
        key = its.settings, its.context, its.unit
        best[key] = max(best[key], its.level or 0.0)
    shares: dict[str, list[float]] = {}
    for its in held:
        shares.setdefault(its.deployment, []).append((its.level or 0.0) / best[its.settings, its.context, its.unit])
    name = max(shares, key=lambda each: _typical(shares[each]))
    return name, "holds " + " and ".join(its.text for its in held if its.deployment == name) + " within the SLO"


def _by_regimes(model: str, grids: Sequence[Grid]) -> tuple[str, str] | None:
    every = [its for its in grids if its.scale.model == model]
    if not every:
        return None
    first = max(every, key=lambda its: len(its.regimes))
    ours = [its for its in every if set(its.scale.deployments) == set(first.scale.deployments)]  # others were not asked the same
    regimes = [each for its in ours for each in its.regimes if each.outcome not in ("nothing", "none holds")]
    names = dict.fromkeys(s.deployment for each in regimes for s in each.standings if s.share is not None)
    if not names:
        return None
    shares = {name: _shares(name, regimes) for name in names}
    name = max(names, key=lambda each: _typical(shares[each]))
    among = sum(name in each.leaders for each in regimes)
    lowest = min(shares[name], default=1.0)
    text = f"best or not told from the best at {among} of {counted(len(regimes), 'load')}"
    text += f" ({' and '.join(map(name_of, ours))})" if len(ours) < len(every) else ""
    return name, text + (f", never below {percent(math.floor(100 * lowest) / 100, 2)} of the best" if among < len(regimes) else "")


def _shares(name: str, regimes: Sequence[Regime]) -> list[float]:
    """The share of the best in each regime where the deployment has a figure and meets the SLO."""
    found = [s for each in regimes for s in each.standings if s.deployment == name and s.relation != "misses the SLO"]
    return [s.share for s in found if s.share is not None and s.share > 0]


def _typical(shares: Sequence[float]) -> tuple[int, float]:
    """First by the number of loads, then by the geometric mean of the shares."""
    return len(shares), sum(map(math.log, shares)) / len(shares) if shares else 0.0
