<<<<<<< HEAD
"""How much of the prompts of a load a prefix cache could reuse, from the prompts themselves. Does not know engines."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from enginebench.workload.prompts import Prompt


def reusable(prompts: Sequence[Prompt], before: Sequence[Prompt] = ()) -> int | None:
    """Tokens of `prompts` that an earlier prompt begins with as well, summed; before: prompts that were sent ahead of them.

    The last token of a prompt counts as never reused, because an engine must compute it to continue. None where token ids are unknown, or
    later turns repeat answers that are unknown before the load.
    """
    ordered: list[tuple[int, ...]] = []
    total = 0
    for number, prompt in enumerate((*before, *prompts)):
        if prompt.ids is None or prompt.turn:
            return None
        # Of all earlier prompts in sorted order, a neighbour has the longest beginning in common.
        place = bisect_left(ordered, prompt.ids)
        neighbours = ordered[max(0, place - 1) : place + 1]
        if number >= len(before):
            total += min(max((common(prompt.ids, each) for each in neighbours), default=0), len(prompt.ids) - 1)
        ordered.insert(place, prompt.ids)
    return total


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the beginning that two sequences share, by halving: slices are compared faster than items in a loop."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
=======
"""How much of the prompts a prefix cache could give: the hit rate of a cache that forgets nothing and keeps whole prefixes.

Computed from the parts that prompts share. Does not know engines: one with a smaller cache, or with blocks, has a lower rate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from enginebench.workload.outlines import Outline


@dataclass(frozen=True)
class Reuse:
    """Tokens of the prompts of a load."""

    input_tokens: int
    """As they are sent, with all earlier turns."""
    cached_tokens: int
    """Those of them that an earlier request began with, its answer included."""

    @property
    def hit_rate(self) -> float:
        """Share of the prompt tokens that need no computing."""
        return self.cached_tokens / self.input_tokens if self.input_tokens else 0.0


def theoretical_reuse(outlines: Iterable[Outline], system_tokens: int = 0) -> Reuse:
    """outlines: the requests in the order in which they are sent. system_tokens: of the message that all conversations begin with."""
    known: dict[tuple[int, ...], dict[int, int]] = defaultdict(dict)
    before: dict[int, int] = {}
    total = cached = 0
    for number, outline in enumerate(outlines):
        own = sum(tokens for _, tokens in outline.segments)
        if not outline.whole:
            context = before.get(outline.conversation, 0)
            total, cached = total + context + own, cached + context
            before[outline.conversation] = context + own + outline.output_tokens
            continue
        total += own + system_tokens
        cached += (system_tokens if number else 0) + _seen(outline, known)
        before[outline.conversation] = own + system_tokens + outline.output_tokens
    return Reuse(total, cached)


def _seen(outline: Outline, known: dict[tuple[int, ...], dict[int, int]]) -> int:
    """Leading tokens that an earlier prompt had; remembers those of this one."""
    path: tuple[int, ...] = ()
    hit, open_ = 0, True
    for number, tokens in outline.segments:
        longest = known[path].get(number, 0)
        hit += min(tokens, longest) if open_ else 0
        open_ = open_ and longest >= tokens
        known[path][number] = max(tokens, longest)
        path = (hash((*path, number)),)
    return hit
>>>>>>> dab440e (Named workloads, classes of requests in one load, and a workload in figures)
