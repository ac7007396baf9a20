"""A model's weights with their sizes in bytes, computed from a precision or read from a file (`enginebench.physics.named_model`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from enginebench.physics.geometry import Model, Role
from enginebench.physics.precision import Precision, precision


@dataclass(frozen=True)
class Stored:
    """Weights of one role in one layer, with their size in bytes."""

    role: Role
    layer: int
    params: int
    bytes: float


@dataclass(frozen=True)
class Weights:
    """A model in a precision."""

    model: Model
    precision: Precision
    parts: tuple[Stored, ...]
    source: str
    """Where the sizes are from."""
    notes: tuple[str, ...] = ()
    """Remarks on the sizes, for the user."""

    @cached_property
    def bytes(self) -> float:
        """Total size."""
        return sum(part.bytes for part in self.parts)

    def of(self, *roles: Role) -> float:
        """Size of these roles."""
        return sum(part.bytes for part in self.parts if part.role in roles)


def weigh(model: Model, name: str) -> Weights:
    """The sizes in a precision ('fp8', 'q4_k_m', ...), from its bits per weight of each role."""
    kind = precision(name)
    head = kind.bits[Role.HEAD]
    parts = tuple(
        Stored(
            part.role,
            part.layer,
            part.params,
            # a tied table is stored once, in the precision of the head
            part.params * (head if model.tied and part.role == Role.EMBEDDING else kind.bits[part.role]) / 8,
        )
        for part in model.parts
    )
    return Weights(model, kind, parts, f"dimensions x bits of {kind.name}")
