"""What is stored of the clients of a load: of this machine's, or of each host that sent a part of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from enginebench.domain import JSON, plain_object
from enginebench.loadgen import LoadResult
from enginebench.loadgen.request import HostShare
from enginebench.records.cell import ClientFacts, ClientHost
from enginebench.runner.calibration import client_limit
from enginebench.runner.instruments import subjects_of


def client_facts(result: LoadResult) -> ClientFacts:
    hosts = tuple(map(_host, result.shares))
    limit = together([host.limit for host in hosts]) if hosts else client_limit(result.client.processes, result.client.stamps)
    return ClientFacts(plain_object(result.client), limit, hosts)


def together(limits: Sequence[Mapping[str, JSON]]) -> dict[str, JSON]:
    """The limits of hosts that share a load evenly: each as much as the weakest. What one of them does not know is not known."""
    common = set.intersection(*map(set, limits)) if limits else set()
    return {name: len(limits) * min(float(str(limit[name])) for limit in limits) for name in sorted(common)}


def _host(share: HostShare) -> ClientHost:
    clock, notes = share.clock, share.notes
    telemetry: Any = notes.get("telemetry", [])
    limit: Any = notes.get("limit", {})
    return ClientHost(
        share.name, share.streams, share.requests, clock.before.offset_ns / 1e6, clock.error_ns / 1e6, clock.drift_ns / 1e6,
        (clock.after.at_ns - clock.before.at_ns) / 1e9, min(clock.before.round_trip_ns, clock.after.round_trip_ns) / 1e6,
        plain_object(share.health), limit, subjects_of(telemetry, clock.offset_ns), _text(notes.get("others")),
    )  # fmt: skip


def _text(value: JSON) -> str | None:
    return str(value) if value else None
