"""The shell command that started a server, to be copied. Secrets are left out; nothing is launched."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from enginebench.analysis.rows import Row
from enginebench.records.launch import LaunchRecord

_SECRET = re.compile("key|token(?!iz)|secret|pass|auth|credential", re.IGNORECASE)


_MODEL = re.compile(r"/models/[^/\s:]+")
"""Where a container has its checkpoint."""


def launch_command(row: Row, launches: Mapping[str, LaunchRecord]) -> str:
    """The command of the newest start of a row's deployment that measured a cell; '' without one (attached, or of another tool's file).

    Further servers (replicas, a router) come first, each followed by ' & '. In a container's command CHECKPOINT stands for the folder or
    file on the host, which is not stored.
    """
    measured = [cell for cell in row.cells if cell.ran and cell.record.launch_id in launches]
    if not measured:
        return ""
    startup = launches[measured[-1].record.launch_id].startup
    if startup.command is None:
        return ""
    image = startup.container.get("image")
    gpus = measured[-1].record.traits.gpus or 0
    lines = (_in_container(argv, env, str(image), gpus) if image else _line(argv, env) for _, argv, env in startup.command.commands)
    return " & ".join(lines)


def _line(argv: Sequence[str], env: Mapping[str, str]) -> str:
    return " ".join([*(f"{name}={value}" for name, value in _shown(env).items()), shlex.join(argv)])


def _in_container(argv: Sequence[str], env: Mapping[str, str], image: str, gpus: int) -> str:
    program, *arguments = argv
    model = next((found[0] for each in argv if (found := _MODEL.search(each))), None)
    flags = [f"--gpus={gpus}"] if gpus else []
    flags += ["--network=host"]
    flags += [f"--mount=type=bind,source=CHECKPOINT,target={model},readonly"] if model else []
    flags += [f"--env={name}={value}" for name, value in _shown(env).items()]
    return " ".join(["docker run --rm", *flags, "--entrypoint", shlex.quote(program), shlex.quote(image), shlex.join(arguments)]).rstrip()


def _shown(env: Mapping[str, str]) -> dict[str, str]:
    """A secret is taken from the environment of whoever pastes the command."""
    return {name: f"${name}" if _SECRET.search(name) else shlex.quote(value) for name, value in env.items()}
