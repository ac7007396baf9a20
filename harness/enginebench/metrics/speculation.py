"""What became of the tokens that speculative decoding proposed in a cell: from the engine's counters, else from its replies.

Both count the whole load, not the window: counters are read around it. Does not know engines beyond the names in their replies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from enginebench.dialects.engine_state import POSITIONS, accepted_at
from enginebench.records.cell import CellRecord
from enginebench.records.samples import Samples

_OTHER_NAMES = {"draft_n": "draft_tokens", "draft_n_accepted": "accepted_tokens"}
"""llama.cpp's names in the timings of a reply."""


@dataclass(frozen=True)
class Drafted:
    """Totals over a load."""

    by: Literal["counters", "replies"]
    """counters: the engine's totals around the load. replies: what it says of each successful request."""
    tokens: float
    """Proposed."""
    accepted: float
    """Of those."""
    steps: float | None = None
    """In which any token was proposed; None: not counted."""
    at: Mapping[int, float] = field(default_factory=dict)
    """Position of a token in its step, from 1 -> steps that accepted it; empty: not counted."""

    @property
    def rate(self) -> float:
        return self.accepted / self.tokens

    @property
    def length(self) -> float | None:
        """Tokens that a step with a proposal yields on average: those that are accepted and the model's own."""
        return 1 + self.accepted / self.steps if self.steps else None


def drafted(record: CellRecord | None, samples: Samples) -> Drafted | None:
    """None without speculative decoding, or where neither counters nor replies tell of it."""
    if record is not None and record.counters.totals.get("draft_tokens", 0.0) > 0:
        return _of(record.counters.totals, "counters")
    sums: dict[str, float] = {}
    for ok, timings in zip(samples.ok, samples.server_timings, strict=True):
        for name, value in (timings or {}).items() if ok else ():
            known = _OTHER_NAMES.get(name, name)
            sums[known] = sums.get(known, 0.0) + value
    return _of(sums, "replies") if sums.get("draft_tokens", 0.0) > 0 else None


def _of(totals: Mapping[str, float], by: Literal["counters", "replies"]) -> Drafted:
    at = {i: totals[accepted_at(i)] for i in range(1, POSITIONS + 1) if accepted_at(i) in totals}
    return Drafted(by, totals["draft_tokens"], totals.get("accepted_tokens", 0.0), totals.get("drafts") or None, at)
