"""The input of a ceiling: weights on a machine with parallelism, offload, routing and speculation."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.geometry import Role
from enginebench.physics.machine import Machine
from enginebench.physics.popularity import Popularity, concentrated, uniform
from enginebench.physics.sharding import check, devices_of
from enginebench.physics.weights import NOTHING, Offload, Stored, Weights

BOOST = 1.25
"""The highest clock of a card over that of the data sheet's rates: 2,100 over 1,695 MHz of an RTX 3090. Accelerators of servers compute at
their limit of power, below the data sheet's rates (an H100 reached 798 of 989 TFLOPS)."""


@dataclass(frozen=True, eq=False)
class Speculation:
    tokens: int
    """Drafted tokens per step."""
    acceptance: float
    """Probability that a token is accepted if all before it were."""
    drafter: Setting | None = None
    """The draft model, which takes one step per token; None: drafting takes no time."""
    length: float | None = None
    """Tokens that a step yields, where they were counted or are forced, or the most there can be: then no more tokens are drafted and
    checked. None: as many as `acceptance` says, of `tokens` that are drafted and checked in each step."""

    @property
    def tokens_per_step(self) -> float:
        """1 + a + a^2 + ... + a^tokens (Leviathan et al. 2023, equation 1), unless `length` says."""
        if self.length is not None:
            return self.length
        return sum(self.acceptance**i for i in range(self.tokens + 1))

    @property
    def rows(self) -> float:
        """Tokens of a sequence that a step computes."""
        return self.tokens + 1 if self.length is None else self.length


@dataclass(frozen=True, eq=False)
class Setting:
    """Weights on a machine. UserError if the model cannot be split so."""

    weights: Weights
    machine: Machine
    parallelism: Parallelism = field(default_factory=Parallelism)
    kv_bits: float = 16.0
    """Per element of the KV cache."""
    kv_least: float | None = None
    """The fewest that it may have, for the bound, if its type is not known; None: it is."""
    popularity: Popularity | None = None
    """None: uniform routing."""
    offload: Offload = NOTHING
    speculation: Speculation | None = None
    redundant: int = 0
    """Copies of experts that expert parallelism holds besides the model's, per layer, to balance its ranks."""
    bound: bool = False
    """Take every assumption that favours speed (docs/physics.md has the table). No engine and no routing is faster than the result."""

    def __post_init__(self) -> None:
        check(self.weights.model, self.parallelism, self.redundant)
        if devices_of(self.parallelism) > self.machine.count:
            raise UserError(f"{devices_of(self.parallelism)} devices are needed, but the hardware has {self.machine.count}")
        if self.offload.anything and self.machine.host is None:
            raise UserError("an offload needs host memory", advice="write its size after the device: 1xrtx4090+128gb")

    @property
    def host_bandwidth(self) -> float:
        """Bytes/s of reads of weights on the host, by the CPU or over the link; infinite without host memory."""
        if self.machine.host is None:
            return math.inf
        host, links = self.machine.host, self.parallelism.tp  # each rank reads its own share
        bandwidth = host.most if self.bound else host.bandwidth
        return min(bandwidth, links * (self.machine.device.pcie or math.inf)) if self.offload.over_link else bandwidth

    @cached_property
    def routing(self) -> Popularity | None:
        """How tokens choose experts; None for a dense model."""
        experts = self.weights.model.experts
        if experts is None:
            return None
        return concentrated(experts.count, experts.top_k) if self.bound else self.popularity or uniform(experts.count, experts.top_k)

    @property
    def kv_read(self) -> float:
        """Bits that a step reads per element of the KV cache."""
        return self.kv_bits if self.kv_least is None or not self.bound else self.kv_least

    @cached_property
    def rates(self) -> tuple[str, float, float]:
        """The format of products with weights, and operations/s of them and of attention, which computes in 16 bits with any weights.

        In a bound, weights of at most 8 bits may meet activations in any 8-bit format, attention may use every format of the device, and
        the clocks of cards that are not made for servers (they have no network of their own) are the highest.
        """
        kind, device = self.weights.precision, self.machine.device
        arithmetic, rate = device.compute(kind.arithmetic)
        if not self.bound:
            return arithmetic, rate, device.compute(("bf16",))[1]
        narrow = ("fp8", "int8") if min(kind.bits[Role.DENSE], kind.bits[Role.EXPERT]) < 9 else ()
        boost = BOOST if device.network is None else 1.0
        return arithmetic, boost * device.fastest((*kind.arithmetic, *narrow)), boost * device.fastest((*device.flops, "bf16"))

    def stored(self, part: Stored) -> float:
        """Bytes of a part. In a bound, a head that usually keeps 16 bits may have those of the layers, unless a file says its size."""
        bits = self.weights.precision.bits
        if self.bound and self.weights.nominal and part.role in (Role.HEAD, Role.EMBEDDING) and bits[Role.HEAD] == 16:
            return min(part.bytes, part.params * bits[Role.DENSE] / 8)
        return part.bytes

    @property
    def favoured(self) -> Setting:
        """The same with every favourable assumption."""
        return replace(self, bound=True)

    def share_read(self, part: Stored, rows: float, *, on_host: bool) -> float:
        """Share of a part's bytes (on the device, or on the host) that a step of `rows` tokens reads."""
        experts = self.weights.model.layers[part.layer].experts if part.role == Role.EXPERT else None
        if experts is None or self.routing is None:
            return 1.0
        kept = self.offload.on_device(part.layer, experts.count)
        if on_host:
            return self.routing.touched(rows, kept) / (experts.count - kept)
        return self.routing.touched(rows, 0, kept) / kept

    def share_computed(self, part: Stored) -> float:
        """Mean share of the tokens that use a weight of a part on the device."""
        experts = self.weights.model.layers[part.layer].experts if part.role == Role.EXPERT else None
        if experts is None or self.routing is None:
            return 0.0 if 0 <= part.layer < self.offload.blocks else 1.0
        kept = self.offload.on_device(part.layer, experts.count)
        if self.bound:  # the host may compute for as many of the chosen experts as it has
            return max(0, experts.top_k - (experts.count - kept)) / experts.count
        return experts.top_k / experts.count * self.routing.hit_rate(kept)
