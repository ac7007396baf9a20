"""From a scenario to the ordered list of cells. Pure: no clock, no file, no process.

Cells are grouped by launch (one server start serves all loads of a deployment) and launches are ordered repeat by repeat. Each repeat
walks the deployments in the opposite direction (A B, B A, A B, ...), so that a drift of the machine (heat, other work, a filling disk
cache) does not affect one engine alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from enginebench.adapter import Unsupported
from enginebench.domain import JSON, Cell, Deployment, Load, Search, fingerprint, load_fields, plain
from enginebench.engines.registry import Registry, discover
from enginebench.errors import UserError
from enginebench.scenario import MAX_CELLS, Scenario, load_at
from enginebench.scenario.contents import Contents, hashes
from enginebench.scenario.expand import NO_SEARCH

if TYPE_CHECKING:
    from enginebench.physics.deployment_limits import MachineLimits  # imports all of physics
    from enginebench.physics.expectation import Expectations
else:
    Expectations = MachineLimits = object  # for typing.get_type_hints(Plan)


T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """All cells of a scenario, in the order they are measured."""

    scenario: Scenario
    cells: tuple[Cell, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Cell id -> why the cell cannot run."""
    searches: Mapping[str, Search] = field(default_factory=dict)
    """Cell id -> the search that begins with the cell. Its further cells depend on the result of each."""
    bounds: MachineLimits | None = None
    """Limits of the machine that cells have to fit; None: the machine is unknown."""
    unchecked: str = ""
    """Why it is not checked what fits the accelerators that are here; empty if it is, if there are none, or if hardware is stated."""
    expectations: Expectations | None = field(default=None, repr=False, compare=False)
    """What engines usually reach, for the time that it takes on a CPU; None: by published measurements. `bounds` has its own."""
    contents: Contents = field(default_factory=dict)
    """What the checkpoints, data sets and traces contain that are on this machine."""
    purpose: Mapping[str, JSON] = field(default_factory=dict)
    """What adds cells while it runs, other than searches and `repeats: auto`: `{"tune": {...}}`. Stored with the run."""
    registry: Registry = field(default_factory=discover, repr=False, compare=False)
    """The adapters of its engines."""
    placed: bool = False
    """Whether this machine is the node that its deployments ask for."""

    @property
    def id(self) -> str:
        """Hash over the cells and over what adds more: searches with their SLO, `repeats: auto`, a tuning. The same for the same plan."""
        whole: dict[str, JSON] = {"cells": [cell.id for cell in self.cells]}
        if self.searches:
            whole["searches"] = {key: plain(search) for key, search in self.searches.items()}
            whole["slo"] = plain(self.scenario.slo)
        if self.scenario.auto is not None:
            whole["looks"] = list(self.scenario.auto.looks)
        if self.purpose:
            whole["purpose"] = dict(self.purpose)
        return fingerprint(whole)

    @property
    def identity(self) -> str:
        """Hash over `id` and the contents of every file it measures with."""
        return fingerprint({"plan": self.id, "contents": dict(hashes(self.contents))})

    @property
    def base(self) -> Path:
        """The folder that relative paths of checkpoints, data sets and traces start from."""
        return self.scenario.file.resolve().parent

    @property
    def probes(self) -> int:
        """The largest number of cells that the searches can add to their first ones."""
        return sum(search.most_probes - 1 for search in self.searches.values())

    def launches(self) -> Iterator[tuple[Deployment, tuple[Cell, ...]]]:
        """Server starts in order, each with the cells it serves."""
        return launches_of(self.cells)

    def only(self, selection: Mapping[str, frozenset[str]]) -> Plan:
        """The cells whose deployment or load has one of these values for every key, e.g. {'engine': {'vllm', 'sglang'}}."""
        kept = tuple(cell for cell in self.cells if all(_value(cell, key) in values for key, values in selection.items()))
        ids = {cell.id for cell in kept} if self.searches else set()
        return replace(self, cells=kept, searches={key: search for key, search in self.searches.items() if key in ids})

    def values(self, key: str) -> frozenset[str]:
        return frozenset(_value(cell, key) for cell in self.cells)


def launches_of(cells: Sequence[Cell]) -> Iterator[tuple[Deployment, tuple[Cell, ...]]]:
    """Server starts in order, each with the cells it serves."""
    # Compares objects instead of ids: the cells of one launch share their deployment, and 10,000 ids take half a second.
    for _, group in itertools.groupby(cells, key=lambda cell: (cell.repeat, cell.deployment)):
        its = tuple(group)
        yield its[0].deployment, its


def in_turn(items: Sequence[T], repeat: int) -> Sequence[T]:
    """The deployments of a repeat in their order, or backwards in every other one."""
    return items if repeat % 2 == 0 else items[::-1]


def plan(scenario: Scenario, registry: Registry, bounds: MachineLimits | None = None) -> Plan:
    """The cells of a scenario in the order they are measured, and the reason for each that cannot run.

    bounds: limits of the machine, which a load may exceed; None: no machine is checked.
    """
    size = (sum(map(len, scenario.loads)) + sum(map(len, scenario.searches))) * (scenario.auto.most if scenario.auto else scenario.repeats)
    if size > MAX_CELLS:
        raise UserError(f"{scenario.repeats:,} repeats make {size:,} cells, more than {MAX_CELLS:,}", file=scenario.file)
    if scenario.auto is not None and any(scenario.searches):
        raise UserError(f"repeats: {NO_SEARCH}", file=scenario.file, advice="write a number of repeats")
    everything = [_Served(*served) for served in zip(scenario.deployments, scenario.loads, scenario.searches, strict=True)]
    refused = [served.refusal(registry) for served in everything]
    too_large = [{} if bounds is None or refused[i] else served.too_large(registry, bounds) for i, served in enumerate(everything)]
    cells: list[Cell] = []
    skipped: dict[str, str] = {}
    searches: dict[str, Search] = {}
    for repeat in range(scenario.repeats):
        for i in in_turn(range(len(everything)), repeat):
            served = everything[i]
            firsts = {search.base: search for search in served.searches}
            for load in served.each:
                cell = Cell(served.deployment, load, repeat)
                cells.append(cell)
                if load in firsts:
                    searches[cell.id] = firsts[load]
                if reason := served.unfit.get(load) or refused[i] or too_large[i].get(load):
                    skipped[cell.id] = reason
    return Plan(scenario, tuple(cells), skipped, searches, bounds, registry=registry)


@dataclass(frozen=True)
class _Served:
    deployment: Deployment
    loads: tuple[Load, ...]
    searches: tuple[Search, ...]

    @property
    def each(self) -> Sequence[Load]:
        """Every load that is known before the run: the loads, and the first load of each search."""
        return list(dict.fromkeys((*self.loads, *(search.base for search in self.searches))))

    @cached_property
    def unfit(self) -> Mapping[Load, str]:
        """The loads that this deployment cannot serve, each with the reason. An in-process batch gets all its requests at once."""
        known = len(self.deployment.loras)
        many = {load: f"{load.loras} LoRA adapters get requests, and the deployment has {known}: write `loras`" for load in self.each}
        many = {load: why for load, why in many.items() if load.loras > known}
        if self.deployment.runtime != "in-process":
            return many
        searched = {search.base for search in self.searches}
        needs = {load: "a search" if load in searched else load.needs_server for load in self.each}
        return many | {
            load: f"{what} needs a server: an in-process batch gets all its requests at once" for load, what in needs.items() if what
        }

    def too_large(self, registry: Registry, bounds: MachineLimits) -> Mapping[Load, str]:
        return bounds.refusals(self.deployment, self.each, registry[self.deployment.engine].traits(self.deployment).gpus)

    def refusal(self, registry: Registry) -> str | None:
        """Why the engine cannot serve this deployment or its loads; None if it can."""
        adapter = registry[self.deployment.engine]
        loads = [load for load in self.loads if load not in self.unfit]
        searched = [load_at(search, search.stop) for search in self.searches if search.base not in self.unfit]
        try:
            adapter.check_nodes(self.deployment)
            adapter.check_neutral(self.deployment.inside)
            adapter.check(self.deployment.inside)
            adapter.check_loads(self.deployment.inside, loads + searched)
        except Unsupported as reason:
            return str(reason)
        return None


SELECTABLE = ("engine", "model", "precision", "runtime", "label", *load_fields(), "repeat")
"""The keys of `--only KEY=VALUE`."""


def _value(cell: Cell, key: str) -> str:
    for owner in (cell, cell.deployment, cell.load):
        if hasattr(owner, key):
            value = getattr(owner, key)
            return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return ""
