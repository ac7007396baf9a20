"""`--on k8s`: each unit as a Job of Kubernetes, through kubectl and the user's own configuration of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Self

import yaml

from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.runner.placement.base import Choice, Intake, Node, Placement
from enginebench.runner.placement.k8s_commands import Kubectl, KubectlError
from enginebench.runner.placement.k8s_follow import Follower
from enginebench.runner.placement.k8s_manifest import SETTINGS, Engine, objects
from enginebench.runner.placement.unit_data import Unit

DEVICES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "cpu": ""}


class Kubernetes(Placement):
    """Jobs outlive this process: when it is lost, they go on, keep their results, and the next `bench run` of the same run fetches them."""

    names = ("k8s",)
    settings = SETTINGS

    def __enter__(self) -> Self:
        for key in ("poll_s", "most", "time_s", "hold_s"):
            if (text := self.given.get(key)) and not re.fullmatch(r"[1-9]\d*" if key != "poll_s" else r"\d+(\.\d+)?", text):
                raise UserError(f"--place {key}={text}: not a number", advice=f"write for example --place {key}=10")
        self._kubectl = Kubectl(self.given.get("namespace", ""), self.given.get("context", ""))
        return self

    def nodes(self) -> Sequence[Node]:
        return [_node(each) for each in self._kubectl.nodes()]

    def choices(self, units: Sequence[Unit]) -> Sequence[Choice]:
        """The nodes with the labels and devices; the whole cluster where the user may not list its nodes."""
        try:
            nodes = self.nodes()
        except KubectlError as error:
            if "Forbidden" not in error.message:
                raise
            return [Choice(("the cluster",)) for _ in units]
        return [self._choice(unit, nodes) for unit in units]

    def _choice(self, unit: Unit, nodes: Sequence[Node]) -> Choice:
        engine = self._engine(unit)
        gpus = engine.gpus if engine else unit.gpus if unit.needs_gpus else 0
        lacks = {node.name: _lacks(node, unit.deployment.node, gpus) for node in nodes}
        if fit := tuple(name for name, why in lacks.items() if not why):
            return Choice(fit)
        return Choice(why_not="; ".join(f"{name}: {why}" for name, why in lacks.items()) or "the cluster has no node")

    def run(self, units: Sequence[Unit], intake: Intake) -> None:
        most, poll_s = int(self.given.get("most") or 50), float(self.given.get("poll_s") or 5)
        Follower(self._kubectl, intake, self._manifest, most, poll_s).run(units)

    def dry_run(self, units: Sequence[Unit]) -> str:
        return yaml.safe_dump_all([each for unit in units for each in self._manifest(unit)], sort_keys=False, width=120)

    def _manifest(self, unit: Unit) -> list[dict[str, Any]]:
        return objects(unit, self._engine(unit), self.given)

    def _engine(self, unit: Unit) -> Engine | None:
        """The container of a unit's engine. UserError if no registry has its image."""
        from enginebench.runner.containers import image_for  # reads the table of images

        deployment = unit.deployment
        if deployment.runtime != "docker":
            return None
        image = image_for(discover()[deployment.engine], deployment)
        name = image.name
        if not deployment.container.image:
            if not (registry := self.given.get("registry")):
                advice = "build it with `bench images build`, push it, and name the registry: --place registry=...; or name container.image"
                raise UserError(f"{unit.name}: no registry is known for the image {image.name}", advice=advice)
            name = f"{registry.rstrip('/')}/{image.name}"
        asked, resource = deployment.container.gpus, DEVICES[image.devices]
        return Engine(name, resource, asked if isinstance(asked, int) else unit.gpus if resource else 0)


def _node(data: Mapping[str, Any]) -> Node:
    has, spec = data["status"].get("allocatable", {}), data["spec"]
    gpus = sum(int(has.get(resource, 0)) for resource in DEVICES.values() if resource)
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in data["status"].get("conditions", ()))
    problem = "" if ready and not spec.get("unschedulable") else "it is cordoned" if ready else "it is not ready"
    return Node(data["metadata"]["name"], _cores(has.get("cpu", "0")), gpus, data["metadata"].get("labels", {}), problem=problem)


def _cores(quantity: str) -> int:
    """'8', '7910m'."""
    return int(quantity[:-1]) // 1000 if quantity.endswith("m") else int(float(quantity))


def _lacks(node: Node, labels: Mapping[str, str], gpus: int) -> str:
    """What keeps a unit from a node; empty if nothing does."""
    for key, wanted in labels.items():
        if key == "name" and node.name == wanted:
            continue
        if node.labels.get(key) != wanted:
            return f"its label {key} is {node.labels[key]}" if key in node.labels else f"it has no label {key}"
    return node.problem or (f"it has {node.gpus} GPUs, and {gpus} are needed" if gpus > node.gpus else "")


PLACEMENT = Kubernetes
