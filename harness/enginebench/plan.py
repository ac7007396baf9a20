"""From a scenario to the ordered list of cells. Pure: no clock, no file, no process.

Cells are grouped by launch (one server start serves all loads of a deployment) and launches are ordered repeat by repeat, each
repeat walking the deployments in the opposite direction (A B, B A, A B, ...), so that a drift of the machine - heat, a
neighbour, a filling disk cache - does not fall on one engine alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from enginebench.adapter import Unsupported
from enginebench.errors import UserError
from enginebench.nouns import Cell, Deployment, fingerprint
from enginebench.registry import Registry
from enginebench.scenario import MAX_CELLS, Scenario


@dataclass(frozen=True)
class Plan:
    """Everything that would happen, in order. skipped: cell id -> why it cannot run."""

    scenario: Scenario
    cells: tuple[Cell, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Hash over the cells: two scenarios that measure the same have the same."""
        return fingerprint({"cells": [cell.id for cell in self.cells]})

    def launches(self) -> Iterator[tuple[Deployment, tuple[Cell, ...]]]:
        """Server starts in order, each with the cells it serves."""
        # Compared, not hashed: the cells of one launch hold the same object, and ids of 10,000 cells take half a second.
        for _, group in itertools.groupby(self.cells, key=lambda cell: (cell.repeat, cell.deployment)):
            cells = tuple(group)
            yield cells[0].deployment, cells

    def only(self, selection: Mapping[str, frozenset[str]]) -> Plan:
        """The cells whose deployment or load has one of these values for every key, e.g. {'engine': {'vllm', 'sglang'}}."""
        kept = tuple(cell for cell in self.cells if all(_value(cell, key) in values for key, values in selection.items()))
        return replace(self, cells=kept)

    def values(self, key: str) -> frozenset[str]:
        """What the cells have under a key of SELECTABLE."""
        return frozenset(_value(cell, key) for cell in self.cells)


def plan(scenario: Scenario, registry: Registry) -> Plan:
    """The cells of a scenario in the order they would be measured, and the ones that cannot be, with the reason."""
    size = sum(map(len, scenario.loads)) * scenario.repeats
    if size > MAX_CELLS:
        raise UserError(f"{scenario.repeats:,} repeats make {size:,} cells, more than {MAX_CELLS:,}", file=scenario.file)
    refused: dict[int, str] = {}
    for i, deployment in enumerate(scenario.deployments):
        try:
            adapter = registry[deployment.engine]
            adapter.check(deployment)
            adapter.check_loads(deployment, scenario.loads[i])
        except Unsupported as reason:
            refused[i] = str(reason)
    cells: list[Cell] = []
    skipped: dict[str, str] = {}
    for repeat in range(scenario.repeats):
        order = range(len(scenario.deployments)) if repeat % 2 == 0 else reversed(range(len(scenario.deployments)))
        for i in order:
            for load in scenario.loads[i]:
                cell = Cell(scenario.deployments[i], load, repeat)
                cells.append(cell)
                if i in refused:
                    skipped[cell.id] = refused[i]
    return Plan(scenario, tuple(cells), skipped)


SELECTABLE = (
    "engine",
    "model",
    "precision",
    "runtime",
    "label",
    "concurrency",
    "input_tokens",
    "output_tokens",
    "prompts",
    "api",
    "repeat",
)
"""What `--only KEY=VALUE` may name."""


def _value(cell: Cell, key: str) -> str:
    for owner in (cell, cell.deployment, cell.load):
        if hasattr(owner, key):
            return str(getattr(owner, key))
    return ""
