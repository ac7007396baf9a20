"""Whether a deployment fits: weights, KV cache and working memory per device, compared with the memory of the device.

The working memory of the engine is an assumption (`Reserve`), which is shown with every answer. Not included: fragmentation of the cache
(at most one page per sequence), and engines that keep the whole context for sliding-window layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from enginebench.domain import Parallelism
from enginebench.domain.formatting import gigabytes
from enginebench.errors import UserError
from enginebench.physics.geometry import Model, Role
from enginebench.physics.machine import GIB, Machine
from enginebench.physics.offload import NOTHING, Offload, split
from enginebench.physics.sharding import attention_ranks, cache_per_device, check, devices_of, per_device
from enginebench.physics.weights import Weights

MOST = 2**30
"""Largest number of tokens or sequences in a search."""


@dataclass(frozen=True)
class Reserve:
    """Assumed memory of a device beside weights and cache, similar to the defaults of vLLM and SGLang."""

    runtime: float = 2.5 * GIB
    """Bytes for the driver context, captured graphs and communication buffers."""
    chunk: int = 8192
    """Prompt tokens that pass through the model at once; their activations need memory."""

    def activations(self, model: Model, parallelism: Parallelism, concurrency: int) -> float:
        """Peak bytes within a step: residual and normed input, the widest of attention and MLPs, and float32 logits."""
        ranks, p = attention_ranks(parallelism), parallelism
        widest = 0.0
        for layer in model.layers:
            attention, experts = layer.attention, layer.experts
            heads = (attention.heads * (attention.key_dim + attention.value_dim) + 2 * attention.elements) / ranks
            routed = experts.top_k * (3 * experts.width + model.hidden) / p.tp if experts else 0.0
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

    @property
    def needed(self) -> float:
        """Total need."""
        return sum(self.weights.values()) + self.cache + self.activations + self.runtime

    @property
    def left(self) -> float:
        """Free memory; negative if it does not fit."""
        return self.usable - self.needed


@dataclass(frozen=True)
class Fit:
    """Whether a deployment fits."""

    weights: Weights
    machine: Machine
    parallelism: Parallelism
    context: int
    concurrency: int
    kv_bits: float
    reserve: Reserve
    offload: Offload
    budget: Budget
    why_not: str | None
    """The reason if it does not fit, else None."""

    @property
    def fits(self) -> bool:
        return self.why_not is None

    @cached_property
    def max_context(self) -> int:
        """Most tokens per sequence at `concurrency` sequences, limited by the model's context; 0 if none fit."""
        limit = min(MOST, self.weights.model.max_context)
        return _largest(lambda tokens: self._layout.budget(tokens, self.concurrency).left >= 0, limit)

    @cached_property
    def max_concurrency(self) -> int:
        """Most sequences of `context` tokens; 0 if none fit."""
        return _largest(lambda sequences: self._layout.budget(self.context, sequences).left >= 0, MOST)

    def at(self, context: int, concurrency: int) -> Fit:
        """The same deployment with other sequences."""
        return self._layout.fit(context, concurrency)

    def with_offload(self, offload: Offload) -> Fit:
        """The same deployment and sequences with another offload."""
        return replace(self._layout, offload=offload).fit(self.context, self.concurrency)

    @cached_property
    def _layout(self) -> _Layout:
        return _Layout(self.weights, self.machine, self.parallelism, self.kv_bits, self.reserve, self.offload)


def fit(
    weights: Weights,
    machine: Machine,
    parallelism: Parallelism,
    *,
    context: int,
    concurrency: int,
    kv_bits: float = 16.0,
    reserve: Reserve | None = None,
    offload: Offload = NOTHING,
) -> Fit:
    """Whether `concurrency` sequences of `context` tokens (prompt and output) fit. UserError if the model cannot be split so."""
    check(weights.model, parallelism)
    if devices_of(parallelism) > machine.count:
        raise UserError(
            f"tp x pp x dp_replicas = {devices_of(parallelism)} devices, but the hardware has {machine.count}",
            advice=f"write --hardware {devices_of(parallelism)}x{machine.device.name}",
        )
    return _Layout(weights, machine, parallelism, kv_bits, reserve or Reserve(), offload).fit(context, concurrency)


@dataclass(frozen=True)
class _Layout:
    """Weights on a machine, without sequences."""

    weights: Weights
    machine: Machine
    parallelism: Parallelism
    kv_bits: float
    reserve: Reserve
    offload: Offload

    @cached_property
    def sizes(self) -> tuple[list[Mapping[Role, float]], float]:
        """Bytes per role on a device of each stage, and bytes on the host."""
        on_device, on_host = split(self.weights, self.offload)
        return per_device(on_device, self.parallelism), on_host.bytes

    def fit(self, context: int, concurrency: int) -> Fit:
        """Whether `concurrency` sequences of `context` tokens fit."""
        budget = self.budget(context, concurrency)
        return Fit(
            weights=self.weights,
            machine=self.machine,
            parallelism=self.parallelism,
            context=context,
            concurrency=concurrency,
            kv_bits=self.kv_bits,
            reserve=self.reserve,
            offload=self.offload,
            budget=budget,
            why_not=self.why_not(budget, context),
        )

    def budget(self, context: int, concurrency: int) -> Budget:
        """The budget of the fullest stage."""
        p, (stages, host) = self.parallelism, self.sizes
        sequences = math.ceil(math.ceil(concurrency / p.dp_replicas) / p.attention_dp)
        caches = cache_per_device(self.weights.model, p, context, self.kv_bits, self.offload.blocks)
        stage = max(range(p.pp), key=lambda i: sum(stages[i].values()) + sequences * caches[i])
        working = self.reserve.activations(self.weights.model, p, sequences)
        return Budget(stages[stage], sequences * caches[stage], working, self.reserve.runtime, self.machine.device.usable, host)

    def why_not(self, budget: Budget, context: int) -> str | None:
        if context > self.weights.model.max_context:
            return f"{self.weights.model.name} supports {self.weights.model.max_context:,} tokens, not {context:,}"
        host = self.machine.host
        if budget.host and (host is None or host.memory < budget.host):
            available = f"the host has {gigabytes(host.memory)}" if host else "no host memory is stated"
            return f"{gigabytes(budget.host)} of weights are on the host, but {available}"
        if budget.left >= 0:
            return None
        return (
            f"weights {gigabytes(sum(budget.weights.values()))} + KV cache {gigabytes(budget.cache)} + working memory "
            f"{gigabytes(budget.activations + budget.runtime)} do not fit the {gigabytes(budget.usable)} of a "
            f"{self.machine.device.name}"
        )


def _largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` for which `holds` is true, 0 if there is none. `holds` must be monotone."""
    low, high = 0, 1
    while high <= most and holds(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
