"""How much of the prompts of a load a prefix cache could reuse, from the prompts themselves. Does not know engines."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from enginebench.domain import PrefixRule, Sample
from enginebench.workload.prompts import Prompt


def reusable(prompts: Sequence[Prompt], before: Sequence[Prompt] = ()) -> int | None:
    """Tokens of `prompts` that an earlier prompt begins with as well, summed; before: prompts that were sent ahead of them.

    The last token of a prompt counts as never reused, because an engine must compute it to continue. None where token ids are unknown, or
    later turns repeat answers that are unknown before the load.
    """
    if not (_known(before) and _known(prompts)):
        return None
    seen = _Seen(before)
    total = 0
    for prompt in prompts:
        total += seen.beginning(prompt.ids or ())
        seen.add(prompt.ids or ())
    return total


def shared_by(rule: PrefixRule, prompts: Sequence[Prompt], samples: Iterable[Sample], before: Sequence[Prompt] = ()) -> int | None:
    """Tokens of the prompts that were sent which a cache with this rule has, if it forgets nothing: from when requests were sent, were
    computed (their first output) and had ended. None as for `reusable`."""
    if not (_known(before) and _known(prompts)):
        return None
    moments: list[tuple[int, int, int]] = []
    for sample in samples:
        if sample.sent_ns and sample.index < len(prompts):
            moments.append((sample.sent_ns, 0, sample.index))
            if (since := _since(rule, sample)) is not None:
                moments.append((since, 1, sample.index))
    seen, total = _Seen(before), 0
    for _, later, index in sorted(moments):
        ids = prompts[index].ids or ()
        if later:
            seen.add(ids)
        else:
            total += seen.beginning(ids) // rule.block_tokens * rule.block_tokens
    return total


def _since(rule: PrefixRule, sample: Sample) -> int | None:
    """When later prompts share that of a request; None: never, because it failed before."""
    computed = sample.event_ns[0] if len(sample.event_ns) else None
    times: Mapping[str, int | None] = {"scheduled": sample.sent_ns, "computed": computed, "answered": sample.end_ns or None}
    return times[rule.since]


def _known(prompts: Iterable[Prompt]) -> bool:
    return all(prompt.ids is not None and not (prompt.turn and prompt.waiting is None) for prompt in prompts)


class _Seen:
    """Prompts in sorted order: of all of them a neighbour has the longest beginning in common."""

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        self._ordered = sorted(prompt.ids or () for prompt in prompts)

    def beginning(self, ids: tuple[int, ...]) -> int:
        """Tokens that it begins with as one of them does, without its last."""
        place = bisect_left(self._ordered, ids)
        neighbours = self._ordered[max(0, place - 1) : place + 1]
        return min(max((common(ids, each) for each in neighbours), default=0), len(ids) - 1)

    def add(self, ids: tuple[int, ...]) -> None:
        self._ordered.insert(bisect_left(self._ordered, ids), ids)


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
