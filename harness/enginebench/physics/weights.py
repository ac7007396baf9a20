"""A model's weights with their sizes in bytes: by a precision's rules, or as a file on disk has them.

Reads no file (`enginebench.physics.named_model` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from enginebench.physics.geometry import Model, Role
from enginebench.physics.precision import Precision, precision


@dataclass(frozen=True)
class Stored:
    """Weights of one role in one layer, and the bytes that they take."""

    role: Role
    layer: int
    params: int
    bytes: float


@dataclass(frozen=True)
class Weights:
    """A model in a precision. source: where the sizes are from. notes: what about them a reader should know."""

    model: Model
    precision: Precision
    parts: tuple[Stored, ...]
    source: str
    notes: tuple[str, ...] = ()

    @cached_property
    def bytes(self) -> float:
        """All of them."""
        return sum(part.bytes for part in self.parts)

    def of(self, *roles: Role) -> float:
        """Bytes of these roles."""
        return sum(part.bytes for part in self.parts if part.role in roles)


def weigh(model: Model, name: str) -> Weights:
    """The sizes that a precision gives ('fp8', 'q4_k_m', ...): bits per weight of each role."""
    kind = precision(name)
    head = kind.bits[Role.HEAD]
    parts = tuple(
        Stored(
            part.role,
            part.layer,
            part.params,
            # a tied table is stored once, as fine as a head
            part.params * (head if model.tied and part.role == Role.EMBEDDING else kind.bits[part.role]) / 8,
        )
        for part in model.parts
    )
    return Weights(model, kind, parts, f"dimensions x bits of {kind.name}")
