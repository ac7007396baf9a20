"""Starts an engine over several nodes: each node prepares itself, all learn each other's addresses, each says what it will start."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.adapter import Adapter, Install, Launch, Member, Node, Site, Unsupported
from enginebench.domain import plain
from enginebench.records.launch import LaunchRecord, NodeStart
from enginebench.runtime import Place, ProcessGroup, ThisMachine, free_ports
from enginebench.runtime.nodes import Followers, OtherNode


def spread(
    adapter: Adapter, launch: LaunchRecord, install: Install, site: Site, log: Path, others: Followers
) -> tuple[ProcessGroup, Launch]:
    """Where the processes of all nodes are started, and the command with what each node says of its own. Raises LaunchFailed.

    site: of this node, the first.
    """
    deployment = launch.deployment
    ready = others.ask("prepare")
    own = free_ports(others.address, len(site.ports)) if site.ports else ()
    there = (Node(each.address, tuple(reply["ports"])) for each, reply in zip(others, ready, strict=True))
    site = replace(site, ports=own, nodes=(Node(others.address, own), *there))
    command = adapter.launch(deployment, install, site)
    if not any(member.node for member in command.members):
        raise Unsupported(
            f"{adapter.title} starts its ranks on other nodes by MPI, for which there is no way yet: only `bench plan` shows it"
        )
    told = others.ask("launch", nodes=plain(site.nodes))
    theirs = {member.name: member for reply in told for member in map(_member, reply["members"])}
    launch.startup.nodes = tuple(
        NodeStart(each.name, each.address, _install(reply["install"]), reply["packages"], each.machine)
        for each, reply in zip(others, ready, strict=True)
    )
    places: tuple[Place, ...] = (ThisMachine(site.on(0)), *(OtherNode(site.on(each.rank), each) for each in others))
    members = tuple(theirs.get(member.name, member) for member in command.members)
    return ProcessGroup(ThisMachine(site), log, places), replace(command, members=members)


def _member(data: Mapping[str, Any]) -> Member:
    return Member(**{**data, "argv": tuple(data["argv"])})


def _install(data: Mapping[str, Any]) -> Install:
    paths = {name: Path(path) for name in ("python", "binary") if (path := data.get(name)) is not None}
    return Install(**{**data, **paths})
