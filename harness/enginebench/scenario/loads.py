"""The `loads` of a scenario: each entry multiplied out, and which deployments it is for.

Knows deployments only as the values that `only` may name. Sizes are counted before anything is built.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from enginebench.domain import Load, Search
from enginebench.domain.search import FOLLOWERS
from enginebench.errors import UserError, did_you_mean
from enginebench.inputs.source import Location, Source
from enginebench.scenario.defaults import completed, load_at
from enginebench.scenario.load_schema import Find, Loads
from enginebench.scenario.rules import check_entry
from enginebench.workload import check, largest_request

Chosen = Mapping[str, str | None]
"""engine, model, precision, runtime and label of a deployment."""


@dataclass
class LoadGroups:
    """All entries of `loads`. Remembers the deployments it was asked for, so that an entry without a deployment is found."""

    source: Source
    groups: Sequence[Loads]
    least_probe: int = 0
    """Fewest requests of a search's probe where the scenario does not say."""
    _met: list[Chosen] = field(default_factory=list)
    _known: dict[tuple[int, ...], tuple[tuple[Load, ...], tuple[Search, ...]]] = field(default_factory=dict)
    _largest: dict[Load, int | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for number, entry in enumerate(self.groups):
            check_entry(entry, number, self.source)

    def size(self, chosen: Chosen) -> int:
        """How many loads there are for a deployment, repeated ones included."""
        return sum(_size(self.groups[i]) for i in self._numbers_for(chosen))

    def of(self, chosen: Chosen) -> tuple[tuple[Load, ...], tuple[Search, ...]]:
        """The loads that are sent to a deployment, in order, and the searches on it."""
        self._met.append(chosen)
        numbers = self._numbers_for(chosen)
        if numbers not in self._known:  # hundreds of deployments share one list
            entries = [self.groups[i] for i in numbers]
            loads = dict.fromkeys(load for entry in entries if entry.find is None for load in _expanded(entry))
            searches = dict.fromkeys(search for entry in entries if entry.find for search in self._searches(entry, entry.find))
            self._known[numbers] = tuple(loads), tuple(searches)
        return self._known[numbers]

    def largest(self, load: Load) -> int | None:
        """Most tokens of prompt and output together in one request of a load; None if unknown."""
        load = _content(load)
        if load not in self._largest:
            self._largest[load] = largest_request(load, self.source.file.resolve().parent)
        return self._largest[load]

    def check_all_used(self) -> None:
        """UserError for an `only` with a value that no deployment has, or with values that no deployment has together."""
        for number, group in enumerate(self.groups):
            at: Location = ("loads", number, "only")
            for key, values in group.only.items():
                known = {value for chosen in self._met if (value := chosen[key]) is not None}
                for i, value in enumerate(values):
                    if value not in known:
                        here = self.source.place((*at, key), i)
                        advice = did_you_mean(value, known) if known else f"no deployment has a {key}"
                        raise self.source.error(f"no deployment has the {key} '{value}'", here, advice=advice)
            if not any(_applies(group, chosen) for chosen in self._met):
                raise self.source.error("no deployment has all of these values", at)

    def check_contents(self) -> None:
        """UserError at its entry for an expression, a data set or a trace that no load can be made of.

        A search is checked with its lightest and its heaviest load.
        """
        for number, entry in enumerate(self.groups):
            searches = tuple(self._searches(entry, entry.find)) if entry.find else ()
            for load in dict.fromkeys(map(_content, (search.base for search in searches) if entry.find else _expanded(entry))):
                self._check_content(number, load)
            for search in searches:
                self._check_content(number, load_at(search, search.stop), f"at `to`, {search.over} {search.stop:g}: ")

    def _check_content(self, number: int, load: Load, when: str = "") -> None:
        try:
            check(load, self.source.file.resolve().parent)
        except UserError as error:
            found = when + str(UserError(error.message, file=error.file, line=error.line))  # a data file's own name and line
            at = self._place(number, load, error.key or load.source)
            raise self.source.error(found, at, advice=error.advice) from None

    def _place(self, number: int, load: Load, key: str) -> Location:
        values, value = getattr(self.groups[number], key, None), getattr(load, key, None)
        at: Location = ("loads", number, "find" if values is None and self.groups[number].find else key)
        return self.source.place(at, values.index(value)) if isinstance(values, list) and value in values else at

    def _searches(self, entry: Loads, find: Find) -> Iterator[Search]:
        follows = tuple(name for name in FOLLOWERS if getattr(entry, name) is None)
        for point in _points(entry):
            start = int(find.start) if find.over == "concurrency" else find.start
            base = completed({**point, find.over: start}, self.least_probe)
            yield Search(base, find.over, find.start, find.to, find.precision, follows, self.least_probe)

    def _numbers_for(self, chosen: Chosen) -> tuple[int, ...]:
        return tuple(i for i, group in enumerate(self.groups) if _applies(group, chosen))


def _applies(group: Loads, chosen: Chosen) -> bool:
    return all(chosen[key] in values for key, values in group.only.items())


def _content(load: Load) -> Load:
    """The load without the fields that do not affect its content, so that loads with the same content are checked once."""
    return replace(load, concurrency=1, temperature=0.0, warmup_requests=0)


def _size(group: Loads) -> int:
    return math.prod(map(len, group.axes.values()))


def _points(entry: Loads) -> Iterator[dict[str, Any]]:
    axes = entry.axes
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def _expanded(entry: Loads) -> Iterator[Load]:
    return map(completed, _points(entry))
