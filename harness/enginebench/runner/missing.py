"""What a deployment needs that this machine lacks. Names only what is certainly missing: what cannot be told at once is left to the run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from enginebench.adapter import Adapter, Install, NotInstalled, Unsupported
from enginebench.domain import Deployment
from enginebench.domain.formatting import counted
from enginebench.engines.installed import installs_of
from enginebench.errors import UserError
from enginebench.machine.accelerators import gpus
from enginebench.machine.pci import Vendor, most_devices
from enginebench.runner.weights_disk import without_room
from enginebench.runtime.container.client import address, refusal
from enginebench.runtime.container.neighbour import shared_folder
from enginebench.scenario.plan import Plan

Kind: TypeAlias = Literal["devices", "daemon", "image", "secret", "disk", "engine", "node"]


@dataclass(frozen=True)
class Missing:
    """One thing that this machine lacks."""

    kind: Kind
    what: str
    """'4x h100-sxm-80gb (here: no GPU)', 'vLLM is not installed here'."""
    fix: str
    """What to type, or to write in the scenario."""
    amount: int = 0
    """Devices that are needed."""


class Lookup:
    """What the deployments of a plan lack; everything is looked up once."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._registry = plan, plan.registry
        self._found: dict[str, Sequence[Install]] = {}
        self._counts: dict[Vendor | None, int | None] = {}

    def of(self, deployment: Deployment) -> list[Missing]:
        """What keeps this deployment from running here; empty if nothing does, or if its engine cannot serve it anyway."""
        if elsewhere := not self._plan.placed and _elsewhere(deployment):
            return [Missing("node", elsewhere, "--on CLUSTER, see docs/clusters.md")]
        if deployment.runtime == "attach":
            return [*_key(deployment)]
        found = [*self._boxed(deployment)] if deployment.runtime == "docker" else [*self._engine(deployment)]
        if id(deployment) in self._disk[1]:
            found.append(Missing("disk", self._disk[0], "HF_HOME, ENGINEBENCH_HOME on a larger disk"))
        return found

    def _engine(self, deployment: Deployment) -> Iterator[Missing]:
        adapter = self._registry[deployment.engine]
        if self._plan.bounds is not None and self._stated and adapter.checkpoint_format != "none":
            yield from self._devices(adapter.traits(deployment).gpus, None)
        try:
            adapter.choose(deployment, self._installs(adapter))
        except NotInstalled as reason:
            yield Missing("engine", str(reason), reason.install or f"bench engines install {adapter.name}")
        except Unsupported:
            return

    def _boxed(self, deployment: Deployment) -> Iterator[Missing]:
        from enginebench.runner.containers import image_for  # needs the table of images

        adapter, container = self._registry[deployment.engine], deployment.container
        try:
            image = image_for(adapter, deployment)
        except UserError as error:
            yield Missing("image", error.message, error.advice or "")
            return
        except Unsupported:
            return
        if shared_folder() is not None:  # the cluster has given the container beside this one what the unit asked for
            return
        wanted = container.gpus if container.gpus is not None else adapter.traits(deployment.inside).gpus
        count = wanted if isinstance(wanted, int) else 1 if wanted == "all" else len(wanted)
        if image.devices != "cpu" and address().startswith("unix:"):  # a daemon elsewhere has the devices of its machine
            yield from self._devices(count, image.devices)
        if self._daemon:
            what, _, fix = self._daemon.partition("; ")
            yield Missing("daemon", what, fix)
        elif container.offline and self._has_image(image.name) is False:
            yield Missing("image", f"the image {image.name} is not here, and the deployment is offline", f"docker pull {image.name}")
        for name in container.secrets:
            if not os.environ.get(name):
                yield _unset(name)

    def _devices(self, count: int, vendor: Vendor | None) -> Iterator[Missing]:
        """Devices that cannot be here. What the command states is taken on trust."""
        if not count or not self._checks_devices:
            return
        most = self._most(vendor)
        if (most is not None and most < count) or (self._alike is not None and self._alike < count):
            name = f"{vendor.upper()} GPU" if vendor else "GPU"
            stated = self._stated and self._plan.bounds and self._plan.bounds.machine.name
            yield Missing("devices", f"{stated or counted(count, name)} (here: {self._here})", "--hardware any", count)

    @cached_property
    def _alike(self) -> int | None:
        """The accelerators here that are of the stated kind; None where none is stated, or none of those here can be asked."""
        from enginebench.physics.detect import count_alike

        found = gpus()
        return count_alike(self._plan.scenario.hardware, found) if self._plan.scenario.hardware is not None and found else None

    @property
    def _stated(self) -> bool:
        return self._plan.scenario.hardware is not None

    @property
    def _checks_devices(self) -> bool:
        from enginebench.physics.catalogue import ANYTHING  # physics takes a while to import

        scenario = self._plan.scenario
        return not scenario.hardware_by_command and scenario.hardware != ANYTHING

    def _installs(self, adapter: Adapter) -> Sequence[Install]:
        if adapter.name not in self._found:
            self._found[adapter.name] = installs_of(adapter)
        return self._found[adapter.name]

    def _most(self, vendor: Vendor | None) -> int | None:
        if vendor not in self._counts:
            self._counts[vendor] = most_devices(vendor)
        return self._counts[vendor]

    @cached_property
    def _here(self) -> str:
        names = [gpu.name for gpu in gpus()]
        return ", ".join(f"{names.count(name)}x {name}" for name in dict.fromkeys(names)) or "no GPU"

    @cached_property
    def _daemon(self) -> str | None:
        return refusal()

    @cached_property
    def _disk(self) -> tuple[str, frozenset[int]]:
        found = {id(each): each for each, cells in self._plan.launches() if any(cell.id not in self._plan.skipped for cell in cells)}
        return without_room(found.values(), self._registry, self._plan.base)

    def _has_image(self, name: str) -> bool | None:
        """Whether the daemon has the image; None if it cannot be asked."""
        from enginebench.engines.docker_images import SdkDaemon

        with contextlib.suppress(UserError):
            return SdkDaemon().image_id(name) is not None
        return None


def _elsewhere(deployment: Deployment) -> str:
    """What a deployment asks of a cluster, which one machine without one is not."""
    if deployment.nodes > 1:
        return f"{deployment.nodes} nodes for one engine"
    return f"a node with {', '.join(f'{key} {value}' for key, value in deployment.node.items())}" if deployment.node else ""


def _key(deployment: Deployment) -> Iterator[Missing]:
    """The key of an attached server."""
    if deployment.api_key_env is None:
        return
    from enginebench.runner.http_engine import api_key  # imports numpy

    try:
        api_key(deployment)
    except UserError as error:
        name = deployment.api_key_env
        yield Missing("secret", error.message, f"export {name}=...") if os.environ.get(name) else _unset(name)


def _unset(name: str) -> Missing:
    return Missing("secret", f"{name} is not set", f"export {name}=...")
