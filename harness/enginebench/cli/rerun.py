"""`bench rerun`: a stored run, planned again here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FACTS, FILE, FILE_ONLY, print_json, write
from enginebench.domain.formatting import counted, printable


@click.command(
    epilog="\b\nExamples:\n  bench rerun run.ebz\n  bench rerun run.ebz -o again.yaml && bench run again.yaml\n"
    "  bench rerun serve.json --set engine=vllm --set precision=fp8 --only doubtful -o again.yaml"
)
@click.argument("run", type=FILE)
@click.option("-o", "--out", type=FILE_ONLY, metavar="FILE", help="Write the scenario here, ready for `bench run`.")
@click.option("--only", type=click.Choice(["doubtful"]), help="Of another tool's file: only the rows that are suspect or invalid.")
@FACTS
@AS_JSON
def rerun(run: Path, out: Path | None, only: Literal["doubtful"] | None, facts: Sequence[str], as_json: bool) -> None:
    """Plan RUN, a capsule or a run folder, again and say what differs here: harness, hardware, engines, inputs, plan.

    Of a result file of another tool: write the scenario that measures the same engine, load and lengths again.

    Relative paths in the scenario start from the folder of FILE, or from the current one.
    """
    found = enginebench.rerun(run, base=out.parent if out is not None else Path(), only=only, facts=facts)
    if out is not None:
        write(out, found.scenario)
    if as_json:
        print_json(found.to_dict())
        return
    for each in found.differences:
        click.echo(printable(str(each)))
    same = "nothing differs here" if not found.differences else f"{counted(len(found.differences), 'difference')}"
    click.echo(f"{printable(found.name)}: {counted(found.cells, 'cell')} of the run would be measured again; {same}")
    click.echo(f"next: bench run {out}" if out else f"next: bench rerun {run} -o again.yaml && bench run again.yaml", err=True)
