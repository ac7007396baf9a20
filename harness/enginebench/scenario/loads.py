"""The `loads` of a scenario: each entry multiplied out, and which deployments it is for.

Knows deployments only as the values that `only` may name. Sizes are counted before anything is built.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from enginebench.errors import did_you_mean
from enginebench.nouns import Load
from enginebench.scenario.schema import Loads
from enginebench.scenario.source import Location, Source

Chosen = Mapping[str, str | None]
"""engine, model, precision, runtime and label of a deployment."""


@dataclass
class LoadGroups:
    """All entries of `loads`; remembers what was asked of them, so that an entry for nobody is found."""

    source: Source
    groups: Sequence[Loads]
    _met: list[Chosen] = field(default_factory=list)
    _known: dict[tuple[int, ...], tuple[Load, ...]] = field(default_factory=dict)

    def size(self, chosen: Chosen) -> int:
        """How many loads there are for a deployment, repeated ones included."""
        return sum(_size(self.groups[i]) for i in self._meant(chosen))

    def of(self, chosen: Chosen) -> tuple[Load, ...]:
        """What is sent to a deployment, in order."""
        self._met.append(chosen)
        meant = self._meant(chosen)
        if meant not in self._known:  # hundreds of deployments share one list
            self._known[meant] = tuple(dict.fromkeys(load for i in meant for load in _expanded(self.groups[i])))
        return self._known[meant]

    def check_all_meant(self) -> None:
        """UserError for an `only` that names a value no deployment has, or values that none has together."""
        for number, group in enumerate(self.groups):
            at: Location = ("loads", number, "only")
            for key, values in group.only.items():
                known = {value for chosen in self._met if (value := chosen[key]) is not None}
                for i, value in enumerate(values):
                    if value not in known:
                        here = (*at, key, i) if (*at, key, i) in self.source.lines else (*at, key)
                        advice = did_you_mean(value, known) if known else "no deployment has one"
                        raise self.source.error(f"no deployment has the {key} '{value}'", here, advice=advice)
            if not any(_meant(group, chosen) for chosen in self._met):
                raise self.source.error("no deployment has all of these values", at)

    def _meant(self, chosen: Chosen) -> tuple[int, ...]:
        return tuple(i for i, group in enumerate(self.groups) if _meant(group, chosen))


def _meant(group: Loads, chosen: Chosen) -> bool:
    """Whether these loads are for a deployment with these values."""
    return all(chosen[key] in values for key, values in group.only.items())


def _size(group: Loads) -> int:
    return math.prod(len(value) for name, value in group if name != "only" and value is not None)


def _expanded(entry: Loads) -> Iterator[Load]:
    axes = {name: value for name, value in entry if value is not None and name not in ("only", "requests", "warmup_requests")}
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        for requests in entry.requests or [max(16, 4 * point["concurrency"])]:
            for warmup in entry.warmup_requests or [point["concurrency"]]:
                yield Load(**point, requests=requests, warmup_requests=warmup)
