"""What an entry of hardware.yaml may hold, and the device that it describes."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from enginebench.inputs.fields import Few, Strict
from enginebench.inputs.validation_errors import as_user_error
from enginebench.physics.entries import Listed
from enginebench.physics.machine import GB, GIB, MOST_CACHE, Device, Link
from enginebench.physics.notation import is_name

Positive = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(gt=0, le=1)]
Format = Literal["fp32", "bf16", "fp8", "int8", "fp4"]


class LinkEntry(Strict):
    kind: str
    gbs: Positive
    per_peer: bool = False
    most: Few | None = None


class Measured(Strict):
    copy_gbs: Positive
    bf16_tflops: Positive | None = None


class Bus(Strict):
    bits: Few
    gbps: Positive
    """Per pin."""


class DeviceEntry(Strict):
    memory_gib: Positive
    bandwidth_gbs: Positive
    cache_mib: Positive | None = None
    tflops: dict[Format, Positive] = Field(default_factory=dict)
    aliases: list[str] = Field(default_factory=list)
    drivers: list[str] = Field(default_factory=list)
    usable_share: Share = 1.0
    unified: bool = False
    sizes_gib: list[Positive] = Field(default_factory=list)
    bus: Bus | None = None
    link: LinkEntry | None = None
    pcie_gbs: Positive | None = None
    network_gbs: Positive | None = None
    node: Few = 8
    tdp_w: Positive | None = None
    measured: Measured | None = None
    source: list[str] | str = ""
    note: str = ""

    def device(self, name: str) -> Device:
        """Without `tflops`, arithmetic is no limit."""
        link = self.link
        flops: dict[str, float] = {kind: rate * 1e12 for kind, rate in self.tflops.items()} or {"bf16": math.inf}
        return Device(
            name=name, memory=self.memory_gib * GIB, bandwidth=self.bandwidth_gbs * GB, flops=flops, usable_share=self.usable_share,
            unified=self.unified, sizes=tuple(self.sizes_gib), node=self.node, tdp_w=self.tdp_w, note=self.note,
            link=Link(link.kind, link.gbs * GB, link.per_peer, link.most) if link else None,
            pcie=self.pcie_gbs * GB if self.pcie_gbs else None, network=self.network_gbs * GB if self.network_gbs else None,
            measured_bandwidth=self.measured.copy_gbs * GB if self.measured else None,
            cache=self.cache_mib * 2.0**20 if self.cache_mib else MOST_CACHE,
        )  # fmt: skip


def device_entry(listed: Listed) -> DeviceEntry:
    """UserError with file, line and key for a user's entry that is wrong."""
    try:
        found = DeviceEntry.model_validate(listed.data)
    except ValidationError as error:
        if listed.source is None:
            raise
        raise as_user_error(error, listed.source, DeviceEntry, (listed.section, listed.name)) from None
    for at, name in (((), listed.name), *((("aliases", i), alias) for i, alias in enumerate(found.aliases))):
        if not is_name(name) or name in ("cpu", "any"):
            raise listed.error(f"a device cannot be called '{name}'", *at, advice="write lower-case letters, digits, '-' and '.'")
    return found
