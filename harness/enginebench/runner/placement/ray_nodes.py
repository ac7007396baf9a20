"""The nodes of a Ray cluster: what Ray knows of each, and what each says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from enginebench.runner.placement import ray_task
from enginebench.runner.placement.base import Node
from enginebench.runner.placement.unit_data import VERSION

HEAD = "node:__internal_head__"
"""A resource that only the head node has."""
ON_NODE = "ray.io/node-id"
"""A label that every node has."""
PATIENCE_S = 60.0


def alive(ray: Any) -> list[dict[str, Any]]:
    """Ray's own records of the nodes that can run something, the head node first."""
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    return sorted(nodes, key=lambda node: (HEAD not in node["Resources"], node["NodeManagerAddress"], node["NodeID"]))


class Fleet:
    """The nodes of a cluster, each asked once."""

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._nodes: dict[str, Node] = {}
        """Id in Ray -> node."""
        self.names: dict[str, str] = {}
        """Id in Ray -> name, also of nodes that were lost."""

    def nodes(self) -> list[Node]:
        """Every node that is alive; those that are new are asked."""
        self.refresh()
        records = {record["NodeID"]: record for record in alive(self._ray)}
        new = {key: record for key, record in records.items() if key not in self._nodes}
        self.names |= _names(new, set(self.names.values()))
        task = self._ray.remote(num_cpus=0, max_retries=0)(ray_task.survey)
        pending = {key: task.options(label_selector={ON_NODE: key}).remote() for key in new}
        self._ray.wait(list(pending.values()), num_returns=len(pending), timeout=PATIENCE_S) if pending else None
        for key, ref in pending.items():
            self._nodes[key] = self._asked(key, new[key], ref)
        return self.known()

    def known(self) -> list[Node]:
        """The nodes that were asked and have not been lost."""
        return sorted(self._nodes.values(), key=lambda node: node.name)

    def refresh(self) -> Sequence[str]:
        """Forget the nodes that are gone; their names."""
        here = {record["NodeID"] for record in alive(self._ray)}
        gone = [key for key in self._nodes if key not in here]
        for key in gone:
            del self._nodes[key]
        return [self.names[key] for key in gone]

    def id_of(self, name: str) -> str:
        """Id in Ray of a node that is known."""
        return next(key for key, node in self._nodes.items() if node.name == name)

    def _asked(self, key: str, record: Mapping[str, Any], ref: Any) -> Node:
        own = {str(name): str(value) for name, value in record.get("Labels", {}).items()}
        cores, gpus = int(record["Resources"]["CPU"]), int(record["Resources"].get("GPU", 0))
        try:
            said = self._ray.get(ref, timeout=0.1)
        except self._ray.exceptions.RayError as error:
            return Node(self.names[key], cores, gpus, own, problem=_problem(error))
        other = "" if said["enginebench"] == VERSION else f"it has enginebench {said['enginebench']}, the driver {VERSION}"
        return Node(self.names[key], cores, gpus, said["labels"] | own, said["machine"], said["engines"], other)


def _names(records: Mapping[str, Mapping[str, Any]], taken: set[str]) -> dict[str, str]:
    """The label `name`, else Ray's name of the node; with a part of its id where that is not unique."""
    wanted = {key: str(record.get("Labels", {}).get("name") or record.get("NodeName") or key[:8]) for key, record in records.items()}
    counts = Counter(wanted.values())
    return {key: f"{name}-{key[:6]}" if counts[name] > 1 or name in taken else name for key, name in wanted.items()}


def _problem(error: Exception) -> str:
    text = str(error)
    if "No module named" in text or "ModuleNotFoundError" in text:
        return "enginebench is not installed in the Python that Ray runs there"
    if "timed out" in text.lower() or "GetTimeoutError" in type(error).__name__:
        return f"it did not answer for {PATIENCE_S:.0f} s"
    return f"it cannot be asked: {(text.strip().splitlines() or ['?'])[-1]}"
