"""The client hosts of a run: who they are, and how they are reached."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from enginebench.domain import JSON
from enginebench.errors import UserError
from enginebench.loadgen.remote.host import ClientHost
from enginebench.loadgen.sharing import ClientLost
from enginebench.machine.host import facts
from enginebench.scenario import Scenario

TOKEN_VARIABLE = "ENGINEBENCH_CLIENT_TOKEN"  # noqa: S105  # its name
_EXAMPLE = "start `bench client --listen HOST:PORT` on each, and write what it prints: --clients TOKEN@HOST:PORT,TOKEN@HOST:PORT"


@dataclass(frozen=True)
class Address:
    """Where a client listens."""

    host: str
    port: int
    token: str | None = None


def address_of(text: str, option: str) -> Address:
    """HOST:PORT or TOKEN@HOST:PORT. UserError, without the token."""
    token, _, where = text.rpartition("@")
    try:
        parts = urlsplit(f"//{where}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    if not host or port is None or parts.path or parts.query or (port == 0 and option == "--clients"):
        raise UserError(f"{option} {where}: expected HOST:PORT", advice="write for example 192.168.1.11:7777")
    return Address(host, port, token or None)


def about_this_machine() -> dict[str, JSON]:
    """What both ends tell each other first: `enginebench` and `byteorder` must be the same, by `boot` it is known whether the hosts are."""
    here = facts()
    return {"enginebench": here.enginebench, "byteorder": sys.byteorder, "boot": _boot(), "cpu": here.cpu, "cores": here.usable_cores}


def _boot() -> str:
    """Changes with every start of the machine, and is the same in its containers. It is not stored."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


@contextlib.contextmanager
def client_hosts(clients: Sequence[str], scenario: Scenario) -> Iterator[tuple[ClientHost, ...]]:
    """The clients, connected. UserError if one of them cannot be, or if they are not as many as the scenario asks for."""
    wanted = scenario.client_nodes
    addresses = [address_of(text, "--clients") for text in clients]
    if wanted is not None and len(addresses) != wanted:
        named = f"--clients names {len(addresses)}" if addresses else "no client is named"
        raise UserError(f"asks for {wanted} client hosts, and {named}", file=scenario.file, key="client_nodes", advice=_EXAMPLE)
    if len({(each.host, each.port) for each in addresses}) < len(addresses):
        raise UserError("--clients names a client twice", advice="start another `bench client`, with a port of its own")
    hosts = tuple(_host(each, f"bench run {scenario.name}") for each in addresses)
    try:
        for host in hosts:
            try:
                host.connect()
            except ClientLost as lost:
                raise UserError(str(lost), advice=_EXAMPLE) from None
        yield hosts
    finally:
        for host in hosts:
            host.close()


def _host(address: Address, purpose: str) -> ClientHost:
    token = address.token or os.environ.get(TOKEN_VARIABLE)
    if not token:
        where = f"{address.host}:{address.port}"
        raise UserError(f"--clients {where}: no token", advice=f"it printed one: --clients TOKEN@{where}, or set {TOKEN_VARIABLE}")
    return ClientHost(address.host, address.port, token, {**about_this_machine(), "purpose": purpose})
