"""`bench report`: a stored run as a table, Markdown, CSV, JSON or a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from enginebench.cli.shared import RESULTS, price_options, prices_of, write_text
from enginebench.errors import UserError

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.metrics.slo import Slo

F = TypeVar("F", bound=Callable[..., object])

_SUFFIXES = {"html": (".html", ".htm"), "md": (".md", ".markdown"), "csv": (".csv",), "json": (".json",)}
_ALONE = "(alone)"
"""What an option without a value is given."""


def _form(name: str, what: str) -> Callable[[F], F]:
    return click.option(f"--{name}", name, metavar="[FILE]", is_flag=False, flag_value=_ALONE, help=what)


@click.command(
    epilog="\b\nExamples:\n  bench report\n  bench report results/2026-11-21-quickstart --html report.html\n  bench report --csv | head\n"
    "  bench report --slo ttft_ms=500,tpot_ms=50\n  bench report --price h100.hour=2.50"
)
@click.argument("run", type=click.Path(path_type=Path), required=False)
@_form("html", "Write a self-contained HTML page that opens offline; without FILE: RUN/report.html.")
@_form("md", "Write a Markdown table; without FILE (or '-'): to stdout.")
@_form("csv", "Write tidy CSV; without FILE (or '-'): to stdout.")
@_form("json", "Write JSON; without FILE (or '-'): to stdout.")
@price_options
@click.option(
    "--slo", metavar="SLO", help="Judge by this instead of the stored limits: a preset, or KEY=VALUE,... such as ttft_ms=500,tpot_ms=50."
)
def report(run: Path | None, slo: str | None, prices: Path | None, flags: Sequence[str], **asked: str | None) -> None:
    """Show a stored RUN (default: the newest under results/) as a table, or write it in another form."""
    from enginebench.analysis.analysis import analyse
    from enginebench.domain import plain_object
    from enginebench.records.store import open_run
    from enginebench.report import render_table, to_csv, to_json, to_markdown
    from enginebench.report.html import render_html

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
    if slo is not None:
        opened.record = replace(opened.record, slo=plain_object(_slo(slo)))
    analysis = analyse(opened, prices_of(prices, flags))
    render = {
        "html": lambda: render_html(opened, analysis),
        "md": lambda: to_markdown(analysis),
        "csv": lambda: to_csv(analysis),
        "json": lambda: to_json(analysis),
    }
    for form, value in targets.items():
        alone = opened.path / "report.html" if form == "html" else Path("-")
        target = alone if value == _ALONE else Path(value)
        if str(target) == "-":
            click.echo(render[form](), nl=False)
        else:
            write_text(target, render[form]())
    if not targets:
        click.echo(render_table(analysis), nl=False)


def _slo(text: str) -> Slo:
    """'mlperf/deepseek-r1', or 'ttft_ms=500,tpot_ms=50' with the keys of a scenario's `slo`."""
    from enginebench.metrics.slo import parse

    if "=" not in text:
        return parse(text)
    written: dict[str, JSON] = {}
    for item in text.split(","):
        key, _, value = map(str.strip, item.partition("="))
        try:
            written[key] = value if key == "preset" else float(value)
        except ValueError:
            advice = "write e.g. --slo ttft_ms=500,tpot_ms=50,share=0.99, or a preset's name"
            raise UserError(f"--slo {item.strip()}: expected KEY=NUMBER", advice=advice) from None
    return parse(written)


def _is_file_for(form: str, value: str) -> bool:
    """By its name, or because it is there already (a pipe, /dev/stdout); a run that is misspelt must not become a file."""
    return value in ("-", _ALONE) or Path(value).suffix.lower() in _SUFFIXES[form] or Path(value).exists()


def _newest() -> Path:
    runs = sorted(RESULTS.glob("*/run.json"), key=lambda file: file.stat().st_mtime)
    if not runs:
        raise UserError("there is no run here yet", file=RESULTS, advice="make one: bench run quickstart")
    return runs[-1].parent
