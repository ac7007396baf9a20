"""What runs inside a Ray cluster: the survey of a node, a unit as a process of its own, the mailbox through which records come back.

Imported by Ray's workers, so it imports little, and Ray itself only in functions.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import Any, TypeAlias

Item: TypeAlias = tuple[str, str, Any]
"""Id of a unit, 'started' (with the node's name), 'meeting' (with what its other nodes need to come), 'files' (with path -> content) or
'ended' (with a problem or '')."""

_STATE = ("OMP_NUM_THREADS",)
"""Set by Ray for its own workers."""


class Mailbox:
    """An actor near the driver: nodes put, the driver takes. What was put survives the node that put it."""

    def __init__(self) -> None:
        self._items: list[Item] = []
        self._news = asyncio.Event()

    async def put(self, item: Item) -> None:
        """Returns when the item is here."""
        self._items.append(item)
        self._news.set()

    async def take(self, patience_s: float) -> list[Item]:
        """All items since the last call, as soon as there is one."""
        try:
            await asyncio.wait_for(self._news.wait(), patience_s)
        except TimeoutError:
            return []
        self._news.clear()
        items, self._items = self._items, []
        return items


def survey() -> dict[str, Any]:
    """What the node says of itself, as `NodeFacts` in plain data."""
    from enginebench.domain import plain_object
    from enginebench.runner.placement.facts import node_facts

    return plain_object(node_facts())


def measure(unit_text: str, names: dict[str, str], mailbox: Any) -> None:
    """Measure a unit on this node. unit_text: content of its file. names: id of a node in Ray -> its name."""
    import ray

    from enginebench.runner.placement.unit_data import parse_unit
    from enginebench.runner.placement.unit_process import follow

    def send(kind: str, content: Any) -> None:
        mailbox.put.remote((unit.id, kind, content)).future().result()  # ray.get would give this task's cores to another while it waits

    unit = parse_unit(unit_text)
    here = ray.get_runtime_context().get_node_id()
    send("started", here)
    files, meet = partial(send, "files"), partial(send, "meeting")
    send("ended", follow(unit, names.get(here, here), files, _env(), meet, _ip()))


def join(unit_text: str, names: dict[str, str], rank: int, meeting: str) -> str:
    """Be a further node of a unit's engine until that ends: '', or why it could not."""
    import ray

    from enginebench.runner.placement.unit_data import parse_unit
    from enginebench.runner.placement.unit_process import join as joined

    here = ray.get_runtime_context().get_node_id()
    return joined(parse_unit(unit_text), names.get(here, here), rank, meeting, _env())


def _ip() -> Any:
    """Address at which other nodes reach this one, as Ray knows it."""
    import ray

    util: Any = ray.util  # typed where Ray is installed, and this function of it is not
    return util.get_node_ip_address()


def _env() -> dict[str, str]:
    """Of a process that is not one of Ray's own."""
    return {name: value for name, value in os.environ.items() if name not in _STATE and not name.startswith("RAY_")}


def install(engine: str) -> str:
    """Install an engine in the environment folder of this node; what it is then. RuntimeError with one line if it cannot be."""
    from enginebench.engines.installed import install_engine
    from enginebench.errors import UserError

    try:
        found = install_engine(engine)
    except UserError as error:
        raise RuntimeError(" ".join(str(error).split())) from None
    return f"{found.title} {found.installs[0].version}" if found.installs else "installed, and not found"
