"""`bench report`: a stored run as an answer, a table, Markdown, CSV, JSON, a self-contained HTML page or a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import FACTS, FILE, Command, json_text, price_options, print_json, write
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
    "  bench report --slo ttft_ms=500,tpot_ms=50\n  bench report --price h100.hour=2.50\n"
    "  bench report results/2026-11-21-nightly results/2026-11-22-nightly results/2026-11-23-nightly"
)
@click.argument("runs", type=FILE, nargs=-1, metavar="[RUN]...")
@_form("html", "Write a self-contained HTML page that opens offline; without FILE: RUN/report.html, of several runs side-by-side.html.")
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
@FACTS
def report(
    runs: tuple[Path, ...],
    slo: str | None,
    prices: enginebench.Prices | None,
    equal_within: str | None,
    view: enginebench.Form | None,
    facts: tuple[str, ...],
    **asked: str | None,
) -> None:
    """Show the answer of a stored RUN, a folder or a capsule (default: the newest under results/), or write it in another form.

    Several runs are shown side by side: what differs around them, then each figure with a column per run.
    """
    if len(runs) > 1:
        judged = [enginebench.open_run(each, facts=facts).judged_by(slo=slo, prices=prices, equal_within=equal_within) for each in runs]
        _side_by_side(judged, view, asked)
        return
    run, targets = _targets(next(iter(runs), None), asked)
    opened = enginebench.open_run(run, facts=facts) if run is not None else enginebench.latest_run()
    opened = opened.judged_by(slo=slo, prices=prices, equal_within=equal_within)
    for form, value in targets.items():
        page = _page(run, opened)
        alone = page if form == "html" else Path("-")
        target = alone if value == _ALONE else Path(value)
        if str(target) == "-":
            click.echo(opened.report(form), nl=False)
        else:
            write(target, opened.report(form))
    if view or not targets:
        click.echo(opened.report(view or "summary"), nl=False)


def _page(run: Path | None, opened: enginebench.Run) -> Path:
    """Where `--html` without a file writes to: into the run; of a capsule beside it, and of a run in a store here."""
    if run is not None and run.is_file():
        return run.with_suffix(".html")
    return opened.path / "report.html" if run is None or run.exists() else Path(f"{opened.path.name}.html")


def _side_by_side(runs: list[enginebench.Run], view: enginebench.Form | None, asked: dict[str, str | None]) -> None:
    given = {form: value for form in _SUFFIXES if (value := asked[form]) is not None}
    if other := next((form for form in (*given, view) if form not in (None, "html", "json", "text", "latency")), None):
        raise UserError(f"--{other} is of one run", advice="several have --table, --latency, --html and --json")
    for form, value in given.items():
        if value != _ALONE and not _is_file_for(form, value):
            advice = f"end the file's name in {_SUFFIXES[form][0]}; runs stand before the options"
            raise UserError(f"--{form} {value}: that is no {form} file", advice=advice)
    found = enginebench.side_by_side(runs)
    if (target := given.get("html")) is not None:
        write(Path("side-by-side.html" if target == _ALONE else target), found.to_html())
    if (target := given.get("json")) in (_ALONE, "-"):
        print_json(found.to_dict())
    elif target is not None:
        write(Path(target), json_text(found.to_dict()))
    if view == "text" or view == "latency":
        click.echo(found.to_text(view), nl=False)
    elif not given:
        click.echo(found.to_text(), nl=False)


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
