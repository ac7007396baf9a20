"""`speculation:` of a deployment as a pydantic model: how tokens are proposed ahead of the model, in the same words for every engine.

Knows no engine. Whether an engine has the method is checked by its adapter when the plan is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from enginebench.domain import Speculation
from enginebench.domain.speculation import METHODS, WITH_DRAFT, SpeculationMethod
from enginebench.inputs.fields import ListOf, Strict, sweep_field, sweep_or

MATCH = 3
"""Tokens that `ngram` looks up where the scenario does not say: engines' own defaults reach from 2 to 12."""
Drafted = Annotated[int, Field(ge=1, le=64, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]


class SpeculationSettings(Strict):
    """Speculative decoding: a step proposes tokens ahead and the model checks all of them at once. A list in any key is swept."""

    method: Annotated[list[SpeculationMethod], ListOf] = sweep_field(
        ...,
        "draft: a smaller model proposes. ngram: what followed the same tokens earlier in the text. mtp: the model's own heads for "
        "further tokens. eagle, eagle3: a head trained for the model.",
    )
    tokens: Annotated[list[Drafted], ListOf] = sweep_field(4, "Tokens that a step proposes, at most.")
    draft: Annotated[list[str], ListOf] | None = sweep_or(
        "draft, eagle, eagle3: what proposes, a key of `models` or a checkpoint as `checkpoints` has it."
    )
    match: Annotated[list[Drafted], ListOf] | None = sweep_or(
        f"ngram: tokens at the end of the text that must stand earlier in it; default {MATCH}."
    )
    acceptance: Annotated[list[Share], ListOf] | None = sweep_or(
        "Probability of a proposed token to be accepted if all before it were, forced by the engine so that engines are compared at equal "
        "luck (the text is then meaningless); refused where the engine cannot. Default: the model decides.",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> SpeculationSettings:
        drafting = WITH_DRAFT.intersection(self.method)
        if drafting and self.draft is None:
            raise PydanticCustomError(
                "draft", "needs `draft`, a model that proposes: {method} has none of its own", {"method": min(drafting)}
            )
        if self.draft is not None and not drafting:
            raise PydanticCustomError("draft", "`draft` goes with method draft, eagle or eagle3; leave it out")
        if self.match is not None and "ngram" not in self.method:
            raise PydanticCustomError("match", "`match` goes with method ngram; leave it out")
        return self

    def points(self) -> Iterator[Speculation]:
        """Every combination of the listed values; the draft still as it is written."""
        drafts: list[str | None] = [*(self.draft or (None,))]
        forced: list[float | None] = [*(self.acceptance or (None,))]
        for method, tokens, draft, match, acceptance in itertools.product(self.method, self.tokens, drafts, self.match or [MATCH], forced):
            yield Speculation(
                method, tokens, draft if method in WITH_DRAFT else None,
                match=match if method == "ngram" else None, acceptance=acceptance,
            )  # fmt: skip


def _one_or_none(value: Any) -> Any:
    """`none` (or null) is no speculation; a word that is a method stands for that method with its defaults."""
    if isinstance(value, str) and value in METHODS:
        return {"method": value}
    if isinstance(value, str | None) and value not in ("none", None):
        raise PydanticCustomError("speculation", "must be none, or a mapping such as {example}", {"example": "{method: ngram, tokens: 4}"})
    return None if value == "none" else value


Speculations = Annotated[SpeculationSettings | None, BeforeValidator(_one_or_none)]
"""One way of speculation; None: none, to compare with."""
