"""The work of one pipeline stage in one step: bytes that a device reads, operations, bytes that it sends."""

from __future__ import annotations

import math
from dataclasses import dataclass

from enginebench.physics.geometry import Mixer, Role
from enginebench.physics.machine import Machine
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import attention_ranks, cache_shards, shards
from enginebench.physics.stage import Stage, pipeline
from enginebench.physics.weights import Stored

MEMORY = ("weights", "experts", "KV cache", "host")
"""Kinds of reads: weights that every step needs, routed experts, the KV cache, and everything on the host."""
ACTIVATION_BYTES = 2
"""Bytes per element sent between devices."""
LEAST_SENT = 1 / 8
"""Share of an all-reduce that a bound counts: engines may send 4 bits, and a switch that sums sends each once, not twice."""
_BY_SEQUENCE = frozenset({Role.ATTENTION, Role.RECURRENT, Role.KEYS, Role.LATENT, Role.ROUTER})
"""Roles for which attention data parallelism splits the work by sequences."""
_TABLES = frozenset({Role.HEAD, Role.EMBEDDING})
_NO_PRODUCT = frozenset({Role.NORM, Role.OTHER})


@dataclass(frozen=True, eq=False)
class Work:
    setting: Setting
    sequences: float
    """May be a fraction, if sequences are distributed evenly."""
    width: float
    """Tokens per sequence that are processed at once."""
    context: float
    """Tokens per sequence; for a prompt, its length."""
    prompt: bool
    spread: float = 0.0
    """How far the tokens of the sequences lie from `context`, in both directions."""
    shared: float = 0.0
    """Tokens at the start of the context that all sequences have in common, so that a bound counts reading them once."""

    @property
    def rows(self) -> float:
        return self.sequences * self.width

    @property
    def local(self) -> float:
        """Sequences whose attention the busiest rank computes; at least one."""
        return max(1.0, self.sequences / self.setting.parallelism.attention_dp)

    def read(self, stage: int) -> dict[str, float]:
        """Bytes that a device of the stage reads, by MEMORY. For the host: of all devices, because they share its memory."""
        out, setting, has = dict.fromkeys(MEMORY, 0.0), self.setting, self._stage(stage)
        for part, count in has.on_device:
            name = "experts" if part.role == Role.EXPERT else "weights"
            out[name] += count * setting.stored(part) * setting.share_read(part, self.rows, on_host=False) / self._shards(part)
        for part, count in has.on_host:
            out["host"] += count * setting.stored(part) * setting.share_read(part, self.rows, on_host=True)
        if self.context:
            self._add_cache(out, has)
        return out

    def _add_cache(self, out: dict[str, float], has: Stage) -> None:
        for i, count in has.layers:
            mixer = self.setting.weights.model.layers[i].attention
            if mixer is None:
                continue
            if i < self.setting.offload.blocks:
                out["host"] += count * self._cache_bytes(mixer, self.sequences)
            else:
                out["KV cache"] += count * self._cache_bytes(mixer, self.local) / cache_shards(mixer, self.setting.parallelism)

    def _cache_bytes(self, mixer: Mixer, sequences: float) -> float:
        """Bytes of the cache that a step of so many sequences reads or writes in a layer. A bound leaves out what it writes."""
        bits = self.setting.kv_read
        if self.prompt or not self.setting.bound:
            return sequences * mixer.read(self.context, self.width, bits, prompt=self.prompt)
        tokens = self.context - self.shared
        own = mixer.read(tokens, 0, bits, prompt=False, spread=min(self.spread, tokens))
        return sequences * own + mixer.read(self.context, 0, bits, prompt=False, spread=self.spread) - own

    def products(self, stage: int) -> float:
        """Operations of a device with weights: 2 per weight and token. Operations of the host are not included."""
        total = 0.0
        for part, count in self._stage(stage).parts:
            if part.role not in _NO_PRODUCT:
                rows = self.local * self.width if part.role in _BY_SEQUENCE else self.rows
                if part.role in _TABLES and self.prompt:
                    rows = self.sequences  # only the last token of a prompt needs logits
                total += count * 2 * part.params * rows * self.setting.share_computed(part) / self._shards(part)
        return total

    def scores(self, stage: int) -> float:
        """Operations of a device in attention scores and recurrent states."""
        if not self.context:
            return 0.0
        total = 0.0
        for i, count in self._stage(stage).layers:
            mixer = self.setting.weights.model.layers[i].attention
            if mixer and self.prompt:
                total += count * mixer.prefill_flops(self.context)
            elif mixer and i >= self.setting.offload.blocks:
                total += count * mixer.decode_flops(self.context, self.spread)
        return total * self.local * self.width / attention_ranks(self.setting.parallelism)

    def sending_s(self, stage: int) -> float:
        """Seconds of a device's link: all-reduces among the ranks of a layer, expert exchange, transfer to the next stage.

        With attention data parallelism a rank has its own sequences: dense MLPs are not summed over all ranks, and experts are exchanged.
        In a bound the experts of a token are on its own rank, so nothing is exchanged, and sums are sent in 4 bits and made by the switch.
        """
        setting, p, machine = self.setting, self.setting.parallelism, self.setting.machine
        model = setting.weights.model
        ranks, row = attention_ranks(p), model.hidden * ACTIVATION_BYTES * (LEAST_SENT if setting.bound else 1.0)
        local = self.local * self.width
        seconds = local * row / machine.link(p.pp * p.tp) if stage < p.pp - 1 else 0.0
        for i, count in self._stage(stage).layers:
            layer = model.layers[i]
            if layer.attention:
                seconds += count * _reducing_s(local * row, ranks, machine)
            experts = layer.experts
            if not (experts or layer.dense):
                continue
            if p.attention_dp == 1:
                seconds += count * _reducing_s(self.rows * row, p.tp, machine)
            elif experts and p.ep > 1 and not setting.bound:
                outside = (p.tp - machine.device.node) / max(1, p.tp - 1)
                seconds += count * _over(exchange(local * row, experts.top_k, p.ep), p.tp, machine, outside)
            else:
                seconds += count * _reducing_s(local * row, ranks, machine)
        return seconds

    def _stage(self, stage: int) -> Stage:
        return pipeline(self.setting.weights, self.setting.offload, self.setting.parallelism.pp)[stage]

    def _shards(self, part: Stored) -> int:
        layers = self.setting.weights.model.layers
        return shards(part.role, layers[min(max(part.layer, 0), len(layers) - 1)].attention, self.setting.parallelism)


def _reducing_s(size: float, ranks: int, machine: Machine) -> float:
    """Seconds of an all-reduce. Over several nodes each device reduces within its node first, and sends its part of the sum on."""
    nodes = ranks / machine.device.node
    if nodes <= 1 or not machine.device.network:
        return all_reduce(size, ranks) / machine.link(ranks)
    within, between = all_reduce(size, machine.device.node), all_reduce(size, math.ceil(nodes)) / machine.device.node
    return max(within / machine.link(machine.device.node), between / machine.device.network)


def _over(size: float, ranks: int, machine: Machine, outside: float) -> float:
    """Seconds to send bytes, of which the share `outside` leaves the node; what stays inside does not take the network."""
    if ranks <= machine.device.node or not machine.device.network:
        return size / machine.link(ranks)
    return max(size * outside / machine.device.network, size * (1 - outside) / machine.link(machine.device.node))


def all_reduce(size: float, ranks: int) -> float:
    """Bytes that each rank sends to sum `size` bytes over all ranks: 2 (n-1)/n of the size (reduce-scatter, then all-gather)."""
    return 2 * size * (ranks - 1) / ranks


def exchange(size: float, top_k: int, ranks: int) -> float:
    """Bytes that each rank sends to dispatch its tokens (`size` bytes) to their experts and to return results.

    A token is sent once to each rank with any of its experts: n (1 - (1 - 1/n)^k) ranks on average, (n-1)/n of which are other ranks.
    """
    reached = ranks * (1 - (1 - 1 / ranks) ** top_k)
    return 2 * size * reached * (ranks - 1) / ranks
