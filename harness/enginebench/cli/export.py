"""`bench export`: a run in the format of another program."""

from __future__ import annotations

import sys
from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import FILE, show, show_notes
from enginebench.errors import UserError


@click.command(
    epilog="\b\nExamples:\n  bench export results/2026-11-21-quickstart --to vllm -o serve/\n"
    "  bench export run.ebz --to sqlite -o run.sqlite\n"
    "  bench export RUN --to openmetrics -o - | curl --data-binary @- http://localhost:9091/metrics/job/bench"
)
@click.argument("run", type=FILE, required=False)
@click.option("--to", "format_", metavar="FORMAT", help="The format; without it, the formats are listed.")
@click.option("-o", "--out", type=FILE, metavar="PATH", help="File or folder; -: stdout. Default: <run>-<format> here, with its suffix.")
def export(run: Path | None, format_: str | None, out: Path | None) -> None:
    """Write RUN, a folder or a capsule (default: the newest under results/), in the format of another program.

    A metric with another definition there is computed by that definition, from the raw samples. What the format cannot hold is left out,
    and said.
    """
    if format_ is None:
        width = max(map(len, formats := enginebench.export_formats()))
        for name, text in formats.items():
            click.echo(f"{name:{width}}  {text}")
        return
    opened = enginebench.open_run(run) if run is not None else enginebench.latest_run()
    exported = enginebench.export(opened, format_)
    show_notes(exported.notes)
    if str(out) == "-":
        if len(exported.files) > 1:
            raise UserError(
                f"--to {format_} writes {len(exported.files)} files, which cannot go to stdout", advice="name a folder: -o FOLDER"
            )
        sys.stdout.flush()
        sys.stdout.buffer.write(next(iter(exported.files.values())))
        return
    written = exported.write(out if out is not None else _default(run or opened.path, format_, exported))
    place = written[0] if len(written) == 1 else f"{len(written)} files in {written[0].parent if out is None else out}"
    show(f"wrote {place}")


def _default(run: Path, format_: str, exported: enginebench.Exported) -> Path:
    name = f"{run.resolve().name.removesuffix('.ebz')}-{format_}"
    only = next(iter(exported.files)) if len(exported.files) == 1 else ""
    return Path(name + Path(only).suffix)
