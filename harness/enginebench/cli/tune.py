"""`bench tune`: the best options of each engine for the loads of a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

import enginebench
from enginebench.cli.preflight import refusal, see_now
from enginebench.cli.run import Duration
from enginebench.cli.shared import AS_JSON, RESULTS, Overrides, print_json, scenario_options, show, write
from enginebench.domain import JSON, plain_object
from enginebench.domain.formatting import counted, printable
from enginebench.errors import Exit


@click.command(
    epilog="\b\nExamples:\n  bench tune my.yaml --budget 2h\n  bench tune my.yaml --goal ttft.p99 --only engine=vllm\n"
    "  bench tune my.yaml --budget 30m --write tuned.yaml\n  bench tune my.yaml --list"
)
@scenario_options
@click.option("--budget", "budget_s", type=Duration(), default="30m", help="Engine time for each deployment, e.g. 90s, 30m, 2h.")
@click.option("--goal", metavar="FIGURE", help="goodput, throughput, ttft, tpot.p99, ...  [default: goodput with an SLO, else throughput]")
@click.option("--lossy", is_flag=True, help="Also try options that change the output, such as a quantized KV cache.")
@click.option("--list", "only_list", is_flag=True, help="Show what would be tried, and start nothing.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of what is tried.")
@click.option("--fresh", is_flag=True, help="Start anew instead of going on with an unfinished tuning.")
@click.option(
    "--write", "written", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write a scenario with the default and the tuned servers there, beside SCENARIO, to run them side by side.",
)  # fmt: skip
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, help="The folder of runs.")
@click.option("--wait-quiet", "wait_quiet_s", type=Duration(), default=0.0, help="Wait so long for a busy machine to be quiet, e.g. 60s.")
@click.option("--share-machine", is_flag=True, help="Go on although another run or GPU process uses this machine; cells are suspect.")
@AS_JSON
def tune(
    scenario: str, overrides: Overrides, budget_s: float, goal: str | None, seed: int, lossy: bool, only_list: bool, as_json: bool,
    written: Path | None, **how: Any,
) -> int:  # fmt: skip
    """Search the options of each engine in SCENARIO for its loads. The same command goes on after an interruption.

    Every deployment gets the same engine time. The default and the tuned server are then measured on fresh restarts, so the gain is not
    that of a lucky trial. Options that the scenario writes are left as they are. Needs Optuna: pip install 'enginebench[tune]'.
    """
    found = enginebench.plan(scenario, **overrides)
    what: dict[str, Any] = {"budget_s": budget_s, "goal": goal, "seed": seed, "lossy": lossy}
    if only_list:
        _list(enginebench.tunable(found, **what), as_json=as_json)
        return Exit.OK
    if (lacking := enginebench.preflight(found)).refused:
        show("\n".join(refusal(f"bench tune {scenario}", lacking, see_now(scenario, overrides, found, lacking))))
        return Exit.USAGE
    from enginebench.cli.progress import progress

    with progress(None) as on_event:
        stored = enginebench.tune(found, **what, **how, on_event=on_event)
    click.echo("", err=True)
    if written is not None:
        write(written, enginebench.tuned_scenario(stored))
    if as_json:
        print_json([plain_object(its) for its in stored.tuned])
    else:
        click.echo(stored.report("tuning"), nl=False)
        click.echo(f"next: bench {f'run {written}' if written else f'report {stored.path}'}", err=True)
    return Exit.OK if all(its.gain is not None for its in stored.tuned) else Exit.CELLS_FAILED


def _list(found: list[enginebench.Tunables], *, as_json: bool) -> None:
    if as_json:
        data: list[JSON] = [plain_object(its) for its in found]
        print_json(data)
        return
    for its in found:
        click.echo(printable(f"{its.name}: {its.text}"))
        for each in its.options:
            values = ", ".join("none" if value is None else f"{value}" for value in each.values)
            default = "the engine decides" if each.default is None else f"{each.default}"
            cost = "" if each.cost == "restart" else f"; {each.cost}s at the start"
            click.echo(printable(f"  {each.name}: {values} (default: {default}{cost})"))
    click.echo(f"next: the same without --list measures {counted(len(found), 'deployment')}", err=True)
