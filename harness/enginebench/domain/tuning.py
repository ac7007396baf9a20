"""What a tuning may change of a deployment: the options that an adapter declares, with the values worth a try. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from enginebench.domain.deployment import Deployment, Parallelism
from enginebench.domain.ids import JSON

Cost: TypeAlias = Literal["restart", "compile"]
"""restart: an ordinary start of the server with the new value. compile: a start that also compiles kernels or captures graphs anew."""
DEGREES = tuple(field.name for field in dataclasses.fields(Parallelism))


@dataclass(frozen=True)
class Tunable:
    """An option with its values. What the scenario has written, or the engine's own default, is always a candidate as well."""

    name: str
    """A field of the adapter's options, or a degree of `Parallelism`."""
    values: tuple[JSON, ...]
    """In rising order where they have one."""
    default: JSON = None
    """What the engine does where nothing is written; None: it depends, or the engine decides."""
    cost: Cost = "restart"
    """What a change costs."""
    exact: bool = True
    """False: the output changes (a quantized KV cache), so it is tried only with --lossy."""

    @property
    def is_degree(self) -> bool:
        return self.name in DEGREES


@dataclass(frozen=True)
class Room:
    """What there is to tune for: the machine, and the loads of the scenario."""

    cores: int
    """Of the CPU, that may be used."""
    devices: int
    """Accelerators; 0: the CPU does the work."""
    streams: int
    """Most requests in flight."""
    prompt_tokens: int
    """Of the longest prompt; 0: unknown."""

    @property
    def threads(self) -> tuple[JSON, ...]:
        """1, 2, 4, ... and all cores."""
        return tuple(sorted({*_powers(self.cores), self.cores}))

    def degrees(self, *names: str) -> tuple[Tunable, ...]:
        """The degrees of parallelism that a model may be spread by, in powers of two; none on one device."""
        values = tuple(_powers(self.devices)[1:])
        return tuple(Tunable(name, values, 1) for name in names) if values else ()

    def on_devices(self, *tunables: Tunable) -> tuple[Tunable, ...]:
        """These, if there are accelerators."""
        return tunables if self.devices else ()


def _powers(most: int) -> list[int]:
    return [1 << i for i in range(max(most, 1).bit_length())]


Settings: TypeAlias = Mapping[str, JSON]
"""Name of a tunable -> its value; what is missing is as in the scenario."""


def with_settings(base: Deployment, settings: Settings, tunables: Sequence[Tunable]) -> Deployment:
    """The deployment with these settings."""
    degrees = {each.name for each in tunables if each.is_degree}
    spread = {name: value for name, value in settings.items() if name in degrees}
    options = {name: value for name, value in settings.items() if name not in degrees}
    return dataclasses.replace(
        base, options={**base.options, **options}, parallelism=dataclasses.replace(base.parallelism, **spread)  # type: ignore[arg-type]
    )  # fmt: skip
