"""`bench clean`: remove what runs left behind whose harness is gone, and nothing else."""

from __future__ import annotations

import contextlib

import click

from enginebench.cli.shared import show


@click.command(epilog="\b\nExamples:\n  bench clean")
def clean() -> None:
    """End processes and remove containers and networks of runs that are gone; those of runs that are up stay."""
    from enginebench.runtime import LaunchFailed, sweep
    from enginebench.runtime.container.client import connect
    from enginebench.runtime.container.leftovers import clean as clean_containers

    said = sweep()
    nothing = "nothing was left behind"
    try:
        with contextlib.closing(connect()) as client:
            said += clean_containers(client)
    except LaunchFailed as failure:
        show(f"no containers were looked at: {failure.reason}")
        nothing = "no process was left behind"
    for line in said:
        show(line)
    if not said:
        click.echo(nothing, err=True)
