"""Speculative decoding as every engine is asked for it: how tokens are proposed, how many, and how many of them are accepted.

Does not know engines; `physics` has the ceiling that follows from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal, TypeAlias, get_args

SpeculationMethod: TypeAlias = Literal["draft", "ngram", "mtp", "eagle", "eagle3"]
METHODS: tuple[SpeculationMethod, ...] = get_args(SpeculationMethod)
WITH_DRAFT: frozenset[SpeculationMethod] = frozenset({"draft", "eagle", "eagle3"})
"""Methods whose proposals come from weights of their own; `mtp` uses a part of the model, `ngram` the text so far."""


@dataclass(frozen=True)
class Speculation:
    """A step proposes `tokens` tokens and checks all of them in one forward pass of the model."""

    method: SpeculationMethod
    """Where the proposed tokens come from."""
    tokens: int = 4
    """Proposed per step, at most."""
    draft: str | None = None
    """Reference of the drafting model or head, as `Deployment.checkpoint`."""
    draft_precision: str | None = None
    """Of its weights."""
    match: int | None = None
    """ngram: tokens at the end of the text that must stand earlier in it; None: another method."""
    acceptance: float | None = None
    """Probability of a proposed token to be accepted if all before it were, forced by the engine; None: the model decides."""

    @property
    def rates(self) -> tuple[float, ...]:
        """The share of steps in which token 1, 2, ... is accepted where `acceptance` is forced: a, a^2, ..., a^tokens."""
        return tuple(round((self.acceptance or 0.0) ** position, 12) for position in range(1, self.tokens + 1))

    @property
    def forced_length(self) -> float | None:
        """Tokens that a step then yields on average, the model's own included: 1 + a + ... + a^tokens (Leviathan et al. 2023, eq. 1)."""
        return None if self.acceptance is None else 1 + sum(self.rates)

    @property
    def text(self) -> str:
        """'draft 4 small', 'ngram 4 acceptance 0.7'."""
        forced = f"acceptance {self.acceptance:g}" if self.acceptance is not None else ""
        return " ".join(filter(None, (self.method, str(self.tokens), PurePath((self.draft or "").partition("?")[0]).stem, forced)))
