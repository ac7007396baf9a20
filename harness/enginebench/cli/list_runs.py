"""`bench list`: the stored runs of a folder, or the scenarios that can be run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FILE, INDEX, RESULTS, ReadingRuns, print_json
from enginebench.domain import plain
from enginebench.domain.formatting import printable
from enginebench.errors import UserError

_HERE = {"whole": "runs here", "part": "a part runs here", "no": "not here"}


@click.command("list", epilog="\b\nExamples:\n  bench list\n  bench list nightly/ --json | jq '.runs[0].trust'\n  bench list --scenarios")
@click.argument("folder", type=FILE, required=False)
@click.option("--scenarios", is_flag=True, help="The built-in scenarios and those of FOLDER (default: this one), and what they need.")
@INDEX
@AS_JSON
def list_runs(folder: Path | None, scenarios: bool, index: str | None, as_json: bool) -> None:
    """List the runs of FOLDER (default: results), newest first: what, when, where, and how they ended.

    FOLDER may be the URL of a store. A run is read when it has changed; what was read is kept in an index in the cache folder, or in
    that of --index: then, without FOLDER, all runs that it knows are listed.
    """
    if scenarios:
        found = enginebench.list_scenarios(folder or Path())
        if as_json:
            print_json([plain(each) for each in found])
            return
        for each in found:
            for line in _scenario(each):
                click.echo(printable(line))
        click.echo("what one lacks here: bench plan NAME")
        return
    place = folder if folder is not None or index is not None else RESULTS
    if place is not None and (place / "run.json").is_file():
        raise UserError("is a run, not a folder of runs", file=place, advice=f"bench report {place}")
    found_runs = enginebench.run_index(place, index=index, on_run=ReadingRuns())
    if as_json:
        print_json(enginebench.index_to_dict(found_runs))
    else:
        click.echo(enginebench.index_to_text(found_runs), nl=False)


def _scenario(each: enginebench.ListedScenario) -> Iterator[str]:
    """The name with what it is for; below it, what it needs and whether that is here."""
    yield shorten(f"{each.name}: {each.problem or each.title or 'no title'}", 80, placeholder="...")
    if not each.problem:
        yield "  " + shorten(f"{_HERE[each.runs_here]} · needs {', '.join(each.needs)} · {each.size}", 78, placeholder="...")
