"""`bench run`: measure a scenario, store every cell as it ends, show the answer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginebench.cli.shared import AS_JSON, RESULTS, installs_of, planned, price_options, prices_of, scenario_options, show
from enginebench.errors import Exit, UserError

if TYPE_CHECKING:
    from enginebench.domain import JSON, Deployment, Runtime
    from enginebench.engines.registry import Registry
    from enginebench.metrics.costs import Prices
    from enginebench.records.store import Run
    from enginebench.scenario.plan import Plan


@click.command(
    epilog="\b\nExamples:\n  bench run quickstart\n  bench run scenarios/cpu_engines.yaml --only engine=llamacpp --fresh\n"
    "  bench run my.yaml --json > result.json"
)
@scenario_options
@click.option("--fresh", is_flag=True, help="Start a new run instead of resuming an unfinished one.")
@click.option("--retry-failed", is_flag=True, help="Continue the newest run of this plan and measure its failed cells again.")
@click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=RESULTS, show_default=True, help="Where runs are kept."
)
@click.option("--client-processes", type=click.IntRange(min=1, max=64), default=1, show_default=True, help="Processes that send the load.")
@click.option("--no-html", is_flag=True, help="Do not write report.html into the run's folder.")
@price_options
@AS_JSON
def run(
    scenario: str,
    only: Sequence[str],
    repeats: int | None,
    hardware: str | None,
    runtime: Runtime | None,
    adapters: Sequence[Path],
    fresh: bool,
    retry_failed: bool,
    results: Path,
    client_processes: int,
    no_html: bool,
    prices: Path | None,
    flags: Sequence[str],
    as_json: bool,
) -> int:
    """Measure SCENARIO (a file, or the name of a built-in one). The same command resumes an interrupted run.

    Exit codes: 0 all cells measured, 2 bad input, 3 cells failed or are missing or all were skipped, 130 interrupted.
    """
    listed = prices_of(prices, flags)
    plan, registry = planned(scenario, only, repeats, adapters, runtime, hardware)
    check_launchable(plan, registry)
    check_prompts(plan)
    stored = _measure(plan, registry, results, client_processes, fresh=fresh, retry_failed=retry_failed)
    return _show(stored, listed, as_json=as_json, html=not no_html)


def check_launchable(plan: Plan, registry: Registry) -> None:
    """Refuse a plan whose engines are not installed or have no image, or whose secrets are not set, before anything is launched."""
    from enginebench.adapter import NotInstalled, Unsupported
    from enginebench.runner.served import api_key

    for deployment, cells in plan.launches():
        if all(cell.id in plan.skipped for cell in cells):
            continue
        if deployment.runtime == "attach":
            api_key(deployment)
            continue
        adapter = registry[deployment.engine]
        if deployment.runtime == "docker":
            from enginebench.runner.containers import check_asked  # needs the table of images

            check_asked(adapter, deployment)  # images are got when their turn comes
            continue
        try:
            adapter.choose(deployment, installs_of(adapter))
        except NotInstalled as reason:
            raise UserError(str(reason), advice=f"next: bench engines install {adapter.name}") from None
        except Unsupported:
            continue  # the sweep skips it with the reason


def check_prompts(plan: Plan) -> None:
    """Read every data set before an engine is started; planning leaves the hub alone. UserError for one that cannot be had."""
    from enginebench.workload.datasets import is_data_set, read_records

    file = plan.scenario.file
    for prompts in dict.fromkeys(cell.load.prompts for cell in plan.cells if cell.id not in plan.skipped):
        if is_data_set(prompts):
            try:
                read_records(prompts, file.resolve().parent)
            except UserError as error:
                raise UserError(error.message, file=error.file or file, line=error.line, key=error.key, advice=error.advice) from None


def _measure(plan: Plan, registry: Registry, results: Path, client_processes: int, *, fresh: bool, retry_failed: bool) -> Run:
    from enginebench.cli.progress import progress
    from enginebench.runner import Sweep
    from enginebench.runner.folder import open_run_for
    from enginebench.runner.instruments import Instruments
    from enginebench.runtime import sweep as sweep_leftovers

    with contextlib.ExitStack() as stack:
        instruments = stack.enter_context(Instruments())  # first, as their program takes a while to start
        for line in sweep_leftovers():
            show(line)
        try:
            opening = open_run_for(plan, results, _machine(plan), fresh=fresh, retry_failed=retry_failed, say=show)
            stored = stack.enter_context(opening)
        except OSError as error:
            raise UserError(
                f"no run can be kept there: {error.strerror}", file=results, advice="name another folder with --results"
            ) from None
        reporter = stack.enter_context(progress(plan, stored))
        Sweep(plan, stored, registry, installs_of, reporter, instruments, client_processes).go()
    return stored


def _machine(plan: Plan) -> dict[str, JSON]:
    """The facts of this machine; with the bandwidth of its memory where its processor does the work."""
    import os

    from enginebench.domain import plain_object
    from enginebench.machine.host import facts

    found = facts()
    here = os.environ.get("DOCKER_HOST", "unix:").startswith("unix:")
    ours = [each for each in plan.scenario.deployments if each.runtime != "attach" and (each.runtime != "docker" or here)]
    return plain_object(found) | (_bandwidth(ours) if ours and not found.gpus else {})


def _bandwidth(deployments: Sequence[Deployment]) -> dict[str, JSON]:
    """Measured, which takes about half a second and 1 GB, unless no deployment can have a ceiling: models of a size that is not known."""
    from enginebench.physics.deployment_limits import weights_of
    from enginebench.physics.detect import BANDWIDTH
    from enginebench.physics.this_cpu import memory_bandwidth

    sized = (each.checkpoint != each.model or weights_of(each.model, each.precision, each.checkpoint) for each in deployments)
    return {BANDWIDTH: memory_bandwidth()} if any(sized) else {}


def _show(stored: Run, prices: Prices | None, *, as_json: bool, html: bool) -> int:
    from enginebench.analysis.analysis import analyse
    from enginebench.report import render_table, to_json

    analysis = analyse(stored, prices)
    click.echo(to_json(analysis) if as_json else render_table(analysis), nl=False)
    counts = analysis.counts
    tally = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    click.echo(f"\nsaved {sum(counts.values()) - counts['missing']} cells ({tally}) -> {stored.path}", err=True)
    if html:
        from enginebench.report.html import write_html

        click.echo(f"report: {write_html(stored, analysis, stored.path / 'report.html')}", err=True)
    click.echo(f"next: bench report {stored.path}   (--html, --md, --csv, --json)", err=True)
    problem = _problem(counts)
    if problem:
        click.echo(f"{problem}: exit code {int(Exit.CELLS_FAILED)}", err=True)
    return Exit.CELLS_FAILED if problem else Exit.OK


def _problem(counts: Mapping[str, int]) -> str | None:
    """What keeps this run from being complete; None for nothing."""
    short = [f"{counts[status]} {status}" for status in ("failed", "missing") if counts[status]]
    if short:
        return f"not every cell was measured ({', '.join(short)})"
    return None if counts["ok"] else "nothing was measured: every cell was skipped"
