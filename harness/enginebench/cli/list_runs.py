"""`bench list`: the stored runs of a folder, or the scenarios that can be run."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FILE, print_json
from enginebench.domain import plain
from enginebench.domain.formatting import printable
from enginebench.errors import UserError

_HERE = {"whole": "runs here", "part": "a part runs here", "no": "not here"}
_EVERY_S = 1.0


@click.command("list", epilog="\b\nExamples:\n  bench list\n  bench list nightly/ --json | jq '.runs[0].trust'\n  bench list --scenarios")
@click.argument("folder", type=FILE, required=False)
@click.option("--scenarios", is_flag=True, help="The built-in scenarios and those of FOLDER (default: this one), and what they need.")
@AS_JSON
def list_runs(folder: Path | None, scenarios: bool, as_json: bool) -> None:
    """List the runs of FOLDER (default: results), newest first: what, when, where, and how they ended.

    A run is read when it has changed; what was read is kept in an index in the cache folder.
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
    place = folder or Path("results")
    if (place / "run.json").is_file():
        raise UserError("is a run, not a folder of runs", file=place, advice=f"bench report {place}")
    index = enginebench.run_index(place, on_run=_Progress())
    if as_json:
        print_json(enginebench.index_to_dict(index))
    else:
        click.echo(enginebench.index_to_text(index), nl=False)


class _Progress:
    """Says on stderr how far it is, once a second, if it takes that long."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, every: int) -> None:
        now = time.monotonic()
        if now - self._last > _EVERY_S:
            self._last = now
            left = (now - self._began) / max(done, 1) * (every - done)
            end = "\r" if sys.stderr.isatty() else "\n"
            click.echo(f"read {done:,} of {every:,} new or changed runs, about {left:.0f} s left   ", err=True, nl=False)
            click.echo(end, err=True, nl=False)


def _scenario(each: enginebench.ListedScenario) -> Iterator[str]:
    """The name with what it is for; below it, what it needs and whether that is here."""
    yield shorten(f"{each.name}: {each.problem or each.title or 'no title'}", 80, placeholder="...")
    if not each.problem:
        yield "  " + shorten(f"{_HERE[each.runs_here]} · needs {', '.join(each.needs)} · {each.size}", 78, placeholder="...")
