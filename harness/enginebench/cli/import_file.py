"""`bench import`: another tool's result file as a run."""

from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import FILE, RESULTS


@click.command("import", epilog="\b\nExamples:\n  vllm bench serve ... --save-result\n  bench import serve.json\n  bench report")
@click.argument("file", type=FILE)
@click.option("-o", "--results", type=FILE, default=RESULTS, metavar="FOLDER", help="Folder of runs.")
def import_file(file: Path, results: Path) -> None:
    """Store the figures of FILE, which another tool wrote, as a run, such as the JSON of `vllm bench serve --save-result`.

    The error for an unknown format lists those that can be read. An imported run has no raw samples. Its
    report says so, and that most validity checks could not be applied.
    """
    run = enginebench.import_file(file, results=results)
    click.echo(run.report(), nl=False)
    click.echo(f"\nsaved {len(run.folder.record.cells)} cells -> {run.path}", err=True)
    click.echo(f"next: bench report {run.path}   (--html, --md, --csv, --json)", err=True)
