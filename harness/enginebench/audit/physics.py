"""What an audit must know of models and machines, in the words of a claim. The judge is written against `Physics` alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from enginebench.audit.claims import Serving


@dataclass(frozen=True)
class Ceiling:
    """The highest decode rate at one batch, output tokens/s of the whole deployment, and what limits it."""

    tok_s: float
    limit: str


@dataclass(frozen=True)
class HostSplit:
    """Weights that lie on the devices and in the host's memory, GB. Of one decode step: seconds of the devices' reads, GB of the host's."""

    device_gb: float
    host_gb: float
    device_s: float
    host_gb_per_step: float


@dataclass(frozen=True)
class Shape:
    """A model's own figures. active: parameters a token uses, without and with the vocabulary tables. context: tokens."""

    total: float
    active: tuple[float, float]
    experts: int
    top_k: int
    context: int
    shared_experts: int = 0


class Physics(Protocol):
    """Everything is GB = 1e9 bytes and seconds. UserError for a model, machine or precision that is not known."""

    def shape(self, model: str) -> Shape:
        """The model's figures, computed from its dimensions."""
        ...

    def parameters(self, model: str) -> float:
        """All weights of the model."""
        ...

    def weights_gb(self, model: str, precision: str) -> float:
        """One copy of the weights."""
        ...

    def memory_gb(self, hardware: str) -> float:
        """Memory of all devices together, as sold."""
        ...

    def device(self, hardware: str) -> tuple[str, int]:
        """The device's name in the catalogue, and how many there are."""
        ...

    def bandwidth_gb_s(self, hardware: str) -> float:
        """Memory bandwidth of all devices together."""
        ...

    def ceiling(self, claim: Serving, batch: int) -> Ceiling:
        """The roofline of one decode step of `batch` requests, KV cache of the stated lengths included; does not fall with the batch."""
        ...

    def largest_batch(self, claim: Serving) -> int:
        """How many requests of the stated lengths fit beside the weights; a huge number where no length is stated."""
        ...

    def host_gb_s(self, hardware: str) -> float:
        """Bandwidth of the host's memory, an ordinary one where none is stated."""
        ...

    def host_split(self, claim: Serving) -> HostSplit:
        """As much as fits, or as is stated, on the devices: first what every token reads, then experts; the rest in the host's memory."""
        ...
