"""`bench report`: a stored run as a table, Markdown, CSV, JSON or a self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import click

from enginebench.cli.shared import RESULTS
from enginebench.errors import UserError

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)


@click.command(
    epilog="\b\nExamples:\n  bench report\n  bench report results/2026-11-21-quickstart --html report.html\n  bench report --csv - | head"
)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@click.option("--html", type=_FILE, metavar="FILE", help="Write a self-contained HTML page that opens offline.")
@click.option("--md", type=_FILE, metavar="FILE", help="Write a Markdown table ('-' for stdout).")
@click.option("--csv", type=_FILE, metavar="FILE", help="Write tidy CSV ('-' for stdout).")
@click.option(
    "--json", "json_file", type=_FILE, metavar="FILE", is_flag=False, flag_value=Path("-"), help="Write JSON (stdout by default)."
)
def report(run: Path | None, html: Path | None, md: Path | None, csv: Path | None, json_file: Path | None) -> None:
    """Show a stored RUN (default: the newest under results/) as a table, or write it in another form."""
    from enginebench.analysis import analyse
    from enginebench.report import render_table, to_csv, to_json, to_markdown, write_html
    from enginebench.store import open_run

    opened = open_run(run or _newest())
    analysis = analyse(opened)
    for target, render in ((md, to_markdown), (csv, to_csv), (json_file, to_json)):
        if target is not None:
            _write(target, render(analysis))
    if html is not None:
        _tell(write_html(opened, analysis, html))
    if not any((html, md, csv, json_file)):
        click.echo(render_table(analysis), nl=False)


def _newest() -> Path:
    runs = sorted(RESULTS.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise UserError("there is no run here yet", file=RESULTS, advice="make one: bench run quickstart")
    return runs[-1].parent


def _write(target: Path, text: str) -> None:
    if str(target) == "-":
        click.echo(text, nl=False)
    else:
        from enginebench.store import write_atomically

        write_atomically(target, text)
        _tell(target)


def _tell(path: Path) -> None:
    click.echo(f"wrote {path}", err=True)
