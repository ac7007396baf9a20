"""The shell commands that a plan would run. Starts nothing."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from enginebench.adapter import Launch, Node, NotInstalled, Site, Unsupported
from enginebench.domain import Deployment
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import Registry
from enginebench.errors import UserError
from enginebench.scenario.plan import Plan

EXAMPLE_PORT = 8000


@dataclass(frozen=True)
class LaunchCommands:
    """The shell commands that start one deployment."""

    deployment: Deployment
    commands: Mapping[str, str] = field(default_factory=dict)
    """Name of a member -> its command, in start order; the main server comes last and has the name ''."""
    nodes: Mapping[str, int] = field(default_factory=dict)
    """The same names -> which of the deployment's nodes it runs on, from 0; empty: all on one."""
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
    try:
        site = _example(deployment, adapter.traits(deployment).extra_ports)
        launch = adapter.launch(deployment, adapter.choose(deployment, installs_of(adapter)), site)
    except NotInstalled as reason:
        return LaunchCommands(deployment, problem=f"{reason}; next: {reason.install or f'bench engines install {adapter.name}'}")
    except Unsupported as reason:
        return LaunchCommands(deployment, problem=str(reason))
    return _shown(deployment, launch)


def _example(deployment: Deployment, extra_ports: int) -> Site:
    """A site whose values stand for what is known only when it starts; nodes are those of this machine."""
    first, *more = range(EXAMPLE_PORT, EXAMPLE_PORT + 1 + extra_ports)
    draft = f"CHECKPOINT:{asked.draft}" if (asked := deployment.speculation) is not None and asked.draft else ""
    site = Site("127.0.0.1", first, Path("LAUNCH_FOLDER"), f"CHECKPOINT:{deployment.checkpoint}", tuple(more), draft, deployment.loras)
    if deployment.nodes == 1:
        return site
    return replace(site, nodes=tuple(Node(f"NODE{i}", tuple(more)) for i in range(deployment.nodes)), on_node=("ON_NODE",))


def _shown(deployment: Deployment, launch: Launch) -> LaunchCommands:
    words = {
        name: [*(f"{key}={shlex.quote(value)}" for key, value in env.items()), shlex.join(argv)] for name, argv, env in launch.commands
    }
    nodes = {member.name: member.node for member in launch.members} | {"": 0} if deployment.nodes > 1 else {}
    return LaunchCommands(deployment, {name: " ".join(parts) for name, parts in words.items()}, nodes)
