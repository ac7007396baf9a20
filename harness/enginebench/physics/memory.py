"""Whether a deployment fits: weights, KV cache and working memory per device, compared with the memory of the device.

The working memory of the engine is an assumption (`Reserve`), which is shown with every answer. Not included: fragmentation of the cache
(at most one page per sequence), and engines that keep the whole context for sliding-window layers.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from enginebench.domain import Parallelism
from enginebench.domain.formatting import gigabytes
from enginebench.errors import UserError
from enginebench.physics.geometry import Model, Role
from enginebench.physics.machine import GIB, Machine
from enginebench.physics.sharding import attention_ranks, cache_per_device, check, devices_of, per_device
from enginebench.physics.weights import NOTHING, Offload, Weights, split

MOST = 2**30
"""Largest number of tokens or sequences in a search."""


@dataclass(frozen=True)
class Reserve:
    """Assumed memory of a device besides weights and cache, similar to the defaults of vLLM and SGLang."""

    runtime: float = 2.5 * GIB
    """Bytes for the driver context, captured graphs and communication buffers."""
    chunk: int = 8192
    """Prompt tokens that pass through the model at once; their activations need memory."""

    def activations(self, model: Model, parallelism: Parallelism, concurrency: int) -> float:
        """Peak bytes within a step: residual and normed input, the widest of attention and MLPs, and float32 logits."""
        ranks, p = attention_ranks(parallelism), parallelism
        widest = 0.0
        for layer in model.layers:
            experts = layer.experts
            heads = layer.attention.width / ranks if layer.attention else 0.0
            routed = experts.top_k * (3 * experts.width + (experts.latent or model.hidden)) / p.tp if experts else 0.0
            widest = max(widest, heads, 3 * layer.dense / p.tp, routed + (3 * experts.shared / p.tp if experts else 0.0))
        return 2 * self.chunk * (2 * model.hidden + widest) + 4 * concurrency * model.vocab


@dataclass(frozen=True)
class Budget:
    """Memory of one device of the fullest pipeline stage, in bytes."""

    weights: Mapping[Role, float]
    cache: float
    activations: float
    runtime: float
    usable: float
    host: float = 0.0
    """All weights in host memory."""
    draft: float = 0.0
    """Weights and KV cache of the model that proposes tokens."""

    @property
    def needed(self) -> float:
        return sum(self.weights.values()) + self.cache + self.draft + self.activations + self.runtime

    @property
    def left(self) -> float:
        """Free memory; negative if it does not fit."""
        return self.usable - self.needed


@dataclass(frozen=True)
class Fit:
    """Whether `concurrency` sequences of `context` tokens (prompt and output) fit."""

    weights: Weights
    machine: Machine
    parallelism: Parallelism
    context: int
    concurrency: int
    kv_bits: float
    reserve: Reserve
    offload: Offload
    sizes: tuple[Sequence[Mapping[Role, float]], float]
    """Bytes per role on a device of each stage, and bytes on the host."""
    redundant: int = 0
    """Copies of experts in a layer besides the model's (`Setting.redundant`)."""
    drafter: Weights | None = None
    """The model that proposes tokens, divided among the devices of a copy as favourably as can be; None: none, or a part of the model."""

    @property
    def fits(self) -> bool:
        return self.why_not is None

    @cached_property
    def budget(self) -> Budget:
        """Of the fullest stage."""
        return self._budget(self.context, self.concurrency)

    @cached_property
    def max_context(self) -> int:
        """Most tokens per sequence at `concurrency` sequences, limited by the model's context; 0 if none fit."""
        limit = min(MOST, self.weights.model.max_context)
        return _largest(lambda tokens: self._budget(tokens, self.concurrency).left >= 0, limit)

    @cached_property
    def max_concurrency(self) -> int:
        """Most sequences of `context` tokens; 0 if none fit."""
        return _largest(lambda sequences: self._budget(self.context, sequences).left >= 0, MOST)

    def at(self, context: int, concurrency: int) -> Fit:
        return replace(self, context=context, concurrency=concurrency)

    def with_offload(self, offload: Offload) -> Fit:
        return replace(self, offload=offload, sizes=_sizes(self.weights, self.parallelism, offload, self.redundant))

    def _budget(self, context: int, concurrency: int) -> Budget:
        p, (stages, host) = self.parallelism, self.sizes
        sequences = math.ceil(math.ceil(concurrency / p.dp_replicas) / p.attention_dp)
        caches = cache_per_device(self.weights.model, p, context, self.kv_bits, self.offload.blocks)
        stage = max(range(p.pp), key=lambda i: sum(stages[i].values()) + sequences * caches[i])
        working = self.reserve.activations(self.weights.model, p, sequences)
        draft = self._draft(context, sequences)
        return Budget(stages[stage], sequences * caches[stage], working, self.reserve.runtime, self.machine.device.usable, host, draft)

    def _draft(self, context: int, sequences: int) -> float:
        if self.drafter is None:
            return 0.0
        cache = sum(cache_per_device(self.drafter.model, Parallelism(), context, self.kv_bits))
        return (self.drafter.bytes + sequences * cache) / (self.parallelism.tp * self.parallelism.pp)

    @cached_property
    def why_not(self) -> str | None:
        budget, model, host = self.budget, self.weights.model, self.machine.host
        if self.context > model.max_context:
            return f"{model.name} supports {model.max_context:,} tokens, not {self.context:,}"
        if budget.host and (host is None or host.memory < budget.host):
            available = f"the host has {gigabytes(host.memory)}" if host else "no host memory is stated"
            return f"{gigabytes(budget.host)} of weights are on the host, but {available}"
        drafting = f" + draft model {gigabytes(budget.draft)}" if budget.draft else ""
        if budget.left >= 0:
            return None
        return (
            f"weights {gigabytes(sum(budget.weights.values()))} + KV cache {gigabytes(budget.cache)}{drafting} + working memory "
            f"{gigabytes(budget.activations + budget.runtime)} do not fit the {gigabytes(budget.usable)} of a {self.machine.device.name}"
        )


def fit(
    weights: Weights, machine: Machine, parallelism: Parallelism, *, context: int, concurrency: int, kv_bits: float = 16.0,
    reserve: Reserve | None = None, offload: Offload = NOTHING, redundant: int = 0, drafter: Weights | None = None,
) -> Fit:  # fmt: skip
    """Whether `concurrency` sequences of `context` tokens (prompt and output) fit. UserError if the model cannot be split so.

    drafter: weights that propose tokens, besides those of the model.
    """
    check(weights.model, parallelism, redundant)
    if devices_of(parallelism) > machine.count:
        raise UserError(
            f"tp x pp x dp_replicas = {devices_of(parallelism)} devices, but the hardware has {machine.count}",
            advice=f"write --hardware {devices_of(parallelism)}x{machine.device.name}",
        )
    sizes = _sizes(weights, parallelism, offload, redundant)
    return Fit(weights, machine, parallelism, context, concurrency, kv_bits, reserve or Reserve(), offload, sizes, redundant, drafter)


def _sizes(weights: Weights, p: Parallelism, offload: Offload, redundant: int) -> tuple[Sequence[Mapping[Role, float]], float]:
    on_device, on_host = split(weights, offload)
    return per_device(on_device, p, redundant), on_host.bytes


def _largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` for which `holds` is true, 0 if there is none. `holds` must be monotone."""
    high = 1
    while high < most and holds(high):
        high *= 2
    return bisect_left(range(min(high, most) + 1), x=True, lo=1, key=lambda number: not holds(number)) - 1
