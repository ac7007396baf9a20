"""Measured expert routing, and its effect on memory traffic and on the balance of expert parallelism.

Counts come from a separate pass, because counting takes time. Skewed routing may be caused by the model or by the text; counts cannot
distinguish these. Pure. Does not know: engines, files (`routing_files` reads them).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from enginebench.errors import UserError

Counts = npt.NDArray[np.int64]
Figures = npt.NDArray[np.float64]

DRAWS = 200
"""Simulated decode steps per batch size."""


@dataclass(frozen=True, eq=False)
class Choices:
    experts: npt.NDArray[np.int16]
    """[tokens, layers, top_k]."""
    sequence: npt.NDArray[np.int32]
    """[tokens]: the request of each token."""
    decoded: npt.NDArray[np.bool_]
    """[tokens]: whether the token was processed in a decode step (a generated token), not in a prompt."""
    input: npt.NDArray[np.int8] | None = None
    """[tokens]: place of the token's kind of input in `Routing.inputs`; None: all are of one kind."""


@dataclass(frozen=True, eq=False)
class Routing:
    """How often each expert of each layer was chosen."""

    model: str
    source: str
    """What counted, on which text."""
    layers: tuple[int, ...]
    """Numbers of the layers in the model."""
    counts: Counts
    """[layers, experts]."""
    choices: Choices | None = None
    """None if the source has only counts; then single steps cannot be analysed."""
    inputs: tuple[str, ...] = ()
    """Kinds of input that were counted, e.g. ('text', 'code', 'random'); empty: not known."""
    names: tuple[str, ...] = ()
    """What else the model is called: its name in the catalogue, or the reference of a random model."""
    content: str = ""
    """Hash of the checkpoint's sampled content; empty: not known."""

    @property
    def experts(self) -> int:
        return int(self.counts.shape[1])

    @property
    def top_k(self) -> int | None:
        """Experts per token and layer; None without choices."""
        return None if self.choices is None else int(self.choices.experts.shape[2])


def routing_of(model: str, source: str, layers: Sequence[int], experts: int, choices: Choices, **known: Any) -> Routing:
    """Count single choices. Negative ones are padding and are not counted. ValueError for an expert out of range."""
    if choices.experts.max(initial=-1) >= experts:
        raise ValueError(f"expert {choices.experts.max()} of {experts}")
    return Routing(model, source, tuple(layers), counted(choices.experts, experts), choices, **known)


def counted(chosen: npt.NDArray[np.int16], experts: int) -> Counts:
    """How often each expert occurs in choices [tokens, layers, top_k]: [layers, experts]."""
    layers = (chosen[:, layer].ravel() for layer in range(chosen.shape[1]))
    return np.array([np.bincount(each[each >= 0], minlength=experts) for each in layers], np.int64).reshape(-1, experts)


def of_inputs(routing: Routing, inputs: Sequence[str]) -> Routing:
    """Only the tokens of these kinds of input. UserError for one that was not counted."""
    for each in inputs:
        if each not in routing.inputs:
            known = ", ".join(routing.inputs) or "of unknown input"
            raise UserError(f"{routing.model}: no routing of {each} was counted", advice=f"counted: {known}")
    if set(inputs) == set(routing.inputs) or routing.choices is None or routing.choices.input is None:
        return routing
    of_these = np.isin(routing.choices.input, [routing.inputs.index(each) for each in inputs])
    kept = [each for each in routing.inputs if each in inputs]
    place = np.array([kept.index(each) if each in kept else -1 for each in routing.inputs], np.int8)[routing.choices.input]
    was = routing.choices
    choices = Choices(was.experts[of_these], was.sequence[of_these], was.decoded[of_these], place[of_these])
    return replace(routing, counts=counted(choices.experts, routing.experts), choices=choices, inputs=tuple(kept))


def hottest_share(counts: Counts, hottest: int) -> Figures:
    """Per layer, the share of choices of its `hottest` most chosen experts; hottest / experts for uniform routing."""
    ordered = np.sort(counts, axis=1)[:, ::-1]
    return _ratio(ordered[:, :hottest].sum(axis=1), counts.sum(axis=1))


def entropy(counts: Counts) -> Figures:
    """Per layer, Shannon entropy of the experts' shares / log(experts): 1 is uniform, 0 is a single expert."""
    if counts.shape[1] == 1:
        return np.ones(len(counts))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    found: Figures = -(shares * logs).sum(axis=1) / math.log(counts.shape[1])
    return found


def rank_imbalance(counts: Counts, ranks: int) -> Figures:
    """Per layer, choices of the busiest rank / mean choices per rank, with experts in equal consecutive blocks on `ranks` ranks.

    1 is perfect balance, `ranks` is everything on one rank. An average over the measurement; single steps can be less balanced. UserError
    if the experts cannot be divided equally.
    """
    if counts.shape[1] % ranks:
        raise UserError(f"{counts.shape[1]} experts cannot be divided equally among {ranks} ranks", advice="write a divisor of the experts")
    loads = counts.reshape(len(counts), ranks, -1).sum(axis=2)
    return _ratio(loads.max(axis=1), loads.mean(axis=1))


def uniform_distinct(experts: int, top_k: int, batch: int) -> float:
    """Distinct experts that a decode step of `batch` tokens touches per layer under uniform routing: E (1 - (1 - k/E)^B)."""
    return experts * (1.0 - (1.0 - top_k / experts) ** batch)


def distinct_per_step(choices: Choices, batch: int, seed: int = 0) -> Figures | None:
    """Per layer, the mean number of distinct experts that a decode step of `batch` sequences touches.

    Simulates DRAWS steps, each with one generated token of `batch` different sequences. None if fewer sequences generated tokens.
    """
    tokens = np.flatnonzero(choices.decoded)
    owners = choices.sequence[tokens]
    own = [tokens[owners == sequence] for sequence in np.unique(owners)]
    if len(own) < batch:
        return None
    random = np.random.Generator(np.random.PCG64(seed))
    found = np.zeros(choices.experts.shape[1])
    for _ in range(DRAWS):
        picked = [random.choice(own[place]) for place in random.permutation(len(own))[:batch]]
        ordered = np.sort(choices.experts[picked].swapaxes(0, 1).reshape(len(found), -1), axis=1)
        found += (np.diff(ordered, axis=1) > 0).sum(axis=1) + 1
    return found / DRAWS


def _ratio(part: npt.NDArray[np.generic], whole: npt.NDArray[np.generic]) -> Figures:
    """part / whole; 0 in a layer without tokens."""
    numerator, denominator = part.astype(np.float64), whole.astype(np.float64)
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
