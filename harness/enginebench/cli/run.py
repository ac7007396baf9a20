"""`bench run`: measure a scenario, store every cell as it ends, show the result."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

import enginebench
from enginebench.cli.placement import placement_options
from enginebench.cli.preflight import refusal, see_now
from enginebench.cli.shared import AS_JSON, RESULTS, Overrides, price_options, scenario_options, show
from enginebench.errors import Exit, UserError

_UNITS = {"s": 1, "m": 60, "h": 3600}


class Duration(click.ParamType[float]):
    """'60s', '5m', '2h' or a number of seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number, unit = (value[:-1], value[-1]) if isinstance(value, str) and value[-1:] in _UNITS else (value, "s")
        try:
            seconds = float(number) * _UNITS[unit]
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds <= 86_400:
            self.fail(f"'{value}' is not a duration up to a day; write e.g. 60s or 5m", param, ctx)
        return seconds


@click.command(
    epilog="\b\nExamples:\n  bench run quickstart\n  bench run scenarios/cpu_engines.yaml --only engine=llamacpp --fresh\n"
    "  bench run my.yaml --json > result.json"
)
@scenario_options
@click.option("--fresh", is_flag=True, help="Start a new run instead of resuming an unfinished one.")
@click.option(
    "--retry-failed", is_flag=True, help="Continue the newest run of this plan: measure failed cells, and those of what was missing, again."
)
@click.option(
    "--results",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    help="The folder of runs, or a store: s3://BUCKET/FOLDER.",
)
@click.option("--client-processes", type=click.IntRange(min=1, max=64), default=1, help="Processes that send the load.")
@click.option("--clients", metavar="LIST", default="", help="Send the load from these hosts: TOKEN@HOST:PORT,..., see bench client.")
@click.option("--wait-quiet", "wait_quiet_s", type=Duration(), default=0.0, help="Wait so long for a busy machine to be quiet, e.g. 60s.")
@click.option("--share-machine", is_flag=True, help="Go on although another run or GPU process uses this machine; cells are suspect.")
@click.option("--otlp", metavar="URL", help="Send live metrics to an OpenTelemetry collector (OTLP over HTTP), e.g. http://localhost:4318.")
@placement_options
@click.option("--dry-run", is_flag=True, help="With --on: print what would be submitted, and submit nothing.")
@click.option("--no-html", is_flag=True, help="Do not write report.html into the run folder.")
@price_options
@AS_JSON
def run(
    scenario: str, overrides: Overrides, clients: str, dry_run: bool, no_html: bool, prices: enginebench.Prices | None, as_json: bool,
    **how: Any,
) -> int:  # fmt: skip
    """Measure SCENARIO (a file, or the name of a built-in one). The same command resumes an interrupted run.

    Exit codes: 0 all cells measured, 2 bad input, 3 cells failed or are missing or all were skipped, 130 interrupted.
    """
    elsewhere = how["on"] is not None
    found = enginebench.plan(scenario, **overrides, elsewhere=elsewhere)
    if dry_run:
        click.echo(_submission(found, how["on"], how["settings"]), nl=False)
        return Exit.OK
    if (
        not elsewhere and (lacking := enginebench.preflight(found)).refused
    ):  # also by `enginebench.run`, whose modules take half a second to import
        show("\n".join(refusal(f"bench run {scenario}", lacking, see_now(scenario, overrides, found, lacking))))
        return Exit.USAGE
    from enginebench.cli.progress import progress

    takes = partial(enginebench.plan_time, found) if found.bounds is not None else None  # unknown hardware needs no physics
    with progress(takes) as on_event:
        named = [each.strip() for each in clients.split(",") if each.strip()]
        stored = enginebench.run(found, **how, clients=named, on_event=on_event)
    return _show(stored.judged_by(prices=prices), as_json=as_json, html=not no_html)


def _submission(plan: enginebench.Plan, on: str | None, settings: dict[str, str]) -> str:
    if on is None:
        raise UserError("--dry-run shows what --on would submit", advice="see what runs here with: bench plan SCENARIO")
    return enginebench.submission(plan, on, settings)


def _show(stored: enginebench.Run, *, as_json: bool, html: bool) -> int:
    if html:
        from enginebench.report.run import write_text

        write_text(stored.path / "report.html", stored.report("html"))
    click.echo("", err=True)
    click.echo(stored.report("json" if as_json else "summary"), nl=False)
    if problem := stored.analysis.incomplete:
        click.echo(f"{problem}: exit code {int(Exit.CELLS_FAILED)}", err=True)
    return Exit.CELLS_FAILED if problem else Exit.OK
