"""`bench clean`: remove what ended runs left behind, and nothing else."""

import click

import enginebench
from enginebench.cli.shared import show


@click.command(epilog="\b\nExamples:\n  bench clean")
def clean() -> None:
    """End processes and remove containers and networks of runs whose harness has ended; those of live runs stay."""
    done = enginebench.clean()
    if done.containers_problem is not None:
        show(f"containers were not checked: {done.containers_problem}")
    for line in done.actions:
        show(line)
    if not done.actions:
        click.echo("nothing was left behind" if done.containers_problem is None else "no process was left behind", err=True)
