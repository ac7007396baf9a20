"""`bench pack`: a run as one file."""

from __future__ import annotations

from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import FILE, FILE_ONLY, show_notes


@click.command(
    epilog="\b\nExamples:\n  bench pack results/2026-11-21-quickstart -o run.ebz\n  bench verify run.ebz\n  bench report run.ebz"
)
@click.argument("run", type=FILE)
@click.option("-o", "--out", type=FILE_ONLY, metavar="FILE", help="The capsule to write; default: <name of the run's folder>.ebz here.")
def pack(run: Path, out: Path | None) -> None:
    """Write RUN as one file, a capsule: records, raw samples, logs, figures, and hashes of all that it was measured with.

    The same run makes the same bytes. A run that holds a secret (the value of a secret environment variable, or a token of a known form)
    is not packed.
    """
    packed = enginebench.pack(run, out)
    show_notes(packed.notes)
    click.echo(f"{packed.sha256}  {packed.path}")
    size = packed.path.stat().st_size
    click.echo(f"packed {len(packed.manifest.files):,} files, {size / 1e6:.2f} MB   next: bench verify {packed.path}", err=True)
