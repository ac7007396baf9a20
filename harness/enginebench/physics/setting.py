"""What a ceiling is asked for: weights on a machine, spread and placed, with the routing and the speculation to reckon with."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics.geometry import Role
from enginebench.physics.machine import Machine
from enginebench.physics.offload import NOTHING, Offload, split
from enginebench.physics.popularity import Popularity, uniform
from enginebench.physics.sharding import check, devices_of
from enginebench.physics.weights import Stored, Weights


@dataclass(frozen=True, eq=False)
class Speculation:
    """`tokens` are drafted and checked in one step; each is accepted with this probability if all before it were.

    drafter: the model that drafts, one step per token; None: drafting takes no time.
    """

    tokens: int
    acceptance: float
    drafter: Setting | None = None

    @property
    def made(self) -> float:
        """Tokens that a step yields: 1 + a + a^2 + ... + a^tokens (Leviathan et al. 2023, equation 1)."""
        return sum(self.acceptance**i for i in range(self.tokens + 1))


@dataclass(frozen=True, eq=False)
class Setting:
    """kv_bits: per element of the cache. popularity None: even routing. UserError for what cannot be shared out so."""

    weights: Weights
    machine: Machine
    parallelism: Parallelism = field(default_factory=Parallelism)
    kv_bits: float = 16.0
    popularity: Popularity | None = None
    offload: Offload = NOTHING
    speculation: Speculation | None = None

    def __post_init__(self) -> None:
        check(self.weights.model, self.parallelism)
        if devices_of(self.parallelism) > self.machine.count:
            raise UserError(f"{devices_of(self.parallelism)} devices are needed, the hardware has {self.machine.count}")
        if self.offload.anything and self.machine.host is None:
            raise UserError("weights on the host need a host", advice="write its memory beside the device: 1xrtx4090+128gb")

    @property
    def host_bandwidth(self) -> float:
        """Bytes/s with which weights on the host are read, there or over the link; infinite without a host."""
        if self.machine.host is None:
            return math.inf
        bandwidth, links = self.machine.host.bandwidth, self.parallelism.tp  # each rank fetches its own share
        return min(bandwidth, links * (self.machine.device.pcie or math.inf)) if self.offload.over_link else bandwidth

    @cached_property
    def routing(self) -> Popularity | None:
        """Which experts tokens take; None for a dense model."""
        experts = self.weights.model.experts
        return self.popularity or (uniform(experts.count, experts.top_k) if experts else None)

    @cached_property
    def placed(self) -> tuple[Weights, Weights]:
        """Weights on the devices, and on the host."""
        return split(self.weights, self.offload)

    def share_read(self, part: Stored, rows: float, *, on_host: bool) -> float:
        """Share of a part's bytes (of those on the device, or of those on the host) that a step of so many tokens reads."""
        experts = self.weights.model.layers[part.layer].experts if part.role == Role.EXPERT else None
        if experts is None or self.routing is None:
            return 1.0
        kept = self.offload.on_device(part.layer, experts.count)
        if on_host:
            return self.routing.touched(rows, kept) / (experts.count - kept)
        return self.routing.touched(rows, 0, kept) / kept

    def share_computed(self, part: Stored) -> float:
        """Share of the tokens that go through each weight of a part on the device, on average."""
        experts = self.weights.model.layers[part.layer].experts if part.role == Role.EXPERT else None
        if experts is None or self.routing is None:
            return 0.0 if 0 <= part.layer < self.offload.blocks else 1.0
        return experts.top_k / experts.count * self.routing.hit_rate(self.offload.on_device(part.layer, experts.count))
