"""Figures that the audit computes with: the shape of a model, ceilings, weights divided over two memories, a stated skew of experts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from enginebench.physics.popularity import Popularity


@dataclass(frozen=True)
class Skew:
    """`hot` experts of a layer take `share` of the choices; the others take the rest equally."""

    hot: int
    share: float

    @property
    def text(self) -> str:
        return f"{self.hot} experts take {self.share:.0%}, as the source states"

    def popularity(self, experts: int, top_k: int) -> Popularity:
        hot = min(self.hot, experts)
        share = max(min(self.share, hot / top_k), hot / experts)  # an expert takes a token once at most
        cold = (1 - share) * top_k / (experts - hot) if experts > hot else 0.0
        return Popularity(np.array([[share * top_k / hot] * hot + [cold] * (experts - hot)]), self.text)


@dataclass(frozen=True)
class Ceiling:
    tok_s: float
    """Output tokens/s of the whole deployment, with every assumption in favour of the claim."""
    limit: str
    even: float | None = None
    """The same if tokens use all experts equally: an estimate, no bound. None for a dense model."""
    routed: float | None = None
    """The same with the routing that was counted, or the skew that the source states; None if there is neither."""
    routing: str | None = None
    """That routing in words: '2 experts take 80%, as the source states'."""


@dataclass(frozen=True)
class HostSplit:
    """Weights that are divided between the devices and host memory."""

    device_gb: float
    host_gb: float
    device_s: float
    """Time of the devices' reads in one decode step, at least."""
    host_gb_per_step: float
    """Read from host memory in one decode step with even routing."""
    least_s: float = 0.0
    """The shortest decode step, whatever the routing, with a typical host or the stated one."""


@dataclass(frozen=True)
class Shape:
    """Figures of a model, computed from its dimensions."""

    total: float
    active: tuple[float, float]
    """Parameters that a token uses, without and with the vocabulary tables."""
    experts: int
    top_k: int
    context: int
    shared_experts: int = 0
    layers: int = 0
    expert: float = 0.0
    """Parameters of one routed expert of one layer."""
    moe_layers: int = 0
