"""`bench view`: the runs in a folder as pages on this machine."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import FILE, INDEX, RESULTS


@click.command(epilog="\b\nExamples:\n  bench view\n  bench view results/2026-11-21-quickstart\n  bench view results --port 8080")
@click.argument("folder", metavar="[FOLDER|RUN]", type=FILE, default=RESULTS)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port on 127.0.0.1; 0: a free one.")
@INDEX
def view(folder: Path, port: int, index: str | None) -> None:
    """Show the runs in FOLDER (default: results), or one RUN, in a browser; a run that is going on is followed. Ctrl-C ends it.

    Only this machine can reach the pages, and they only read. Everyone who is logged in here can open them.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.nice(5)  # a run beside it comes first
    with contextlib.suppress(KeyboardInterrupt), enginebench.view(folder, port=port, index=index) as viewing:
        click.echo(viewing.url)
        click.echo("Ctrl-C ends it", err=True)
        viewing.serve()
