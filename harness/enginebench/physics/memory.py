"""Does a deployment fit: weights, KV cache and working memory of one device against what the device has.

What the engine itself needs beside weights and cache is an assumption, stated in `Reserve` and shown with every answer. Fragmentation
of the cache into pages (at most one page a sequence), and engines that keep whole contexts for sliding-window layers, are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.geometry import Model, Role
from enginebench.physics.machine import GIB, Machine
from enginebench.physics.offload import NOTHING, Offload, split
from enginebench.physics.sharding import attention_ranks, cache_per_device, check, devices_of, per_device
from enginebench.physics.weights import Weights

MOST = 2**30
"""Tokens or sequences beyond which nobody asks."""


@dataclass(frozen=True)
class Reserve:
    """What a device needs beside weights and cache. Assumptions, chosen like the defaults of vLLM and SGLang.

    runtime: bytes of the driver's context, captured graphs and communication buffers. chunk: tokens of prompts that go through the
    model at once, whose activations must be held.
    """

    runtime: float = 2.5 * GIB
    chunk: int = 8192

    def activations(self, model: Model, parallelism: Parallelism, concurrency: int) -> float:
        """Bytes of the widest moment of a step: residual and normed input, the widest of attention and MLPs, and float32 logits."""
        ranks, p = attention_ranks(parallelism), parallelism
        widest = 0.0
        for layer in model.layers:
            attention, experts = layer.attention, layer.experts
            seen = (attention.heads * (attention.key_dim + attention.value_dim) + 2 * attention.elements) / ranks
            routed = experts.top_k * (3 * experts.width + model.hidden) / p.tp if experts else 0.0
            widest = max(widest, seen, 3 * layer.dense / p.tp, routed + (3 * experts.shared / p.tp if experts else 0.0))
        return 2 * self.chunk * (2 * model.hidden + widest) + 4 * concurrency * model.vocab


@dataclass(frozen=True)
class Budget:
    """One device of the fullest pipeline stage, in bytes. weights: by role. host: all weights that lie in the host's memory instead."""

    weights: Mapping[Role, float]
    cache: float
    activations: float
    runtime: float
    usable: float
    host: float = 0.0

    @property
    def needed(self) -> float:
        """Everything together."""
        return sum(self.weights.values()) + self.cache + self.activations + self.runtime

    @property
    def left(self) -> float:
        """What remains; negative where it does not fit."""
        return self.usable - self.needed


@dataclass(frozen=True)
class Fit:
    """The answer. why_not: None where it fits."""

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

    @property
    def fits(self) -> bool:
        """Whether it does."""
        return self.why_not is None

    @cached_property
    def max_context(self) -> int:
        """Tokens that each of `concurrency` sequences may have, up to what the model was made for; 0 where not one fits."""
        limit = min(MOST, self.weights.model.max_context)
        return _largest(lambda tokens: self._asked.budget(tokens, self.concurrency).left >= 0, limit)

    @cached_property
    def max_concurrency(self) -> int:
        """Sequences of `context` tokens; 0 where not one fits."""
        return _largest(lambda sequences: self._asked.budget(self.context, sequences).left >= 0, MOST)

    def at(self, context: int, concurrency: int) -> Fit:
        """The same deployment with other sequences."""
        return self._asked.answer(context, concurrency)

    @cached_property
    def _asked(self) -> _Asked:
        return _Asked(self.weights, self.machine, self.parallelism, self.kv_bits, self.reserve, self.offload)


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
    """Whether `concurrency` sequences of `context` tokens (prompt and output) fit. UserError where it cannot be shared out so at all."""
    check(weights.model, parallelism)
    if devices_of(parallelism) > machine.count:
        raise UserError(
            f"tp x pp x dp_replicas = {devices_of(parallelism)} devices, but the hardware has {machine.count}",
            advice=f"write --hardware {devices_of(parallelism)}x{machine.device.name}",
        )
    asked = _Asked(weights, machine, parallelism, kv_bits, reserve or Reserve(), offload)
    return asked.answer(context, concurrency)


@dataclass(frozen=True)
class _Asked:
    weights: Weights
    machine: Machine
    parallelism: Parallelism
    kv_bits: float
    reserve: Reserve
    offload: Offload

    @cached_property
    def held(self) -> tuple[list[Mapping[Role, float]], float]:
        """Bytes of each role on a device of each stage, and all bytes on the host."""
        here, there = split(self.weights, self.offload)
        return per_device(here, self.parallelism), there.bytes

    def answer(self, context: int, concurrency: int) -> Fit:
        """Whether so many sequences of so many tokens fit."""
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
        """Of the stage that is fullest."""
        p, (held, host) = self.parallelism, self.held
        each = math.ceil(math.ceil(concurrency / p.dp_replicas) / p.attention_dp)
        caches = cache_per_device(self.weights.model, p, context, self.kv_bits, self.offload.blocks)
        stage = max(range(p.pp), key=lambda i: sum(held[i].values()) + each * caches[i])
        working = self.reserve.activations(self.weights.model, p, each)
        return Budget(held[stage], each * caches[stage], working, self.reserve.runtime, self.machine.device.usable, host)

    def why_not(self, budget: Budget, context: int) -> str | None:
        if context > self.weights.model.max_context:
            return f"{self.weights.model.name} is made for {self.weights.model.max_context:,} tokens, not {context:,}"
        host = self.machine.host
        if budget.host and (host is None or host.memory < budget.host):
            have = f"{host.memory / 1e9:.1f} GB" if host else "no memory that was named"
            return f"{budget.host / 1e9:.1f} GB of weights beside the device, but the host has {have}"
        if budget.left >= 0:
            return None
        return (
            f"weights {sum(budget.weights.values()) / 1e9:.1f} GB + KV cache {budget.cache / 1e9:.1f} GB + "
            f"{(budget.activations + budget.runtime) / 1e9:.1f} GB to work in do not fit the {budget.usable / 1e9:.1f} GB of a "
            f"{self.machine.device.name}"
        )


def _largest(holds: Callable[[int], bool], most: int) -> int:
    """The largest whole number up to `most` for which it holds, where it holds for all below; 0: for none."""
    low, high = 0, 1
    while high <= most and holds(high):
        low, high = high, 2 * high
    high = min(high, most + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
