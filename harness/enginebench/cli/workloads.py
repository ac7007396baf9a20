"""`bench workloads`: the catalogue of named workloads, one of them in figures, or what is in a file of one's own."""

from __future__ import annotations

from collections.abc import Iterator

import click

import enginebench
from enginebench.cli.shared import AS_JSON, print_json


@click.command(
    epilog="\b\nExamples:\n  bench workloads\n  bench workloads chat\n  bench workloads conversations.jsonl\n"
    "  bench workloads sharegpt:chats.json --json"
)
@click.argument("name", required=False, metavar="[NAME|FILE]")
@click.option("--time-unit", type=click.Choice(["s", "ms", "us", "ns"]), help="Unit of a trace's times; default: detected.")
@AS_JSON
def workloads(name: str | None, time_unit: str | None, as_json: bool) -> None:
    """List the named workloads, or describe one, a trace or a data set: lengths, rate, burstiness, sessions, prefix reuse, what is lost.

    A scenario uses one with `workload: NAME`, its SLO with `slo: NAME`, and a file with `trace:` or `prompts:`."""
    if name is None:
        known = enginebench.workloads()
        if as_json:
            print_json([each.data for each in known])
        else:
            click.echo("\n".join(_listed(known)))
        return
    found = enginebench.describe_workload(name, time_unit=time_unit)
    if as_json:
        print_json(found.data)
    else:
        click.echo("\n".join(found.lines))


def _listed(known: list[enginebench.ListedWorkload]) -> Iterator[str]:
    width = max(len(each.id) for each in known)
    for each in known:
        yield f"{each.id:<{width}}  {each.hash}  {each.title}"
    yield ""
    yield "next: bench workloads NAME"
