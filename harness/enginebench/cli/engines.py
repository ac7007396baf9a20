"""`bench engines`: which engines there are, and an environment of its own for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from enginebench.cli.shared import ADAPTERS, AS_JSON, constraints_of, installs_of, print_json
from enginebench.errors import UserError


@click.group(invoke_without_command=True, epilog="\b\nExamples:\n  bench engines\n  bench engines install transformers")
@ADAPTERS
@AS_JSON
@click.pass_context
def engines(context: click.Context, adapters: Sequence[Path], as_json: bool) -> None:
    """List the engines: how each is installed here, in which version, and what it supports."""
    if context.invoked_subcommand:
        return
    from enginebench.nouns import plain
    from enginebench.registry import discover

    registry = discover(adapters)
    if as_json:
        print_json(
            [
                {
                    "name": adapter.name,
                    "title": adapter.title,
                    "runtimes": list(adapter.runtimes),
                    "precisions": plain(sorted(adapter.precisions)) if adapter.precisions is not None else None,
                    "requirements": list(adapter.requirements),
                    "installs": [plain(install) for install in installs_of(adapter)],
                }
                for adapter in registry.values()
            ]
        )
        return
    for adapter in registry.values():
        found = ", ".join(f"{i.variant} {i.version}" for i in installs_of(adapter))
        state = found or (f"not installed; next: bench engines install {adapter.name}" if adapter.requirements else "nothing to install")
        click.echo(f"{adapter.name:<14} {adapter.title:<26} {'/'.join(adapter.runtimes):<20} {state}")


@engines.command(epilog="\b\nExamples:\n  bench engines install llamacpp transformers")
@click.argument("names", nargs=-1, required=True)
@ADAPTERS
def install(names: Sequence[str], adapters: Sequence[Path]) -> None:
    """Install engines, each into a virtual environment of its own, from pinned requirements. Safe to repeat."""
    from enginebench.engine_env import install as build
    from enginebench.registry import discover

    registry = discover(adapters)
    for adapter in [registry.need(name) for name in names]:
        if not adapter.requirements:
            raise UserError(f"{adapter.title} has nothing to install: it is used where it is")
        build(adapter.name, adapter.requirements, constraints_of(adapter.name), lambda text: click.echo(text, err=True))
        found = ", ".join(f"{i.variant} {i.version}" for i in installs_of(adapter))
        click.echo(f"{adapter.name}: {found}")
