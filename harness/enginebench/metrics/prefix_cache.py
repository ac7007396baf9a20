"""How many prompt tokens of a cell came from the engine's prefix cache, and what says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from enginebench.records.cell import CellRecord
from enginebench.records.samples import Samples


@dataclass(frozen=True)
class CacheProof:
    """How many prompt tokens of a cell came from the prefix cache, and what says so."""

    by: Literal["counters", "usage"] | None = None
    """counters: the engine's totals around the cell. usage: the usage of each reply. None: neither says."""
    cached: int = 0
    """Prompt tokens from the cache."""
    prompt: int = 0
    """All prompt tokens that the same source counted."""

    @property
    def text(self) -> str:
        """'cold, proved by counters', '512 of 4,096 prompt tokens cached, by usage', 'not provable: ...'."""
        if self.by is None:
            return "not provable: the engine does not report cached tokens"
        if not self.cached:
            return f"cold, proved by {self.by}"
        return f"{self.cached:,} of {self.prompt:,} prompt tokens cached, by {self.by}"


def cache_proof(record: CellRecord, s: Samples) -> CacheProof:
    """The larger count wins: counters see every request, usage only the successful ones.

    Usage without cached tokens proves a cold cache only if every successful reply has it.
    """
    known = s.ok & (s.cached_tokens >= 0)
    by_usage = int(s.cached_tokens[known].sum())
    counted = record.counters.totals.get("cached_tokens")
    if counted is not None and counted >= by_usage:
        prompt = max(int(np.maximum(s.input_tokens[s.ok], 0).sum()), int(record.counters.totals.get("prompt_tokens", 0)))
        return CacheProof("counters", int(counted), prompt)  # they see aborted and failed requests as well
    prompt = int(np.maximum(s.input_tokens[known], 0).sum())
    everywhere = known.any() and not (s.ok & ~known).any()
    return CacheProof("usage", by_usage, prompt) if by_usage or everywhere else CacheProof()


def hit_rate(record: CellRecord | None, s: Samples) -> float | None:
    """Share of the prompt tokens of the load that came from the cache; None where nothing says."""
    proof = cache_proof(record, s) if record is not None else CacheProof()
    return proof.cached / proof.prompt if proof.by is not None and proof.prompt else None
