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
        if prompt.ids is None or (prompt.turn and prompt.waiting is None):
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
