"""`bench report`: a stored run as an answer, a table, Markdown, CSV, JSON, a self-contained HTML page or a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import FILE, Command, price_options, write
from enginebench.errors import UserError

_SUFFIXES: dict[enginebench.Form, tuple[str, ...]] = {
    "html": (".html", ".htm"),
    "md": (".md", ".markdown"),
    "csv": (".csv",),
    "json": (".json",),
    "svg": (".svg",),
}
_ALONE = "(alone)"
"""The value of an option that is written without one."""


def _form(name: str, what: str) -> Callable[[Command], Command]:
    return click.option(f"--{name}", name, metavar="[FILE]", is_flag=False, flag_value=_ALONE, help=what)


@click.command(
    epilog="\b\nExamples:\n  bench report\n  bench report --table\n"
    "  bench report results/2026-11-21-quickstart --html report.html\n  bench report --csv | head\n"
    "  bench report --slo ttft_ms=500,tpot_ms=50\n  bench report --price h100.hour=2.50"
)
@click.argument("run", type=FILE, required=False)
@_form("html", "Write a self-contained HTML page that opens offline; without FILE: RUN/report.html.")
@_form("md", "Write a Markdown table; without FILE (or '-'): to stdout.")
@_form("csv", "Write tidy CSV; without FILE (or '-'): to stdout.")
@_form("json", "Write JSON; without FILE (or '-'): to stdout.")
@_form("svg", "Write the answer as a picture, for a README; it follows the reader's light or dark theme. Without FILE: to stdout.")
@click.option("--table", "view", flag_value="text", help="Print every row with all its figures instead of the answer.")
@click.option("--latency", "view", flag_value="latency", help="Print TTFT and TPOT at every load.")
@click.option("--why", "view", flag_value="why", help="Print what the answer rests on: how sure it is, each reason for doubt, its fix.")
@price_options
@click.option("--slo", metavar="SLO", help="Instead of the stored limits: a preset, or KEY=VALUE,... such as ttft_ms=500,tpot_ms=50.")
@click.option("--equal-within", metavar="SHARE", help="Differences below this are equal in practice, e.g. 3%; default: the scenario's.")
def report(
    run: Path | None,
    slo: str | None,
    prices: enginebench.Prices | None,
    equal_within: str | None,
    view: enginebench.Form | None,
    **asked: str | None,
) -> None:
    """Show the answer of a stored RUN, a folder or a capsule (default: the newest under results/), or write it in another form."""
    run, targets = _targets(run, asked)
    opened = enginebench.open_run(run) if run is not None else enginebench.latest_run()
    opened = opened.judged_by(slo=slo, prices=prices, equal_within=equal_within)
    for form, value in targets.items():
        page = run.with_suffix(".html") if run is not None and run.is_file() else opened.path / "report.html"
        alone = page if form == "html" else Path("-")
        target = alone if value == _ALONE else Path(value)
        if str(target) == "-":
            click.echo(opened.report(form), nl=False)
        else:
            write(target, opened.report(form))
    if view or not targets:
        click.echo(opened.report(view or "summary"), nl=False)


def _targets(run: Path | None, asked: dict[str, str | None]) -> tuple[Path | None, dict[enginebench.Form, str]]:
    """The run, and the file of each form. `--json RUN` names the run: a folder cannot be written to."""
    targets: dict[enginebench.Form, str] = {form: value for form in _SUFFIXES if (value := asked[form]) is not None}
    for form, value in targets.items():
        if Path(value).is_dir():
            if run is not None and run != Path(value):
                raise UserError(f"--{form} {value}: that is a folder, and the run is {run}", advice=f"write a file name, or --{form} alone")
            run, targets[form] = Path(value), _ALONE
        elif not _is_file_for(form, value):
            advice = f"end the file's name in {_SUFFIXES[form][0]}; a run stands before the options: bench report {value} --{form}"
            raise UserError(f"--{form} {value}: that is neither a run nor a {form} file", advice=advice)
    return run, targets


def _is_file_for(form: enginebench.Form, value: str) -> bool:
    """By its suffix, or because it exists (a pipe, /dev/stdout); a misspelt run must not become a file."""
    return value in ("-", _ALONE) or Path(value).suffix.lower() in _SUFFIXES[form] or Path(value).exists()
