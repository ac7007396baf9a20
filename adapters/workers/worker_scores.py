"""Log-probabilities of given tokens from an engine's logits or entries, in the form of the line protocol. Knows no engine.

Standard library, and torch where it is given torch's logits.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from worker_protocol import ScoreRequest, Scores

ROWS = 64
"""Rows of logits that are turned into probabilities at once: one of 150,000 words takes 0.6 MB in f32."""


def of_logits(logits: Any, request: ScoreRequest) -> Scores:
    """The scores in torch's logits of a whole window, [tokens, vocabulary]; the softmax is in f32."""
    import torch

    own: list[float | None] = []
    top: list[list[tuple[int, float | None]]] = []
    for start in range(request.first, len(request.ids), ROWS):
        wanted = torch.tensor(request.ids[start : start + ROWS], device=logits.device)
        rows = torch.log_softmax(logits[start - 1 : start - 1 + len(wanted)].float(), dim=-1)
        own += map(finite, rows.gather(1, wanted[:, None])[:, 0].tolist())
        if request.top:
            values, ids = rows.topk(min(request.top, rows.shape[-1]))
            top += (pairs(*row) for row in zip(ids.tolist(), values.tolist(), strict=True))
    return {"logprobs": own, "top": top}


def of_entries(entries: Sequence[Any], request: ScoreRequest) -> Scores:
    """The scores in one dictionary per token of the window, id -> an object with `logprob`; those before `first` are not read."""
    found = [{token: its.logprob for token, its in entry.items()} for entry in entries[request.first : len(request.ids)]]
    own = [finite(entry[token]) for entry, token in zip(found, request.ids[request.first :], strict=True)]
    ranked = [sorted(entry, key=lambda token: -entry[token])[: request.top] for entry in found]
    top = [pairs(tokens, (entry[token] for token in tokens)) for tokens, entry in zip(ranked, found, strict=True)]
    return {"logprobs": own, "top": top if request.top else []}


def pairs(ids: Iterable[int], values: Iterable[float]) -> list[tuple[int, float | None]]:
    return [(token, finite(value)) for token, value in zip(ids, values, strict=True)]


def finite(value: float) -> float | None:
    """None for what JSON has no number for."""
    return value if math.isfinite(value) else None
