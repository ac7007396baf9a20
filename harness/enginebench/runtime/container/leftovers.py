"""Containers and networks by their labels: whose they are, whether the owner still runs, and removing those of owners that are gone.

The label of the owner holds what a lease holds (see `leftovers`): host and pid namespace, pid, and birth. An owner on another host or in
another container cannot be looked up from here and counts as alive. Nothing without our labels is ever touched.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebench.runtime.container.client import Client, sentences
from enginebench.runtime.leftovers import born, here

RUN, CELL, LAUNCH, OWNER = "enginebench.run", "enginebench.cell", "enginebench.launch", "enginebench.owner"


@dataclass(frozen=True)
class Left:
    """A container or network of ours. kind: 'container' or 'network'; state: the daemon's word for how a container is."""

    kind: str
    id: str
    name: str
    run: str
    launch: str
    live: bool
    state: str = ""

    @property
    def text(self) -> str:
        """'container enginebench-ab12-main (running) of run 2026-11-21-quickstart'."""
        return f"{self.kind} {self.name}{f' ({self.state})' if self.state else ''} of run {self.run}"


def labels(log: Path, tag: str) -> dict[str, str]:
    """What everything of a launch carries. log: the launch's, <run>/logs/<first cell's launch>.log."""
    owner = {"place": here(), "pid": os.getpid(), "born": born(os.getpid())}
    run = log.absolute().parent.parent
    return {RUN: run.name, CELL: log.stem, LAUNCH: tag, OWNER: json.dumps(owner, sort_keys=True)}


def owner_lives(found: Mapping[str, str]) -> bool:
    """Whether the harness that set these labels still runs, as far as can be told from here; an unreadable label counts as a live one."""
    try:
        owner = json.loads(found[OWNER])
        return bool(owner["place"] != here() or born(int(owner["pid"])) == owner["born"])
    except (KeyError, TypeError, ValueError):
        return True


def find(client: Client, launch: str | None = None) -> list[Left]:
    """Containers, then networks, of ours: of one launch, or all. Raises LaunchFailed when the daemon does not say."""
    label = LAUNCH if launch is None else f"{LAUNCH}={launch}"
    with sentences():
        containers = client.api.containers(all=True, filters={"label": label})
        networks = client.api.networks(filters={"label": label})
    return [
        *(_left("container", item, item["Names"][0].lstrip("/") if item["Names"] else item["Id"][:12]) for item in containers),
        *(_left("network", item, item["Name"]) for item in networks),
    ]


def _left(kind: str, item: Mapping[str, Any], name: str) -> Left:
    found = item["Labels"] or {}
    return Left(kind, item["Id"], name, found.get(RUN, "?"), found.get(LAUNCH, ""), owner_lives(found), item.get("State", ""))


def remove(client: Client, left: Left) -> str | None:
    """Remove it, whatever it does; returns why it could not be, None when it is gone."""
    from docker.errors import APIError, NotFound
    from requests.exceptions import RequestException

    try:
        if left.kind == "container":
            client.api.remove_container(left.id, force=True, v=True)
        else:
            client.api.remove_network(left.id)
    except NotFound:
        return None
    except APIError as error:
        said = str(error.explanation or error)
        return None if "is already in progress" in said else said
    except RequestException as error:
        return str(error)
    return None


def clean(client: Client) -> list[str]:
    """Remove what owners left behind that are gone; a sentence for everything done or left undone."""
    said = []
    for left in find(client):  # containers first: a network with containers cannot be removed
        if left.live:
            said.append(f"left {left.text} alone: its owner runs, or is not of this machine")
        else:
            problem = remove(client, left)
            said.append(f"could not remove {left.text}: {problem}" if problem else f"removed {left.text}")
    return said
