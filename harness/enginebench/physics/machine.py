"""Devices, machines of several devices, and their notation: '4xh100', '2xrtx4090+256gb', 'm3-ultra-192gb', 'cpu'."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

GIB = 2.0**30
GB = 1e9

HOST_BANDWIDTH = 80 * GB
"""Default bytes/s of host memory: two channels of DDR5-5600 (89.6 GB/s published), of which about 90 % are achievable."""


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
    link: Link | None = None
    pcie: float | None = None
    """To the host, in one direction."""
    network: float | None = None
    """To other nodes, in one direction."""
    node: int = 8
    tdp_w: float | None = None
    measured_bandwidth: float | None = None
    """Measured with a copy; None: not measured."""
    note: str = ""

    @property
    def usable(self) -> float:
        return self.memory * self.usable_share

    def compute(self, arithmetic: tuple[str, ...]) -> tuple[str, float]:
        """The first of these formats that the device supports, else its fastest format; with operations/s."""
        kind = next((each for each in arithmetic if each in self.flops), max(self.flops, key=self.flops.__getitem__))
        return kind, self.flops[kind]


@dataclass(frozen=True)
class Host:
    """Host memory: size in bytes, and bandwidth of CPU reads in bytes/s."""

    memory: float
    bandwidth: float = HOST_BANDWIDTH


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


_MACHINE = re.compile(
    r"(?:(?P<count>\d+)\s*x\s*)?(?P<device>[a-z0-9][a-z0-9 _.-]*?)(?:\s*\+\s*(?P<host>\d+(?:\.\d+)?)\s*gb(?:\s*ram)?)?", re.IGNORECASE
)
_SIZE = re.compile(r"-(\d+)gb$")


def split_machine(text: str) -> tuple[int, str, float | None] | None:
    """Parse '2xRTX-4090 + 256 GB RAM' to (count, device name, host memory in bytes); None if it has another form."""
    found = _MACHINE.fullmatch(text.strip())
    if not found or found["count"] == "0":
        return None
    name = re.sub(r"[ _]", "-", found["device"].strip().lower())
    return int(found["count"] or 1), name, float(found["host"]) * GB if found["host"] else None


def sized(device: Device, name: str) -> Device | None:
    """The device with the memory size at the end of the name, for devices with unified memory, which are sold in several sizes."""
    size = _SIZE.search(name)
    if size is None or device.usable_share == 1.0:
        return None
    return replace(device, name=name, memory=int(size[1]) * GIB)
