"""A device, a machine made of several, and how a machine is written: '4xh100', '2xrtx4090+256gb', 'm3-ultra-192gb', 'cpu'.

Knows the published (or measured) limits of devices and nothing about models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

GIB = 2.0**30
GB = 1e9

HOST_BANDWIDTH = 80 * GB
"""Bytes/s of a host's memory where nothing is said: two channels of DDR5-5600 publish 89.6 GB/s, of which about 90 % can be had."""


@dataclass(frozen=True)
class Link:
    """Between devices, bytes/s in one direction. per_peer: to each other device at once. most: devices that it joins."""

    kind: str
    bandwidth: float
    per_peer: bool = False
    most: int | None = None


@dataclass(frozen=True)
class Device:
    """One accelerator. memory: bytes; usable_share of it may be taken. bandwidth: bytes/s. flops: dense operations/s by format.

    pcie, network: bytes/s in one direction, to the host and to other nodes. node: devices in one node.
    measured_bandwidth: what a copy reached, None where nobody measured.
    """

    name: str
    memory: float
    bandwidth: float
    flops: Mapping[str, float]
    usable_share: float = 1.0
    link: Link | None = None
    pcie: float | None = None
    network: float | None = None
    node: int = 8
    tdp_w: float | None = None
    measured_bandwidth: float | None = None
    note: str = ""

    @property
    def usable(self) -> float:
        """Bytes that weights, caches and everything else may take."""
        return self.memory * self.usable_share

    def compute(self, arithmetic: tuple[str, ...]) -> tuple[str, float]:
        """The first of these formats that the device has, with its operations/s; else the fastest that it has at all."""
        for kind in arithmetic:
            if kind in self.flops:
                return kind, self.flops[kind]
        kind = max(self.flops, key=self.flops.__getitem__)
        return kind, self.flops[kind]


@dataclass(frozen=True)
class Host:
    """The memory beside the devices: bytes, and bytes/s with which a processor reads it."""

    memory: float
    bandwidth: float = HOST_BANDWIDTH


@dataclass(frozen=True)
class Machine:
    """`count` devices, perhaps with a host whose memory may hold weights."""

    device: Device
    count: int = 1
    host: Host | None = None

    @property
    def name(self) -> str:
        """'4x h100-sxm-80gb', '1x rtx-4090-24gb + 256 GB host'."""
        host = f" + {self.host.memory / GB:.0f} GB host" if self.host else ""
        return f"{self.count}x {self.device.name}{host}"

    def link(self, ranks: int) -> float:
        """Bytes/s in one direction that each of so many devices can send to the others; infinite for one."""
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
        """With the bandwidth that a copy reached on such a device, where that is known."""
        reached = self.device.measured_bandwidth
        return self if reached is None else replace(self, device=replace(self.device, bandwidth=reached))

    def with_bandwidth(self, bandwidth: float) -> Machine:
        """With this many bytes/s per device."""
        return replace(self, device=replace(self.device, bandwidth=bandwidth))


_MACHINE = re.compile(
    r"(?:(?P<count>\d+)\s*x\s*)?(?P<device>[a-z0-9][a-z0-9 _.-]*?)(?:\s*\+\s*(?P<host>\d+(?:\.\d+)?)\s*gb(?:\s*ram)?)?", re.IGNORECASE
)
_SIZE = re.compile(r"-(\d+)gb$")


def split_machine(text: str) -> tuple[int, str, float | None] | None:
    """(count, device's name, host memory in bytes) of '2xRTX-4090 + 256 GB RAM'; None where it is not written so."""
    found = _MACHINE.fullmatch(text.strip())
    if not found or found["count"] == "0":
        return None
    name = re.sub(r"[ _]", "-", found["device"].strip().lower())
    return int(found["count"] or 1), name, float(found["host"]) * GB if found["host"] else None


def sized(device: Device, name: str) -> Device | None:
    """The device with the memory that the name ends in, for those that are sold in several sizes (they share it with the CPU)."""
    size = _SIZE.search(name)
    if size is None or device.usable_share == 1.0:
        return None
    return replace(device, name=name, memory=int(size[1]) * GIB)
