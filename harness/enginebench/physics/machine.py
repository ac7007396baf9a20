"""Devices, and machines of several devices."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

GIB = 2.0**30
GB = 1e9

HOST_BANDWIDTH = 80 * GB
"""Usual bytes/s of host memory: two channels of DDR5-5600 (89.6 GB/s published), of which about 90 % are achievable."""
MOST_HOST_BANDWIDTH = 1690 * GB
"""The highest bytes/s of host memory that is sold: two sockets with 12 channels of MRDIMM-8800 each. For bounds, if none is stated."""
MOST_CACHE = 256 * 2.0**20
"""Bytes of the largest last-level cache of an accelerator (MI300X). For bounds, if a device's own is not in the catalogue."""
CPU_CACHE_S = 2.5e-3
"""No CPU's cache takes longer to fill from its memory: 1,152 MB at 461 GB/s of an EPYC 9684X, the largest."""


@dataclass(frozen=True)
class Link:
    kind: str
    bandwidth: float
    """Bytes/s in one direction."""
    per_peer: bool = False
    """The bandwidth is available to each other device at once."""
    most: int | None = None


@dataclass(frozen=True)
class Device:
    """One accelerator. Bandwidths in bytes/s."""

    name: str
    memory: float
    bandwidth: float
    flops: Mapping[str, float]
    """Dense operations/s by format."""
    usable_share: float = 1.0
    unified: bool = False
    """Its memory is also the host's."""
    sizes: tuple[float, ...] = ()
    """If it is sold with several sizes of memory: these, in GiB."""
    link: Link | None = None
    pcie: float | None = None
    """To the host, in one direction."""
    network: float | None = None
    """To other nodes, in one direction."""
    node: int = 8
    tdp_w: float | None = None
    measured_bandwidth: float | None = None
    """Measured with a copy; None: not measured."""
    cache: float = MOST_CACHE
    """Bytes of the last-level cache, in which weights may stay from one step to the next."""
    reached: float = 0.95
    """Share of `bandwidth` that reading reaches at most: refreshes and turns of the bus take the rest of a data sheet's. 1: measured."""
    note: str = ""
    remarks: tuple[str, ...] = ()
    """What a reader of figures about this device should know, such as a stated bandwidth that is not the catalogue's."""

    @property
    def usable(self) -> float:
        return self.memory * self.usable_share

    def compute(self, arithmetic: tuple[str, ...]) -> tuple[str, float]:
        """The first of these formats that the device supports, else its fastest format; with operations/s."""
        kind = next((each for each in arithmetic if each in self.flops), max(self.flops, key=self.flops.__getitem__))
        return kind, self.flops[kind]

    def fastest(self, arithmetic: Collection[str]) -> float:
        """The highest operations/s with any of these formats. FP16 products may be summed in FP16, at half the rate of INT8."""
        half = {"bf16": max(self.flops.get("bf16", 0.0), self.flops.get("int8", 0.0) / 2)} if "bf16" in self.flops else {}
        rates = {**self.flops, **half}
        return max((rates[each] for each in arithmetic if each in rates), default=max(rates.values()))


@dataclass(frozen=True)
class Host:
    """Host memory: size in bytes, and bandwidth of CPU reads in bytes/s."""

    memory: float
    bandwidth: float = HOST_BANDWIDTH
    stated: bool = False
    """The bandwidth is known, not a usual one."""

    @property
    def most(self) -> float:
        """The highest bandwidth that it can have."""
        return self.bandwidth if self.stated else MOST_HOST_BANDWIDTH


@dataclass(frozen=True)
class Machine:
    """`count` devices, optionally with host memory that may hold weights."""

    device: Device
    count: int = 1
    host: Host | None = None

    @property
    def name(self) -> str:
        """'4x h100-sxm-80gb', '1x rtx-4090-24gb + 256 GB host'."""
        host = f" + {self.host.memory / GB:.0f} GB host" if self.host else ""
        return f"{self.count}x {self.device.name}{host}"

    def link(self, ranks: int) -> float:
        """Bytes/s in one direction from each of `ranks` devices to the others; infinite for one device."""
        device = self.device
        if ranks <= 1:
            return math.inf
        if ranks > device.node and device.network:
            return device.network
        link = device.link
        if link is None or (link.most is not None and ranks > link.most):
            return device.pcie or math.inf
        return link.bandwidth * (ranks - 1) if link.per_peer else link.bandwidth

    def as_measured(self) -> Machine:
        """The machine with the measured bandwidth of its device, if known."""
        measured = self.device.measured_bandwidth
        return self if measured is None else self.with_bandwidth(measured)

    def with_bandwidth(self, bandwidth: float) -> Machine:
        return replace(self, device=replace(self.device, bandwidth=bandwidth))
