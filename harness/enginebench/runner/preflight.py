"""What can be known of a plan before anything is launched: what is missing here, and the commands that it would run."""

import hashlib
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from enginebench.adapter import NotInstalled, Site, Unsupported
from enginebench.checkpoints.content import Content
from enginebench.domain import Deployment
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import Registry
from enginebench.errors import UserError
from enginebench.machine import nvml
from enginebench.runner.http_engine import api_key
from enginebench.scenario.plan import Plan
from enginebench.workload.datasets import is_data_set, read_records

EXAMPLE_PORT = 8000


def check_launchable(plan: Plan) -> None:
    """UserError when an engine is not installed or has no image, or the environment variable with an API key is not set.
    A deployment that its engine does not support is not an error: its cells are skipped with the reason."""
    for deployment, cells in plan.launches():
        if any(cell.id not in plan.skipped for cell in cells):
            _check(deployment, plan)


def _check(deployment: Deployment, plan: Plan) -> None:
    if deployment.runtime == "attach":
        api_key(deployment)
        return
    adapter = plan.registry[deployment.engine]
    if deployment.runtime == "docker":
        from enginebench.runner.containers import check_container  # needs the table of images

        check_container(adapter, deployment)  # the image itself is fetched when its turn comes
        return
    try:
        adapter.choose(deployment, installs_of(adapter))
    except NotInstalled as reason:
        raise UserError(str(reason), advice=_install(reason, adapter.name)) from None
    except Unsupported:
        return


def _install(reason: NotInstalled, engine: str) -> str:
    return f"next: {reason.install or f'bench engines install {engine}'}"


def check_prompts(plan: Plan) -> dict[str, Content]:
    """Read every data set. UserError for one that cannot be read; planning does not fetch from the hub.

    Returns what those from the hub contain, as `enginebench.scenario.contents` does for files.
    """
    file, found = plan.scenario.file, {}
    for prompts in dict.fromkeys(cell.load.prompts for cell in plan.cells if cell.id not in plan.skipped):
        if is_data_set(prompts):
            try:
                records = read_records(prompts, plan.base)
            except UserError as error:
                raise UserError(error.message, file=error.file or file, line=error.line, key=error.key, advice=error.advice) from None
            if prompts.startswith("hf:"):
                data = repr(records).encode(errors="surrogatepass")
                digest = hashlib.sha256(data).hexdigest()
                found[f"prompts {prompts}"] = Content(len(data), digest, digest)
    return found


def gpu_users(plan: Plan) -> list[str]:
    """Compute processes on the NVIDIA GPUs that this plan will use, in words. Called before anything is launched: all are foreign."""
    local = [each for each, cells in plan.launches() if each.runtime != "attach" and any(cell.id not in plan.skipped for cell in cells)]
    wanted = max((plan.registry[each.engine].traits(each.inside).gpus for each in local), default=0)
    visible = [int(index) for index in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if index.strip().isdigit()]
    found = []
    try:
        with nvml.opened() as lib:
            for index, handle in nvml.devices(lib) if wanted else ():
                if index in visible[:wanted] or (not visible and index < wanted):
                    processes = nvml.answer(lib, partial(lib.nvmlDeviceGetComputeRunningProcesses, handle)) or ()
                    found += [f"process {process.pid} on GPU {index}" for process in processes]
    except LookupError:  # no NVIDIA GPUs
        return []
    return found


@dataclass(frozen=True)
class LaunchCommands:
    """The shell commands that start one deployment."""

    deployment: Deployment
    commands: Mapping[str, str] = field(default_factory=dict)
    """Name of a member -> its command, in start order; the main server comes last and has the name ''."""
    problem: str | None = None
    """Why there are no commands: it attaches to a running server, or cannot be launched here."""


def launch_commands(plan: Plan) -> list[LaunchCommands]:
    """The commands of each deployment of a plan, in plan order, each deployment once."""
    deployments = {id(cell.deployment): cell.deployment for cell in plan.cells}
    return [_commands(deployment, plan.registry) for deployment in deployments.values()]


def _commands(deployment: Deployment, registry: Registry) -> LaunchCommands:
    if deployment.runtime == "attach":
        return LaunchCommands(deployment, problem=f"attaches to {deployment.url}, which is up already")
    adapter = registry[deployment.engine]
    if deployment.runtime == "docker":
        from enginebench.runner.containers import commands  # reads the table of images

        try:
            return LaunchCommands(deployment, commands(adapter, deployment))
        except (Unsupported, UserError) as reason:
            return LaunchCommands(deployment, problem=str(reason))
    first, *more = range(EXAMPLE_PORT, EXAMPLE_PORT + 1 + adapter.traits(deployment).extra_ports)
    site = Site("127.0.0.1", first, Path("LAUNCH_FOLDER"), f"CHECKPOINT:{deployment.checkpoint}", tuple(more))
    try:
        launch = adapter.launch(deployment, adapter.choose(deployment, installs_of(adapter)), site)
    except NotInstalled as reason:
        return LaunchCommands(deployment, problem=f"{reason}; {_install(reason, adapter.name)}")
    except Unsupported as reason:
        return LaunchCommands(deployment, problem=str(reason))
    words = {name: [*(f"{key}={value}" for key, value in env.items()), shlex.join(argv)] for name, argv, env in launch.commands}
    return LaunchCommands(deployment, {name: " ".join(parts) for name, parts in words.items()})
