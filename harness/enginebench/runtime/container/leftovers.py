"""Finds containers and networks by their labels and removes those of harnesses that have ended.

The owner label identifies the harness as a lease does (see `runtime.leftovers`): host and pid namespace, pid, start time. An owner on
another host or in another container counts as running. Containers without these labels are never touched.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebench.runtime.container.client import Client, translated_errors
from enginebench.runtime.lease import leases_folder
from enginebench.runtime.leftovers import born, here

RUN, CELL, LAUNCH, OWNER = "enginebench.run", "enginebench.cell", "enginebench.launch", "enginebench.owner"
LEASES = "enginebench.leases"


@dataclass(frozen=True)
class Leftover:
    """A container or network that enginebench created."""

    kind: str
    """'container' or 'network'."""
    id: str
    name: str
    run: str
    launch: str
    live: bool
    """The harness that created it still runs."""
    state: str = ""
    """The daemon's state of a container, such as 'running'."""
    leases: str = ""
    """The folder of leases of the run that created it: which runs see each other."""

    @property
    def text(self) -> str:
        """'container enginebench-ab12-main (running) of run 2026-11-21-quickstart'."""
        return f"{self.kind} {self.name}{f' ({self.state})' if self.state else ''} of run {self.run}"


def labels(log: Path, tag: str) -> dict[str, str]:
    """The labels of a launch's containers and networks. log: of the launch, <run>/logs/<first cell's launch>.log."""
    owner = {"place": here(), "pid": os.getpid(), "born": born(os.getpid())}
    run = log.absolute().parent.parent
    return {RUN: run.name, CELL: log.stem, LAUNCH: tag, OWNER: json.dumps(owner, sort_keys=True), LEASES: str(leases_folder())}


def owner_lives(found: Mapping[str, str]) -> bool:
    """Whether the harness that set these labels still runs. True if unknown (another host, an unreadable label)."""
    try:
        owner = json.loads(found[OWNER])
        return bool(owner["place"] != here() or born(int(owner["pid"])) == owner["born"])
    except (KeyError, TypeError, ValueError):
        return True


def find(client: Client, launch: str | None = None) -> list[Leftover]:
    """Containers, then networks, with enginebench labels: of one launch, or all. Raises LaunchFailed on an error of the daemon."""
    label = LAUNCH if launch is None else f"{LAUNCH}={launch}"
    with translated_errors():
        containers = client.api.containers(all=True, filters={"label": label})
        networks = client.api.networks(filters={"label": label})
    return [
        *(_leftover("container", item, item["Names"][0].lstrip("/") if item["Names"] else item["Id"][:12]) for item in containers),
        *(_leftover("network", item, item["Name"]) for item in networks),
    ]


def _leftover(kind: str, item: Mapping[str, Any], name: str) -> Leftover:
    found = item["Labels"] or {}
    return Leftover(
        kind, item["Id"], name, found.get(RUN, "?"), found.get(LAUNCH, ""), owner_lives(found), item.get("State", ""), found.get(LEASES, "")
    )


def remove(client: Client, item: Leftover) -> str | None:
    """Remove it, even if it runs. Returns None, or why it could not be removed."""
    from docker.errors import APIError, NotFound
    from requests.exceptions import RequestException

    try:
        if item.kind == "container":
            client.api.remove_container(item.id, force=True, v=True)
        else:
            client.api.remove_network(item.id)
    except NotFound:
        return None
    except APIError as error:
        message = str(error.explanation or error)
        return None if "is already in progress" in message else message
    except RequestException as error:
        return str(error)
    return None


def clean(client: Client, leases: str | None = None) -> list[str]:
    """Remove everything whose harness has ended. Returns one sentence per action or omission. leases: only of runs with this folder."""
    actions = []
    for item in (
        item for item in find(client) if leases in (None, item.leases)
    ):  # containers first: a network with containers cannot be removed
        if item.live:
            actions.append(f"left {item.text} alone: the harness that started it still runs, or is on another machine")
        else:
            problem = remove(client, item)
            actions.append(f"could not remove {item.text}: {problem}" if problem else f"removed {item.text}")
    return actions
