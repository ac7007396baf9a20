"""From a scenario's plan to that of its tuning: the goal, the candidates of each deployment, and the first trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from enginebench.analysis.labels import deployment_titles
from enginebench.analysis.tuning import Spec, load_key, stored_spec
from enginebench.domain import Deployment, Load
from enginebench.domain.formatting import counted
from enginebench.domain.ids import text_of
from enginebench.domain.tuning import Room, Tunable
from enginebench.errors import UserError, did_you_mean
from enginebench.machine.accelerators import gpus
from enginebench.machine.host import usable_cores
from enginebench.metrics.registry import find, metrics
from enginebench.runner.tuning.growth import Contestant, TuningGrowth
from enginebench.runner.tuning.proposals import need_optuna
from enginebench.runner.tuning.race import Race
from enginebench.runner.tuning.space import Space, space_of
from enginebench.scenario.plan import Plan


@dataclass(frozen=True)
class Tuning:
    """What a tuning would do."""

    plan: Plan
    """The first trial of each deployment: the default."""
    growth: TuningGrowth
    spaces: tuple[Space, ...]
    figure: str


def tuning_of(plan: Plan, *, budget_s: float, goal: str | None = None, seed: int = 0, lossy: bool = False) -> Tuning:
    """What to run to tune the deployments of a scenario.

    UserError for a scenario with a search, for attached servers and for in-process batches that cannot be shortened, for an unknown goal,
    where no engine declares anything to tune, and without Optuna.
    """
    need_optuna()
    file = plan.scenario.file
    if plan.searches:
        raise UserError("a search cannot be tuned for: its load differs from one trial to the next", file=file, advice="write `rate`")
    figure, higher = goal_of(plan, goal)
    loads = _loads(plan)
    spaces = tuple(_space(plan, base, its, lossy=lossy) for base, its in loads)
    able = [space for space in spaces if space.tunables and space.base.runtime != "attach"]
    if not able:
        engines = ", ".join(sorted({space.base.engine for space in spaces}))
        raise UserError(f"there is nothing to tune: {engines} declares no options that the scenario leaves open", file=file)
    names = tuple(tuple(each.name for each in space.tunables) for space in able)
    keys = tuple(tuple(load_key(load) for load in space.loads) for space in able)
    spec = Spec(figure, higher, budget_s, tuple(space.base for space in able), names, keys, seed)
    contestants = tuple(Contestant(Race(space, budget_s, seed), space.loads) for space in able)
    first = tuple(cell for its in contestants for cell in its.trial(its.race.space.default, 0, 0))
    scenario = replace(plan.scenario, name=f"{plan.scenario.name}-tune"[:100], repeats=1, auto=None, parity=None, quality=None)
    tuning = replace(plan, scenario=scenario, cells=first, skipped={}, purpose=stored_spec(spec))
    return Tuning(tuning, TuningGrowth(spec, contestants), tuple(able), figure)


def goal_of(plan: Plan, goal: str | None) -> tuple[str, bool]:
    """The figure that is tuned for, and whether more of it is better."""
    asked = goal or ("goodput" if plan.scenario.slo is not None else "output_throughput")
    names = [name for metric in metrics().values() if metric.better for name in metric.figures]
    figure = {"throughput": "output_throughput"}.get(asked, asked).replace(".", "_")
    figure = next((name for name in (figure, f"{figure}_p50") if name in names), figure)
    found = find(figure)
    if found is None or figure not in names:
        raise UserError(f"--goal {asked}: unknown figure", advice=did_you_mean(figure, names))
    if figure == "goodput" and plan.scenario.slo is None:
        raise UserError("--goal goodput needs an `slo` in the scenario", file=plan.scenario.file, advice="write slo: {ttft_ms: 500}")
    return figure, found[0].better == "higher"


def _loads(plan: Plan) -> list[tuple[Deployment, tuple[Load, ...]]]:
    """Each deployment that is not skipped, with its loads."""
    found: dict[str, tuple[Deployment, dict[Load, None]]] = {}
    for cell in plan.cells:
        if cell.id not in plan.skipped:
            found.setdefault(text_of(cell.deployment), (cell.deployment, {}))[1][cell.load] = None
    if not found:
        raise UserError("every cell of the scenario is skipped", file=plan.scenario.file, advice=f"bench plan {plan.scenario.file}")
    return [(deployment, tuple(loads)) for deployment, loads in found.values()]


def _space(plan: Plan, base: Deployment, loads: Sequence[Load], *, lossy: bool) -> Space:
    machine = plan.bounds.machine if plan.bounds is not None else None
    devices = machine.count if machine is not None else len(gpus())
    prompts = [load.input_tokens for load in loads if isinstance(load.input_tokens, int)]
    room = Room(usable_cores() or 1, devices, base.max_concurrency, max(prompts, default=0))
    return space_of(base, loads, plan.registry[base.engine], room, plan.bounds, lossy=lossy)


@dataclass(frozen=True)
class Tunables:
    """What would be tried of one deployment."""

    name: str
    """'llamacpp', or with what tells it from the other deployments."""
    deployment: Deployment
    options: tuple[Tunable, ...]
    combinations: int
    able: int | None
    """Combinations that can run; None: there are too many to count them."""

    @property
    def text(self) -> str:
        """'288 combinations, of which 96 cannot run or do not fit'."""
        refused = "" if self.able is None else f", of which {self.combinations - self.able:,} cannot run or do not fit"
        return f"{counted(self.combinations, 'combination')}{refused}"


def tunable(plan: Plan, *, budget_s: float = 1800.0, goal: str | None = None, seed: int = 0, lossy: bool = False) -> list[Tunables]:
    """What a tuning of this plan would try; starts nothing. Arguments and errors: `enginebench.tune`."""
    spaces = tuning_of(plan, budget_s=budget_s, goal=goal, seed=seed, lossy=lossy).spaces
    names = deployment_titles([space.base for space in spaces])
    counts = [space.count() for space in spaces]
    return [
        Tunables(names[text_of(space.base)], space.base, space.tunables, space.size, count[0] if count else None)
        for space, count in zip(spaces, counts, strict=True)
    ]
