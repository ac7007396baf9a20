"""`bench doctor`: what this machine can run, and why not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from enginebench.cli.shared import ADAPTERS, AS_JSON, installs_of, print_json

_MARKS = {"ok": "ok  ", "warn": "warn", "no": "no  "}
_COLOURS = {"ok": "green", "warn": "yellow", "no": "red"}


@click.command(epilog="\b\nExamples:\n  bench doctor\n  bench doctor --json")
@ADAPTERS
@AS_JSON
def doctor(adapters: Sequence[Path], as_json: bool) -> None:
    """Look at this machine: processor, memory, GPUs, Docker, engines, leftovers of earlier runs."""
    from enginebench.domain import plain
    from enginebench.domain.text import printable
    from enginebench.engines.registry import discover
    from enginebench.runner.doctor import diagnose

    sound, broken = discover(adapters).survey()
    findings = diagnose([(a.name, a.title, installs_of(a), _how(a.name, a.requirements)) for a in sound], broken)
    if as_json:
        print_json([plain(finding) for finding in findings])
        return
    for finding in findings:
        click.echo(f"{click.style(_MARKS[finding.level], fg=_COLOURS[finding.level])}  {finding.topic:<12} {printable(finding.text)}")
        if finding.advice:
            click.echo(f"{'':<19}{finding.advice}")


def _how(name: str, requirements: tuple[str, ...]) -> str:
    return f"bench engines install {name}" if requirements else ""
