"""`bench import`: another tool's result files as a run."""

from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import FACTS, FILE, RESULTS

_MOST_SHOWN = 200_000
"""Requests whose figures are computed at once: half a million take 480 MB, and the import itself less than 300."""


@click.command(
    "import",
    epilog="\b\nExamples:\n  vllm bench serve ... --save-result --save-detailed\n"
    "  bench import serve.json --set engine=vllm --set hardware=4xh100\n  bench import sweep/ && bench report",
)
@click.argument("files", type=FILE, nargs=-1, required=True, metavar="FILE|FOLDER...")
@FACTS
@click.option("-o", "--results", type=FILE, default=RESULTS, metavar="FOLDER", help="Folder of runs.")
def import_file(files: tuple[Path, ...], facts: tuple[str, ...], results: Path) -> None:
    """Store what another tool wrote to FILE, or to the files of FOLDER, as a run, such as the JSON of `vllm bench serve --save-result`.

    The format is told by the content; the error for an unknown one lists those that can be read. Where a file has single requests they
    become samples, with all metrics and checks; else the run has only the figures that the file states, and says so. docs/dialects.md
    says what each tool's figures mean.
    """
    run = enginebench.import_file(files, results=results, facts=facts)
    if (requests := run.folder.requests()) > _MOST_SHOWN:
        click.echo(f"{requests:,} requests: too many to show in little memory, so nothing is shown here", err=True)
    else:
        click.echo(run.report(), nl=False)
    click.echo(f"\nsaved {len(run.folder.record.cells)} cells -> {run.path}", err=True)
    click.echo(f"next: bench report {run.path}   (--html, --md, --csv, --json)", err=True)
