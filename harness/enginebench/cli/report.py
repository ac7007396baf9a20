"""`bench report`: a stored run as a table, Markdown, CSV, JSON or a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import click

from enginebench.cli.shared import RESULTS
from enginebench.errors import UserError

F = TypeVar("F", bound=Callable[..., object])

_SUFFIXES = {"html": (".html", ".htm"), "md": (".md", ".markdown"), "csv": (".csv",), "json": (".json",)}
_ALONE = "(alone)"
"""What an option without a value is given."""


def _form(name: str, what: str) -> Callable[[F], F]:
    return click.option(f"--{name}", name, metavar="[FILE]", is_flag=False, flag_value=_ALONE, help=what)


@click.command(
    epilog="\b\nExamples:\n  bench report\n  bench report results/2026-11-21-quickstart --html report.html\n  bench report --csv | head"
)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@_form("html", "Write a self-contained HTML page that opens offline; without FILE: RUN/report.html.")
@_form("md", "Write a Markdown table; without FILE (or '-'): to stdout.")
@_form("csv", "Write tidy CSV; without FILE (or '-'): to stdout.")
@_form("json", "Write JSON; without FILE (or '-'): to stdout.")
def report(run: Path | None, **asked: str | None) -> None:
    """Show a stored RUN (default: the newest under results/) as a table, or write it in another form."""
    from enginebench.analysis import analyse
    from enginebench.report import render_table, to_csv, to_json, to_markdown
    from enginebench.report.html import render_html
    from enginebench.store import open_run

    targets = {form: value for form, value in asked.items() if value is not None}
    for form, value in targets.items():
        if Path(value).is_dir():  # `--json RUN`: a folder cannot be written to, so it is the run
            if run is not None and run != Path(value):
                raise UserError(f"--{form} {value}: that is a folder, and the run is {run}", advice=f"write a file name, or --{form} alone")
            run, targets[form] = Path(value), _ALONE
        elif not _is_file_for(form, value):
            advice = f"end the file's name in {_SUFFIXES[form][0]}; a run stands before the options: bench report {value} --{form}"
            raise UserError(f"--{form} {value}: that is neither a run nor a {form} file", advice=advice)
    opened = open_run(run or _newest())
    analysis = analyse(opened)
    render = {
        "html": lambda: render_html(opened, analysis),
        "md": lambda: to_markdown(analysis),
        "csv": lambda: to_csv(analysis),
        "json": lambda: to_json(analysis),
    }
    for form, value in targets.items():
        alone = opened.path / "report.html" if form == "html" else Path("-")
        _write(alone if value == _ALONE else Path(value), render[form]())
    if not targets:
        click.echo(render_table(analysis), nl=False)


def _is_file_for(form: str, value: str) -> bool:
    """By its name, or because it is there already (a pipe, /dev/stdout); a run that is misspelt must not become a file."""
    return value in ("-", _ALONE) or Path(value).suffix.lower() in _SUFFIXES[form] or Path(value).exists()


def _newest() -> Path:
    runs = sorted(RESULTS.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise UserError("there is no run here yet", file=RESULTS, advice="make one: bench run quickstart")
    return runs[-1].parent


def _write(target: Path, text: str) -> None:
    from enginebench.store import write_atomically

    if str(target) == "-":
        click.echo(text, nl=False)
        return
    try:
        if target.exists() and not target.is_file():
            target.write_text(text, encoding="utf-8")  # a pipe or a terminal cannot be replaced by a finished file
        else:
            write_atomically(target, text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", file=target, advice="the folder must exist and be writable") from None
    click.echo(f"wrote {target}", err=True)
