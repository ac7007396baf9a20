"""The shell command that started a server, to be copied. Secrets are left out; nothing is launched."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from enginebench.analysis.rows import Row
from enginebench.records.launch import LaunchRecord

_SECRET = re.compile("key|token|secret|pass|auth|credential", re.IGNORECASE)


def launch_command(row: Row, launches: Mapping[str, LaunchRecord]) -> str:
    """The command of the newest start of a row's deployment that measured a cell; '' without one (attached, in-process, imported).

    Further servers (replicas, a router) come first, each ended by ' & '. A container's command is what runs inside its image.
    """
    ids = [cell.record.launch_id for cell in row.cells if cell.ran]
    known = [launches[each] for each in ids if each in launches and launches[each].startup.command is not None]
    if not known or (command := known[-1].startup.command) is None:
        return ""
    image = known[-1].startup.container.get("image")
    lines = [_line(argv, env, str(image) if image else "") for _, argv, env in command.commands]
    return " & ".join(lines)


def _line(argv: tuple[str, ...], env: Mapping[str, str], image: str) -> str:
    settings = {name: f"${name}" if _SECRET.search(name) else shlex.quote(value) for name, value in env.items()}
    if image:
        given = [part for name, value in settings.items() for part in ("-e", f"{name}={value}")]
        return " ".join(
            ["docker run --rm --network host", *given, "--entrypoint", shlex.quote(argv[0]), image, shlex.join(argv[1:])]
        ).rstrip()
    return " ".join([*(f"{name}={value}" for name, value in settings.items()), shlex.join(argv)])
