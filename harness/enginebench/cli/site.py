"""`bench site`: all runs in a folder as a static site."""

from __future__ import annotations

from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import FILE, INDEX, RESULTS, show
from enginebench.domain.formatting import counted, size


@click.command(epilog="\b\nExamples:\n  bench site results -o public/\n  bench site /var/tmp/enginebench/nightly -o public/")
@click.argument("folder", type=FILE, default=RESULTS)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A new or empty folder, or one written before.")
@INDEX
def site(folder: Path, output: Path, index: str | None) -> None:
    """Write the runs in FOLDER, and in folders within it, as a static site: answer, trends, a page for each run, any two compared, JSON.

    The next call writes only what changed. The files open from a folder or any web server; comparing needs a server.
    """
    found = enginebench.build_site(folder, output, index=index, on_run=lambda name: show(f"  {name}"))
    for text in found.refused:
        show(f"warning: left out: {text}")
    changed = f"{counted(len(found.written), 'file')} written, {len(found.removed)} removed"
    click.echo(
        f"{found.path / 'index.html'}: {counted(found.runs, 'run')}, {found.rendered} of them new or changed, {changed}, {size(found.size)}"
    )
