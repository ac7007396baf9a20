"""`bench plan`: everything that would happen; launches nothing."""

from __future__ import annotations

import click

import enginebench
from enginebench.cli.placement import placement_options, placing_text
from enginebench.cli.preflight import conclusion, missing_here
from enginebench.cli.shared import AS_JSON, Overrides, command_line, expectation_options, print_json, scenario_options
from enginebench.domain import plain, plain_object
from enginebench.domain.formatting import printable

_FEW = 1000
"""Cells up to which a plan also says without -v what cannot be launched here."""


@click.command(epilog="\b\nExamples:\n  bench plan quickstart\n  bench plan scenarios/cpu_engines.yaml -v --only engine=transformers")
@scenario_options
@expectation_options
@placement_options
@click.option("-v", "--verbose", is_flag=True, help="Also the launch command of every deployment.")
@AS_JSON
def plan(
    scenario: str, overrides: Overrides, expectations: enginebench.Expectations | None, on: str | None, settings: dict[str, str],
    verbose: bool, as_json: bool,
) -> None:  # fmt: skip
    """Show whether SCENARIO runs here, its cells, what is skipped and why, and with -v the launch commands. Launches nothing.

    If the hardware is known (`hardware` in the scenario, --hardware, or the GPUs of this machine), also what fits it, and how long
    the loads take: expected, and at least.
    """
    from enginebench.report.plan import plan_to_dict, plan_to_text

    found = enginebench.plan(scenario, **overrides, expectations=expectations, elsewhere=on is not None)
    if on is not None:
        placed = enginebench.placing(found, on, settings)
        commands = enginebench.launch_commands(found) if verbose or as_json else ()
        data = {**plain_object(plan_to_dict(found, commands)), "on": on, "placing": plain(placed)} if as_json else {}
        print_json(data) if as_json else click.echo(plan_to_text(found, commands, verbose=verbose) + placing_text(placed), nl=False)
        return
    lacking = enginebench.preflight(found)
    if as_json:
        print_json(plan_to_dict(found, enginebench.launch_commands(found), [each.what for each in lacking.missing]))
        return
    commands = enginebench.launch_commands(found) if verbose or len(found.cells) <= _FEW else ()
    click.echo(printable(conclusion(found, lacking)))
    click.echo(plan_to_text(found, commands, verbose=verbose), nl=False)
    for line in missing_here(lacking):
        click.echo(printable(line))
    if not lacking.refused:
        click.echo(f"next: {command_line('run', scenario, overrides)}")
