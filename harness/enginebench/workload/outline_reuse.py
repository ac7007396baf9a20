"""How much of the prompts a prefix cache could give, before they have text: the hit rate of a cache that forgets nothing.

Computed from the parts that prompts share, with turns and their answers; `enginebench.workload.reuse` compares the token ids of
prompts that were made. Does not know engines: one with a smaller cache, or with blocks, has a lower rate.
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
