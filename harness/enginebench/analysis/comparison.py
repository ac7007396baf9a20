"""Pairs the rows of two runs, and computes by how much each figure changed, and which recorded facts of machine and engines differ.

Rows with the same deployment and load are a pair. Of the remaining rows those are paired that are the only ones of their engine, model and
load in either run: there the deployment itself has changed; and, where a run was imported from another tool's file, the only ones at their
level of load, then the only ones at all. Rows without a partner are listed. It renders nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypeVar

from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.labels import load_text
from enginebench.analysis.likeness import Unlike, origin, unlike, unlike_definitions
from enginebench.domain import JSON, canonical, fingerprint
from enginebench.domain.formatting import flat
from enginebench.metrics.registry import Need, metric_name, metric_of, metrics
from enginebench.metrics.statistics import Change, Estimate, change
from enginebench.records.launch import LaunchRecord

Verdict: TypeAlias = Literal["better", "worse", "changed", "alike", "unsure", "unknown"]
"""changed: neither direction of this figure is good. alike: no detectable difference. unsure: every restart agrees, but there are too few.
unknown: a single restart."""


T = TypeVar("T")

NOT_RECORDED = "not recorded"
_MOMENTARY = ("load_average", "clock_step_ns", "clock_resolution_ns", "memory_bandwidth")
"""Facts that are measured, and never the same twice."""
_SAME_MACHINE = ("architecture", "cpu", "logical_cores", "usable_cores", "cpu_quota", "memory_limit_bytes")


@dataclass(frozen=True)
class Changed:
    of: str
    """'machine', 'run', or the deployment's name."""
    what: str
    """The dotted key of the fact."""
    base: str
    candidate: str


@dataclass(frozen=True)
class Figure:
    """One figure of a pair, in SI units."""

    name: str
    base: Estimate
    candidate: Estimate
    change: Change

    @property
    def direction(self) -> Literal["better", "worse", "changed"]:
        """Which way the candidate's value lies, whether or not the difference is significant."""
        metric = metric_of(self.name)
        better = metric.better if metric is not None else None
        return "changed" if better is None else "better" if (better == "lower") == self.change.falls else "worse"

    @property
    def verdict(self) -> Verdict:
        """The result of the test over the restarts."""
        order = self.change.order
        return self.direction if order == "higher" else "alike" if order == "tied" else "unsure" if order == "ahead" else "unknown"


@dataclass(frozen=True)
class Pair:
    """The same deployment under the same load in both runs."""

    base: Row
    candidate: Row
    figures: Mapping[str, Figure]
    why_not: str | None = None
    """Why no figure of the pair may be compared; `figures` is then empty."""
    withheld: Mapping[str, str] = field(default_factory=dict)
    """Metrics that must not be compared, each with the reason."""

    @property
    def name(self) -> str:
        """'olmoe · vllm fp8 · 4 streams x 128 + 64 tokens, 16 requests'."""
        return _name(self.base)

    def why_missing(self, figure: str) -> str:
        name = metric_name(figure)
        hidden = [cell.withheld[name] for row in (self.base, self.candidate) for cell in row.cells if name in cell.withheld]
        known = self.why_not or self.withheld.get(name) or next(iter(hidden), None)
        if known is None and (metric := metric_of(figure)) is not None and not metric.spread:
            known = metric.missing
        return known or "one of the runs has no such figure: too few requests for it, or the server did not report enough"


@dataclass(frozen=True)
class Comparison:
    base: Analysis
    candidate: Analysis
    pairs: tuple[Pair, ...]
    alone: Mapping[str, tuple[str, ...]]
    """'base' or 'candidate' -> names of its rows without a partner."""
    changed: tuple[Changed, ...]
    moved: bool
    unlike: tuple[Unlike, ...] = ()
    """Why pairs of imported rows must not be compared."""


def compare_runs(base: Analysis, candidate: Analysis, *, anyway: bool = False) -> Comparison:
    """anyway: also figures that other tools define in different ways."""
    matched, left, right = match(base.rows, candidate.rows)
    unequal = tuple(_unequal(base, candidate))
    pairs = tuple(_pair(one, other, unequal=unequal, anyway=anyway) for one, other in matched)
    hardware = (_stated_hardware(base), _stated_hardware(candidate))
    found = dict.fromkeys(each for one, other in matched for each in unlike(one, other, hardware))
    alone = {"base": tuple(map(_name, left)), "candidate": tuple(map(_name, right))}
    return Comparison(base, candidate, pairs, alone, changes(base, candidate, matched), moved(base, candidate), tuple(found))


def _stated_hardware(analysis: Analysis) -> str | None:
    """The hardware that a run states."""
    stated = analysis.run.scenario.get("hardware")
    return stated if isinstance(stated, str) else None


def _name(row: Row) -> str:
    return f"{row.deployment.model} · {row.name} · {load_text(row.load)}"


def match(base: Sequence[Row], candidate: Sequence[Row]) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
    """Pairs in the order of the base, and the remaining rows of either run."""
    found: list[tuple[Row, Row]] = []
    left, right = list(base), list(candidate)
    for key in keys_of((*base, *candidate)):
        ours, theirs = once(left, key), once(right, key)
        found += [(row, theirs[its]) for its, row in ours.items() if its in theirs]
        left = [row for row in left if not any(row is one for one, _ in found)]
        right = [row for row in right if not any(row is other for _, other in found)]
    place = {id(row): i for i, row in enumerate(base)}
    return sorted(found, key=lambda pair: place[id(pair[0])]), left, right


def same_deployment(row: Row) -> str:
    """Equal for rows of the same deployment and load."""
    return fingerprint([canonical(row.deployment), canonical(row.load)])


def same_engine(row: Row) -> str:
    """Equal for rows of the same engine, model and load."""
    return fingerprint([row.deployment.engine, row.deployment.model, canonical(row.load)])


def _the_same_level(row: Row) -> str:
    return fingerprint([row.load.kind, row.load.level])


def keys_of(rows: Sequence[Row]) -> tuple[Callable[[Row], str], ...]:
    """What rows are paired by, one key after the other, each for the rows that the keys before it left over. Files of other tools say so
    little that their rows are also paired by the level of the load, and where one is left over in each run.
    """
    imported = any(origin(row) is not None for row in rows)
    return (same_deployment, same_engine, *((_the_same_level, lambda _: "") if imported else ()))


def pair_keys(row: Row) -> tuple[str, str]:
    """By which rows of two runs are paired: of deployment and load; and, of the remaining rows, of engine, model and load."""
    return same_deployment(row), same_engine(row)


def once(rows: Sequence[T], key: Callable[[T], str]) -> dict[str, T]:
    """Key -> row, for the rows whose key is unique."""
    keys = [key(row) for row in rows]
    return {its: row for its, row in zip(keys, rows, strict=True) if keys.count(its) == 1}


def pair_of(base: Row, candidate: Row, of_base: Analysis, of_candidate: Analysis) -> Pair:
    """Two rows of two runs compared, whatever made them a pair; no figure of it where an imported row is unlike the other."""
    hardware = (_stated_hardware(of_base), _stated_hardware(of_candidate))
    if reasons := [each.reason for each in unlike(base, candidate, hardware)]:
        return Pair(base, candidate, {}, "; ".join(reasons))
    return _pair(base, candidate, unequal=tuple(_unequal(of_base, of_candidate)))


def _pair(base: Row, candidate: Row, *, unequal: Sequence[tuple[Need, str]], anyway: bool = False) -> Pair:
    if (why := next(_unsound(base, candidate), None)) and not anyway:
        return Pair(base, candidate, {}, why)
    withheld = {**({} if anyway else unlike_definitions(base, candidate)), **dict(_withheld(base, candidate, unequal))}
    figures = {
        name: Figure(name, ours, theirs, change(theirs, ours))
        for name, ours in base.figures.items()
        if ours and (theirs := candidate.figures.get(name)) and metric_name(name) not in withheld
    }
    return Pair(base, candidate, figures, withheld=withheld)


def _unsound(base: Row, candidate: Row) -> Iterator[str]:
    for side, row in (("base", base), ("candidate", candidate)):
        if not row.sound:
            yield f"the {side} is {'invalid' if row.status == 'ok' else row.status}: {'; '.join(row.reasons) or 'no reason was recorded'}"
    random = [any(cell.record.traits.random_weights for cell in row.cells) for row in (base, candidate)]
    if random[0] != random[1]:
        yield f"only the {'base' if random[0] else 'candidate'} has random weights"


def _unequal(base: Analysis, candidate: Analysis) -> Iterator[tuple[Need, str]]:
    """What metrics may need and the runs do not share, with the reason."""
    if base.slo != candidate.slo:
        yield Need.SLO, "the runs have different SLOs"
    if base.prices != candidate.prices:
        yield Need.PRICES, "the runs have different prices"


def _withheld(base: Row, candidate: Row, unequal: Sequence[tuple[Need, str]]) -> Iterator[tuple[str, str]]:
    """Metrics that do not mean the same in both rows."""
    exact = [all(cell.one_token_per_event for cell in row.cells if cell.ran) for row in (base, candidate)]
    for name, metric in metrics().items():
        if metric.scope == "event" and exact[0] != exact[1]:
            yield name, f"only the {'base' if exact[0] else 'candidate'} has one token per event"
        yield from ((name, why) for need, why in unequal if need in metric.needs)


# -- facts -----------------------------------------------------------------------------------------------------------------------


def changes(base: Analysis, candidate: Analysis, pairs: Iterable[tuple[Row, Row]]) -> tuple[Changed, ...]:
    """Every difference once: of the machine, of the runs, then of each deployment."""
    known = (run_facts(base), run_facts(candidate))
    found = [change for of in ("machine", "run") for change in _differing(of, *(each[of] for each in known))]
    for one, other in pairs:
        found += _differing(one.name, row_facts(one, base), row_facts(other, candidate))
    return tuple(dict.fromkeys(found))


def run_facts(analysis: Analysis) -> dict[str, dict[str, str]]:
    """'machine' and 'run' -> dotted name of a fact -> its text."""
    return {"machine": _machine(analysis), "run": _of_run(analysis)}


def weight(what: str) -> int:
    """The place of a change among others: versions and images first."""
    if what in ("version", "variant") or what.startswith("container."):
        return 0
    return 1 if "driver" in what else 2 if what == "enginebench" else 3


def moved(base: Analysis, candidate: Analysis) -> bool:
    """Whether the runs were made on machines with different CPUs, limits or accelerators."""
    return _hardware(base) != _hardware(candidate)


def _hardware(analysis: Analysis) -> JSON:
    machine = analysis.run.machine
    gpus = machine.get("gpus")
    names = [gpu.get("name") if isinstance(gpu, dict) else gpu for gpu in gpus] if isinstance(gpus, list) else None
    return [names, *(machine.get(key) for key in _SAME_MACHINE)]


def _machine(analysis: Analysis) -> dict[str, str]:
    return flat({key: value for key, value in analysis.run.machine.items() if key not in _MOMENTARY})


def _of_run(analysis: Analysis) -> dict[str, str]:
    inputs = {name: found.short for name, found in analysis.run.inputs.items()}
    return {"scenario": analysis.run.name, "slo": analysis.slo.text if analysis.slo else "none", **inputs}


def row_facts(row: Row, analysis: Analysis) -> dict[str, str]:
    """The requested deployment, and the facts of its launches; where those differ from each other, all of them."""
    launches = [analysis.launches[key] for key in dict.fromkeys(c.record.launch_id for c in row.cells) if key in analysis.launches]
    found: dict[str, dict[str, None]] = {}
    for launch in launches:
        for key, text in flat(_launched(launch)).items():
            found.setdefault(key, {})[text] = None
    return flat({"asked": row.deployment.shown}) | {key: " / ".join(texts) for key, texts in found.items()}


def _launched(launch: LaunchRecord) -> dict[str, JSON]:
    """The facts of a launch that describe the engine; addresses, times and folders differ at every start."""
    startup, resolved = launch.startup, launch.configuration.resolved
    return {
        "variant": launch.variant,
        "version": launch.version,
        "packages": dict(startup.packages),
        "inherited": list(startup.inherited),
        "container": dict(startup.container),
        "resolved": {key: value for key, value in resolved.items() if key != "raw"},  # `raw` holds ports and folders
    }


def _differing(of: str, base: Mapping[str, str], candidate: Mapping[str, str]) -> Iterator[Changed]:
    for what in dict.fromkeys([*base, *candidate]):
        one, other = base.get(what, NOT_RECORDED), candidate.get(what, NOT_RECORDED)
        if one != other:
            yield Changed(of, what, one, other)
