"""A model's weights with their sizes in bytes: by a precision's rules, or as a file on disk has them.

`read_weights` takes whatever a person may call a model. It reads headers only, never a weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from enginebench.checkpoints.random_moe import SCHEME as RANDOM
from enginebench.errors import UserError, did_you_mean
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


def read_weights(reference: str, name: str | None = None) -> Weights:
    """The weights that a person names: of the catalogue, a config.json, a folder of safetensors, a .gguf file, or random:... weights.

    name: a precision. None: the one it is published in, or the real sizes in the file. With a name, a file gives the dimensions only.
    UserError where nothing of that name can be read.
    """
    from enginebench.physics.catalogue import find_model, models
    from enginebench.physics.files import random_model, read_file

    path = Path(reference).expanduser()
    if reference.startswith(RANDOM):
        return weigh(random_model(reference), name or "bf16")
    if path.exists():
        found = read_file(path)
        return found if name is None else weigh(found.model, name)
    entry = find_model(reference)
    if entry is None:
        raise UserError(
            f"no model '{reference}': neither a name of the catalogue nor a file or folder",
            advice=did_you_mean(reference.lower(), models()),
        )
    return replace(weigh(entry.model, name or entry.native), notes=(entry.note,) if entry.note else ())
