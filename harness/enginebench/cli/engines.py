"""`bench engines`: which engines there are, and installing each into its own environment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

import enginebench
from enginebench.cli.placement import placement_options
from enginebench.cli.shared import ADAPTERS, AS_JSON, print_json
from enginebench.domain.formatting import printable


@click.group(invoke_without_command=True, epilog="\b\nExamples:\n  bench engines\n  bench engines install transformers")
@ADAPTERS
@AS_JSON
@click.pass_context
def engines(context: click.Context, adapters: Sequence[Path], as_json: bool) -> None:
    """List the engines: how each is installed here, in which version, and what it supports."""
    if context.invoked_subcommand:
        return
    found = enginebench.list_engines(adapters)
    if as_json:
        print_json([engine.to_dict() for engine in found])
        return
    for engine in found:
        if engine.broken is not None:
            click.echo(f"{engine.name:<14} broken: {printable(engine.broken)}")
            continue
        missing = f"not installed; next: bench engines install {engine.name}" if engine.requirements else "nothing to install"
        click.echo(f"{engine.name:<14} {engine.title:<26} {'/'.join(engine.runtimes):<20} {_installed(engine) or missing}")


@engines.command(epilog="\b\nExamples:\n  bench engines install llamacpp transformers\n  bench engines install vllm:cpu")
@click.argument("names", nargs=-1, required=True)
@ADAPTERS
@placement_options
def install(names: Sequence[str], adapters: Sequence[Path], on: str | None, settings: dict[str, str]) -> None:
    """Install engines, each into a virtual environment of its own, from pinned requirements. Safe to repeat.

    NAME:VARIANT installs one of the engine's other sets of requirements, such as that for a machine without a GPU.
    """
    for name in names:
        if on is not None:
            for node, what in enginebench.install_on(on, name, settings).items():
                click.echo(f"{name} on {node}: {printable(what)}")
            continue
        engine = enginebench.install_engine(name, adapters=adapters, on_step=lambda text: click.echo(text, err=True))
        click.echo(f"{name}: {_installed(engine)}")


@engines.command(epilog="\b\nExamples:\n  bench engines use vllm /opt/venv/bin/python\n  bench engines use vllm --forget")
@click.argument("name")
@click.argument("python", required=False)
@click.option("--forget", is_flag=True, help="Use enginebench's own environments again.")
@ADAPTERS
def use(name: str, python: str | None, forget: bool, adapters: Sequence[Path]) -> None:
    """Start an engine with a PYTHON that has it already: your own environment, or the system's. Nothing is installed there.

    It comes before the environments that `bench engines install` made, whatever version it has.
    """
    if forget == (python is not None):
        raise click.UsageError(f"write the path of a Python, or --forget: bench engines use {name} /opt/venv/bin/python")
    engine = (
        enginebench.forget_engine(name, adapters=adapters) if python is None else enginebench.use_engine(name, python, adapters=adapters)
    )
    click.echo(f"{name}: {_installed(engine) or 'not installed'}")


def _installed(engine: enginebench.Engine) -> str:
    return ", ".join(f"{each.variant} {each.version}" for each in engine.installs)
