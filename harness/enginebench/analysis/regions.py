"""Which part of a grid a set of its regimes is, in words: 'from 16 streams with prompts up to 1,024 tokens'. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from enginebench.analysis.conclusion import Scale
from enginebench.analysis.scales import Place
from enginebench.domain import Load

_LISTED = 3
"""A list has at most so many parts."""


@dataclass(frozen=True)
class Axes:
    """The axes of one grid with the words for them."""

    scale: Scale
    loads: Sequence[tuple[Place, Load]]

    def words(self, places: AbstractSet[Place]) -> str:
        """The places as a clause; '' where they are all that was measured."""
        all_of_them = {place for place, _ in self.loads}
        if places >= all_of_them:
            return ""
        parts = [self._rectangle(*each) for each in itertools.islice(self._rectangles(set(places)), _LISTED + 1)]
        return "; ".join(parts) if len(parts) <= _LISTED else f"at {len(places)} of {len(all_of_them)} loads"

    def _rectangles(self, places: set[Place]) -> Iterator[tuple[Sequence[str], Sequence[str]]]:
        """Contiguous rectangles that cover the places and nothing else that was measured; the largest first."""
        others, left = {place for place, _ in self.loads} - places, set(places)
        candidates = [(c, v) for c in _spans(self.scale.contexts) for v in self._runs(c, places, others)]
        while left:
            contexts, levels = max(candidates, key=lambda each: (len(_within(*each) & left), -len(each[0])))
            yield contexts, levels
            left -= _within(contexts, levels)

    def _runs(self, contexts: Sequence[str], places: set[Place], others: set[Place]) -> Iterator[Sequence[str]]:
        """The longest runs of levels that with these contexts have none of the other places; their ends are among the places."""
        marks = [
            -1 if any((c, level) in others for c in contexts) else int(any((c, level) in places for c in contexts))
            for level in self.scale.levels
        ]
        for free, run in itertools.groupby(enumerate(marks), key=lambda each: each[1] >= 0):
            held = [i for i, mark in run if mark > 0]
            if free and held:
                yield self.scale.levels[held[0] : held[-1] + 1]

    def _rectangle(self, contexts: Sequence[str], levels: Sequence[str]) -> str:
        at = "" if len(levels) == len(self.scale.levels) else self._levels(levels)
        of = "" if len(contexts) == len(self.scale.contexts) else self._contexts(contexts)
        return " ".join(filter(None, (at, of)))

    def _levels(self, span: Sequence[str]) -> str:
        first, last = span[0], span[-1]
        if len(span) == 1:
            return f"at {first}"
        if last == self.scale.levels[-1]:
            return f"from {first}"
        if first == self.scale.levels[0]:
            return f"up to {last}"
        return f"from {first} to {last}"

    def _contexts(self, span: Sequence[str]) -> str:
        """'with prompts up to 1,024 tokens' where only the prompt differs, else the lengths as they are."""
        shapes = {load.shape_text: load.token_lengths for _, load in self.loads}
        simple = all(isinstance(made, int) for made, _ in shapes.values()) and len({out for _, out in shapes.values()}) == 1
        if not simple or any(load.lengths is not None for _, load in self.loads):
            return f"with {' or '.join(span) if len(span) <= _LISTED else f'{span[0]} to {span[-1]}'}"
        first, last = (f"{shapes[each][0]:,}" for each in (span[0], span[-1]))
        if len(span) == 1:
            return f"with prompts of {first} tokens"
        if span[-1] == self.scale.contexts[-1]:
            return f"with prompts from {first} tokens"
        if span[0] == self.scale.contexts[0]:
            return f"with prompts up to {last} tokens"
        return f"with prompts of {first} to {last} tokens"


def _within(contexts: Sequence[str], levels: Sequence[str]) -> set[Place]:
    return {(context, level) for context in contexts for level in levels}


def _spans(axis: Sequence[str]) -> list[Sequence[str]]:
    return [axis[i:j] for i in range(len(axis)) for j in range(i + 1, len(axis) + 1)]
