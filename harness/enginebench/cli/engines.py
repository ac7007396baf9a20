"""`bench engines`: which engines there are, and an environment of its own for each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginebench.cli.shared import ADAPTERS, AS_JSON, installs_of, print_json
from enginebench.errors import UserError

if TYPE_CHECKING:
    from enginebench.adapter import Adapter
    from enginebench.domain import JSON


@click.group(invoke_without_command=True, epilog="\b\nExamples:\n  bench engines\n  bench engines install transformers")
@ADAPTERS
@AS_JSON
@click.pass_context
def engines(context: click.Context, adapters: Sequence[Path], as_json: bool) -> None:
    """List the engines: how each is installed here, in which version, and what it supports."""
    if context.invoked_subcommand:
        return
    from enginebench.domain.text import printable
    from enginebench.engines.registry import discover

    sound, broken = discover(adapters).survey()
    if as_json:
        unusable: list[JSON] = [{"name": name, "broken": reason} for name, reason in broken.items()]
        print_json([*map(_as_data, sound), *unusable])
        return
    for adapter in sound:
        found = ", ".join(f"{i.variant} {i.version}" for i in installs_of(adapter))
        state = found or (f"not installed; next: bench engines install {adapter.name}" if adapter.requirements else "nothing to install")
        click.echo(f"{adapter.name:<14} {adapter.title:<26} {'/'.join(adapter.runtimes):<20} {state}")
    for name, reason in broken.items():
        click.echo(f"{name:<14} broken: {printable(reason)}")


def _as_data(adapter: Adapter) -> JSON:
    from enginebench.domain import plain

    return {
        "name": adapter.name,
        "title": adapter.title,
        "runtimes": list(adapter.runtimes),
        "precisions": plain(sorted(adapter.precisions)) if adapter.precisions is not None else None,
        "requirements": list(adapter.requirements),
        "variants": {name: list(pins) for name, pins in adapter.variants.items()},
        "installs": [plain(install) for install in installs_of(adapter)],
    }


@engines.command(epilog="\b\nExamples:\n  bench engines install llamacpp transformers\n  bench engines install vllm:cpu")
@click.argument("names", nargs=-1, required=True)
@ADAPTERS
def install(names: Sequence[str], adapters: Sequence[Path]) -> None:
    """Install engines, each into a virtual environment of its own, from pinned requirements. Safe to repeat.

    NAME:VARIANT installs one of the engine's other sets of requirements, such as that for a machine without a GPU.
    """
    from enginebench.engines.environments import install as build
    from enginebench.engines.registry import discover, environments
    from enginebench.errors import did_you_mean

    registry = discover(adapters)
    for name in names:
        engine, colon, variant = name.partition(":")
        adapter = registry.need(engine)
        known = environments(adapter)
        environment = f"{engine}-{variant}" if colon else engine
        if environment not in known:
            if colon:
                advice = did_you_mean(variant, adapter.variants) or f"bench engines install {engine}"
                raise UserError(f"{adapter.title} has no variant '{variant}'", advice=advice)
            raise UserError(f"{adapter.title} has nothing to install: it is used where it is")
        build(environment, known[environment], lambda text: click.echo(text, err=True))
        found = ", ".join(f"{i.variant} {i.version}" for i in installs_of(adapter))
        click.echo(f"{name}: {found}")
