"""`bench verify`: whether a capsule is what it says."""

from __future__ import annotations

from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FILE, print_json, show_notes
from enginebench.domain.formatting import counted, printable
from enginebench.errors import Exit


@click.command(epilog="\b\nExamples:\n  bench verify run.ebz\n  bench verify run.ebz --json")
@click.argument("capsule", type=FILE)
@AS_JSON
def verify(capsule: Path, as_json: bool) -> int:
    """Check every hash of CAPSULE, and compute every figure again from its raw samples.

    Names each file and figure that differs. Exit code 1 if one does, 2 if the file is no capsule or unsafe to unpack.
    """
    found = enginebench.verify(capsule)
    if as_json:
        print_json(found.to_dict())
    else:
        for each in found.discrepancies:
            click.echo(f"{each.kind} {printable(str(each))}")
        show_notes(found.notes)
        files, figures = counted(found.files, "file"), counted(found.figures, "figure")
        if found.holds:
            click.echo(f"{capsule}: {files} as packed, {figures} computed again from the raw samples: all the same")
        else:
            click.echo(f"{capsule}: {len(found.discrepancies)} of {files} and {figures} differ")
    return Exit.OK if found.holds else Exit.THRESHOLD
