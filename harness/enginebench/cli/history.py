"""`bench history`: what changed over the runs of a folder, when, by how much, and what was changed there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FILE, FILE_ONLY, INDEX, RESULTS, ReadingRuns, print_json, write
from enginebench.errors import Exit

_EPILOG = """\b
Examples:
  bench history
  bench history --metric ttft.p99 /var/tmp/enginebench/nightly/gpu_smoke
  bench history --html trends.html --fail-if worse --last 7
\b
A change is one that is surely no chance over all series together (false discovery rate 5 %) and at least as
large as what is equal in practice (3 %). It must last three nights: `bench compare` judges the newest.
"""


@click.command(epilog=_EPILOG)
@click.argument("folder", type=FILE, required=False)
@click.option("--metric", multiple=True, metavar="FIGURE", help="Figure such as ttft.p99 (repeatable); default: tok/s, TTFT and TPOT p50.")
@click.option("--all", "everything", is_flag=True, help="Every series with its trend, not only what changed.")
@click.option("--equal-within", metavar="SHARE", help="Changes below this are not worth saying, e.g. 2%; default: of each metric (3 %).")
@click.option("--fail-if", type=click.Choice(["worse", "changed"]), help="Exit with 1 if something became worse, or changed at all.")
@click.option("--last", type=click.IntRange(min=1), metavar="NIGHTS", help="--fail-if counts only changes in the newest NIGHTS.")
@click.option("--html", "page", type=FILE_ONLY, metavar="FILE", help="Write a page with every trend that opens offline.")
@click.option("--md", "as_markdown", is_flag=True, help="Print Markdown on stdout.")
@INDEX
@AS_JSON
def history(
    folder: Path | None,
    metric: Sequence[str],
    everything: bool,
    equal_within: str | None,
    fail_if: Literal["worse", "changed"] | None,
    last: int | None,
    page: Path | None,
    as_markdown: bool,
    index: str | None,
    as_json: bool,
) -> int:
    """Show what changed over the runs in FOLDER (default: results): each change with its night and what was changed there.

    FOLDER may be the URL of a store. With --index and without FOLDER: over all runs that the index knows."""
    place = folder if folder is not None or index is not None else RESULTS
    found = enginebench.history(place, metric=metric, equal_within=equal_within, index=index, on_run=ReadingRuns())
    if page is not None:
        write(page, found.to_html())
    if as_json:
        print_json(found.to_dict())
    elif as_markdown:
        click.echo(found.to_markdown(), nl=False)
    else:
        click.echo(found.to_text() if everything else found.to_summary(), nl=False)
    return Exit.THRESHOLD if fail_if is not None and found.failed(fail_if, last=last) else Exit.OK
