"""The public Python API: plan a scenario, run it, read runs, compare them, and ask what hardware allows.

    import enginebench as eb

    run = eb.run(eb.plan("quickstart"))
    print(run.report())

The command line uses nothing else. Bad input raises `UserError`. Modules are imported when a function is called, so `import enginebench` is
fast. `enginebench/__init__.pyi` lists all public names with the modules that define and document them; docs/python.md has examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import enginebench as eb  # its names are imported when an annotation is evaluated


def run(
    plan: eb.Plan,
    *,
    results: str | Path = "results",
    fresh: bool = False,
    retry_failed: bool = False,
    client_processes: int = 1,
    clients: Sequence[str] = (),
    wait_quiet_s: float = 0.0,
    share_machine: bool = False,
    otlp: str | None = None,
    on: str | None = None,
    settings: Mapping[str, str] | None = None,
    on_event: eb.OnEvent = lambda _: None,
) -> eb.Run:
    """Measure every cell of a plan that has no record yet, and store each as it ends. An interrupted run is resumed by the same call.

    results: the folder of runs, or the URL of a store. fresh: start a new run. retry_failed: continue the newest run of this plan and
    measure its failed cells again. client_processes: processes that send the load. clients: `bench client`s on other hosts that send it in
    the place of this machine, each as 'TOKEN@HOST:PORT'. wait_quiet_s: how long to wait for a busy machine to be quiet. share_machine: go
    on although another run, or another process on the GPU, uses this machine; its cells are suspect. otlp: the URL of an OpenTelemetry
    collector that is told how it goes. on: a cluster to measure on, as `ray://HOST:10001`, `local-ray`, `slurm` or `k8s`; the plan is then
    one with `elsewhere`. settings: of that cluster. on_event: called with an `Event` for every step; it must return quickly, and what it
    raises is raised when the run has ended. Failed cells are in the returned run, not exceptions.
    CannotRun, a UserError, when this machine lacks something for every cell; if only for some, these are skipped with a `Note`.
    UserError when a data set cannot be read, or another process writes to the run or uses the machine.
    KeyboardInterrupt stops the run; stored cells stay.
    """
    from enginebench.report.run import Run

    if on is not None:
        if clients:
            raise eb.UserError(
                "--clients names hosts for a run on this machine, and --on measures elsewhere", advice="leave one of them out"
            )
        from enginebench.runner.placement.base import find
        from enginebench.runner.placement.driver import run_placed

        return Run(
            run_placed(
                plan, results, find(on, settings or {}), fresh=fresh, retry_failed=retry_failed, client_processes=client_processes,
                wait_quiet_s=wait_quiet_s, share_machine=share_machine, otlp=otlp, on_event=on_event,
            )
        )  # fmt: skip
    from enginebench.runner.session import run_plan

    folder = run_plan(
        plan, results, fresh=fresh, retry_failed=retry_failed, client_processes=client_processes, clients=clients,
        wait_quiet_s=wait_quiet_s, share_machine=share_machine, otlp=otlp, on_event=on_event,
    )  # fmt: skip
    return Run(folder)


def tune(
    plan: eb.Plan,
    *,
    budget_s: float = 1800.0,
    goal: str | None = None,
    seed: int = 0,
    lossy: bool = False,
    results: str | Path = "results",
    fresh: bool = False,
    wait_quiet_s: float = 0.0,
    share_machine: bool = False,
    on_event: eb.OnEvent = lambda _: None,
) -> eb.Run:
    """Search the options of every deployment of a plan for its loads. An interrupted tuning goes on by the same call.

    budget_s: engine time for each deployment. goal: the figure that is tuned for, such as 'goodput' or 'ttft.p99'; None: goodput with an
    SLO, else output throughput. seed: of what is tried. lossy: also options that change the output. The others: as for `run`.
    `Run.tuned` of the result has the outcome, on fresh restarts of the default and of the best candidate.
    UserError where nothing can be tuned, and without Optuna (the extra `tune`); other errors as for `run`.
    """
    from enginebench.report.run import Run
    from enginebench.runner.session import run_plan
    from enginebench.runner.tuning.session import tuning_of

    its = tuning_of(plan, budget_s=budget_s, goal=goal, seed=seed, lossy=lossy)
    folder = run_plan(
        its.plan, Path(results), fresh=fresh, wait_quiet_s=wait_quiet_s, share_machine=share_machine, on_event=on_event, growth=its.growth,
    )  # fmt: skip
    return Run(folder)


def tuned_scenario(run: eb.Run) -> str:
    """The scenario that follows from a tuning, as YAML: the default and the tuned server of each deployment, all else as it was.

    Its relative paths start from the folder of the scenario that was tuned for. UserError for a run that is no tuning.
    """
    from enginebench.errors import UserError
    from enginebench.runner.tuning.scenario import tuned_scenario as written

    if not run.tuned:
        raise UserError("is no run of `bench tune`", file=run.path)
    return written((run.path / "scenario.yaml").read_text(encoding="utf-8"), run.path.name, run.tuned)


def import_file(path: str | Path | Sequence[str | Path], *, results: str | Path = "results", facts: Sequence[str] = ()) -> eb.Run:
    """Store what another tool measured as a new run: with raw samples where its files have single requests, else its stated figures.

    path: a file or a folder of files, or several; docs/dialects.md lists the formats, docs/contributing.md how to add one. results: the
    folder of runs. facts: what the files do not say of the server: 'engine=vllm', 'hardware=4xh100'.
    UserError for an unknown format (with the known ones), a damaged file and an unknown fact.
    """
    from enginebench.report.run import Run
    from enginebench.runner.import_facts import read_facts
    from enginebench.runner.imports import import_run
    from enginebench.runner.uploads import stored_in

    given = [path] if isinstance(path, str | Path) else path
    with stored_in(results) as folder:
        return Run(import_run([Path(each) for each in given], folder, read_facts(facts)))


def open_run(path: str | Path, *, facts: Sequence[str] = ()) -> eb.Run:
    """Open a run folder or a capsule, or a file or folder of another tool, which is imported into the cache folder.

    facts: what such files do not say of the server, as for `import_file`. UserError when it is none of these, is damaged, or was written by
    a newer version.
    """
    from enginebench.report.run import open_run as opened

    return opened(_local(path, facts) or path)


def compare(
    base: eb.Run | str | Path,
    candidate: eb.Run | str | Path,
    *,
    fail_if: Sequence[str] = (),
    limit: float | None = None,
    prices: eb.Prices | None = None,
    facts: Sequence[str] = (),
    anyway: bool = False,
) -> eb.Comparison:
    """What changed from one run to another: `enginebench.report.comparison.compare`, also of other tools' files.

    base, candidate: runs, their folders, or files of other tools; facts: what these do not say. fail_if: thresholds such as
    'ttft.p99 > +5%'. limit: without fail_if, the share by which output tokens/s, TTFT and TPOT must not be worse. prices: also compare the
    cost of tokens. anyway: also compare imported figures that are not alike.
    UserError for an unknown figure, for what is no run, and for imported figures that are not alike, with what would make it possible.
    """
    from enginebench.report.comparison import compare as compared
    from enginebench.report.run import Run

    runs = [each if isinstance(each, Run) else open_run(each, facts=facts) for each in (base, candidate)]
    return compared(*runs, fail_if=fail_if, limit=limit, prices=prices, anyway=anyway)


def side_by_side(runs: Sequence[eb.Run | str | Path], *, prices: eb.Prices | None = None, facts: Sequence[str] = ()) -> eb.SideBySide:
    """Any number of runs side by side: the same deployments and loads lined up, what differs around them, every figure with its change.

    runs: two or more, or their folders, capsules, or files of other tools; facts: what these do not say. prices: also the cost of tokens.
    UserError for fewer than two runs, and for what is no run.
    """
    from enginebench.report.run import Run
    from enginebench.report.side_by_side import side_by_side as lined_up

    return lined_up([each if isinstance(each, Run) else open_run(each, facts=facts) for each in runs], prices=prices)


def workloads() -> list[eb.ListedWorkload]:
    """The named workloads that a scenario may use: what they send, their SLO, and a hash of both."""
    from enginebench.report.workloads import workloads as listed

    return listed()


def describe_workload(name: str, *, time_unit: str | None = None) -> eb.DescribedWorkload:
    """A named workload, a trace or a data set in figures: lengths, rate, burstiness, sessions, reuse of prefixes, what of it is not sent.

    name: of the catalogue, or a file, with its format in front where that is not to be detected. time_unit: of a trace's times ('s', 'ms',
    'us', 'ns'). UserError for a name that is neither, and for a file that cannot be read.
    """
    from enginebench.report.workloads import describe_workload as described

    return described(name, time_unit=time_unit)


def audit_claims(
    target: str | Path,
    *,
    hardware: str | None = None,
    routing: str = "even",
    prices: eb.Prices | None = None,
    facts: Sequence[str] = (),
) -> eb.Audit:
    """Judge every claim of a YAML file of published numbers, or every row of a run or of another tool's file.

    hardware: of a run, what it ran on ('4xh100', 'cpu'); None: what its scenario states, else the accelerators that it recorded. routing:
    which experts are used, shown beside the bound: 'even', 'zipf:1.0', 'captured' (by `bench routing`) or a file of counts. prices: also
    what the rates cost. facts: what another tool's file does not say of the server.
    UserError for a file with mistakes (file, line and key), a run without throughput, and `hardware` with a file of claims.
    """
    from enginebench.audit.examine import audit_claims as audited

    return audited(_local(target, facts) or target, hardware=hardware, routing=routing, prices=prices)


def _local(path: str | Path, facts: Sequence[str]) -> Path | None:
    """The run of a path, which may be another tool's file; None: it is no run."""
    from enginebench.runner.import_facts import read_facts
    from enginebench.runner.on_the_fly import as_run

    return as_run(Path(path), read_facts(facts))
