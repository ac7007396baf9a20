"""What one stage does in one step: bytes that a device reads, operations that it computes, bytes that it sends.

A step takes `rows` tokens through the model: one of each sequence (decode), several (speculation), or a whole prompt. Knows no time.
"""

from __future__ import annotations

from dataclasses import dataclass

from enginebench.physics.geometry import Role
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import attention_ranks, cache_ways, stage_of, stages, ways
from enginebench.physics.weights import Stored

MEMORY = ("weights", "experts", "KV cache", "host")
"""What is read: weights that every step needs, routed experts, the cache, and all of these that lie on the host."""
ACTIVATION_BYTES = 2
"""Of one element that is sent between devices: 16 bits."""
_BY_SEQUENCE = frozenset({Role.ATTENTION, Role.KEYS, Role.LATENT, Role.ROUTER})
"""Roles whose work attention data parallelism splits by sequences."""
_TABLES = frozenset({Role.HEAD, Role.EMBEDDING})
_NO_PRODUCT = frozenset({Role.NORM, Role.OTHER})


@dataclass(frozen=True, eq=False)
class Work:
    """One micro-batch of a replica. sequences may be a fraction (shared out evenly). width: tokens of each that go through at once.

    context: tokens that each holds; of a prompt, its own length.
    """

    setting: Setting
    sequences: float
    width: int
    context: float
    prompt: bool

    @property
    def rows(self) -> float:
        """Tokens in the step."""
        return self.sequences * self.width

    @property
    def local(self) -> float:
        """Sequences whose attention the busiest rank computes: its share, and never less than one."""
        return max(1.0, self.sequences / self.setting.parallelism.attention_dp)

    def read(self, stage: int) -> dict[str, float]:
        """Bytes that a device of the stage reads, by MEMORY. The host's are all there are: the devices wait for the same memory."""
        here, there = self.setting.placed
        out = dict.fromkeys(MEMORY, 0.0)
        for part in here.parts:
            if self._used(part, stage):
                name = "experts" if part.role == Role.EXPERT else "weights"
                out[name] += part.bytes * self.setting.share_read(part, self.rows, on_host=False) / self._ways(part)
        for part in there.parts:
            if self._used(part, stage):
                out["host"] += part.bytes * self.setting.share_read(part, self.rows, on_host=True)
        if self.context:
            self._add_cache(out, stage)
        return out

    def _add_cache(self, out: dict[str, float], stage: int) -> None:
        p = self.setting.parallelism
        for i in self._layers(stage):
            attention = self.setting.weights.model.layers[i].attention
            # what a prompt attends to stays on the chip; its keys and values are written once
            seen = self.width if self.prompt else attention.seen(self.context) + self.width
            size = attention.elements * seen * self.setting.kv_bits / 8
            if i < self.setting.offload.blocks:
                out["host"] += self.sequences * size
            else:
                out["KV cache"] += self.local * size / cache_ways(attention, p)

    def products(self, stage: int) -> float:
        """Operations of a device with weights: 2 per weight and token that goes through it. The host's own are not counted."""
        return sum(self._products(part) for part in self.setting.weights.parts if self._used(part, stage))

    def _products(self, part: Stored) -> float:
        if part.role in _NO_PRODUCT:
            return 0.0
        rows = self.local * self.width if part.role in _BY_SEQUENCE else self.rows
        if part.role in _TABLES and self.prompt:
            rows = self.sequences  # only the last token of a prompt becomes a word
        return 2 * part.params * rows * self.setting.share_computed(part) / self._ways(part)

    def scores(self, stage: int) -> float:
        """Operations of a device in attention itself. In a prompt a token sees half of it on average."""
        if not self.context:
            return 0.0
        total = 0.0
        for i in self._layers(stage):
            attention = self.setting.weights.model.layers[i].attention
            if self.prompt:
                seen = attention.seen(self.context)
                total += attention.prefill_flops * seen * (1 - seen / self.context / 2)
            elif i >= self.setting.offload.blocks:
                total += attention.decode_flops * attention.seen(self.context)
        return total * self.local * self.width / attention_ranks(self.setting.parallelism)

    def sending_s(self, stage: int) -> float:
        """Seconds of a device's link: all-reduces among the ranks that share a layer, expert exchange, the hand-over to the next stage."""
        p, model, machine = self.setting.parallelism, self.setting.weights.model, self.setting.machine
        ranks, row = attention_ranks(p), model.hidden * ACTIVATION_BYTES
        local = self.local * self.width
        seconds = local * row / machine.link(p.pp * p.tp) if stage < p.pp - 1 else 0.0
        for i in self._layers(stage):
            seconds += all_reduce(local * row, ranks) / machine.link(ranks)
            experts = model.layers[i].experts
            exchanged = experts and p.attention_dp > 1 and p.ep > 1
            sent = exchange(local * row, experts.top_k, p.ep) if experts and exchanged else all_reduce(self.rows * row, p.tp)
            seconds += sent / machine.link(p.tp)
        return seconds

    def _layers(self, stage: int) -> range:
        return stages(len(self.setting.weights.model.layers), self.setting.parallelism.pp)[stage]

    def _used(self, part: Stored, stage: int) -> bool:
        """Whether a stage reads a part. Of the input table it reads rows, which is nothing, unless that is the head."""
        model = self.setting.weights.model
        if part.role == Role.OTHER or (part.role == Role.EMBEDDING and not model.tied):
            return False
        of = stages(len(model.layers), self.setting.parallelism.pp)
        return stage_of(part, len(model.layers), of, tied=model.tied)[-1] == stage

    def _ways(self, part: Stored) -> int:
        layers = self.setting.weights.model.layers
        return ways(part.role, layers[min(max(part.layer, 0), len(layers) - 1)].attention, self.setting.parallelism)


def all_reduce(size: float, ranks: int) -> float:
    """Bytes that each rank sends to sum `size` bytes over all ranks: 2 (n-1)/n (reduce-scatter, then all-gather)."""
    return 2 * size * (ranks - 1) / ranks


def exchange(size: float, top_k: int, ranks: int) -> float:
    """Bytes that each rank sends to bring its own tokens (`size` bytes) to their experts, and later others' results back.

    A token goes once to each rank that has any of its experts: n (1 - (1 - 1/n)^k) ranks on average, (n-1)/n of which are others.
    """
    reached = ranks * (1 - (1 - 1 / ranks) ** top_k)
    return 2 * size * reached * (ranks - 1) / ranks
