"""Stores what units bring back in the run folder of the driver: cells with their samples, server starts with the node's name, logs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from enginebench.domain import JSON, Cell, Deployment, Status
from enginebench.domain.ids import text_of
from enginebench.records import upgrades
from enginebench.records.cell import CellRecord, CellTraits
from enginebench.records.files import replace_atomically
from enginebench.records.launch import LaunchRecord
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.records.schema import parse
from enginebench.runner.cell import is_synthetic
from enginebench.runner.cell_queue import CellQueue
from enginebench.runner.events import CellEnded, LaunchEnded, LaunchStarted, Note, OnEvent
from enginebench.runner.placement.base import Files
from enginebench.runner.placement.unit_data import ENDED, NODE, Unit
from enginebench.scenario.contents import changed
from enginebench.scenario.plan import Plan

_COMMON = ("architecture", "cpu", "logical_cores", "usable_cores", "cpu_quota", "memory_bytes", "gpus", "system", "kernel", "enginebench")
"""Facts of nodes that become those of the run where all nodes agree."""


@dataclass
class _State:
    """What is known of a unit that runs."""

    node: str = ""
    machine: Mapping[str, JSON] = field(default_factory=dict)
    problem: str = ""
    skipped: bool = False
    differs: str = ""


class RunIntake:
    """The `Intake` of a run. Safe to call from any thread."""

    def __init__(self, plan: Plan, run: Run, on_event: OnEvent) -> None:
        self._plan, self._run, self._tell = plan, run, on_event
        self._cells = {cell.id: cell for cell in plan.cells}
        self._deployments = {text_of(deployment): deployment for deployment, _ in plan.launches()}
        self._lock = threading.RLock()
        self._states: dict[str, _State] = {}
        self._records = run.launches()
        self._launches = {launch.unit: launch.id for launch in self._records.values() if launch.unit}
        """'UNIT/LAUNCH', as the node names it -> id of the launch here: after a restart of the same server it has another."""

    # -- the interface of a placement ------------------------------------------------------------------------------------------

    def started(self, unit: Unit, node: str) -> None:
        """See `Intake`."""
        with self._lock:
            self._state(unit).node = node
            self._tell(Note(f"{unit.name}: on {node}"))
            self._tell(LaunchStarted(self._deployment(unit), unit.repeat))

    def say(self, text: str) -> None:
        """See `Intake`."""
        with self._lock:
            self._tell(Note(text))

    def store(self, unit: Unit, files: Files) -> None:
        """See `Intake`."""
        with self._lock:
            for name, content in files.items():
                folder, _, file = name.rpartition("/")
                if name == NODE:
                    self._state(unit).node = json.loads(content)["name"] or self._state(unit).node
                elif name == "run.json":
                    self._opened(unit, parse(content, Path(name), RunRecord, upgrades.RUN))
                elif name == ENDED:
                    ended: Any = json.loads(content)
                    self._state(unit).problem, self._state(unit).skipped = ended["problem"], ended["skipped"]
                elif folder == "launches":
                    self._launch(unit, parse(content, Path(name), LaunchRecord, upgrades.LAUNCH))
                elif folder == "logs":
                    self._log(unit, file, content)
                elif folder == "cells":
                    self._cell(unit, content, files.get(f"samples/{file.removesuffix('.json')}.parquet"))

    def left(self, unit: Unit) -> Unit | None:
        """See `Intake`."""
        with self._lock:
            cells = [cell for cell in unit.cells if self.lacks(cell)]
            if not cells:
                return None
            ids = {cell.id for cell in cells}
            return replace(
                unit, id=unit.next_id, attempt=unit.attempt + 1, loads=tuple(cell.load for cell in cells),
                searches={first: search for first, search in unit.searches.items() if first in ids},
                quality=None if text_of(unit.deployment) in self.assessed() else unit.quality,
            )  # fmt: skip

    def ended(self, unit: Unit, problem: str = "") -> None:
        """See `Intake`."""
        with self._lock:
            state = self._state(unit)
            why = problem or state.problem or "the node returned no record of it"
            where = f"on {state.node}: " if state.node else ""
            self._store_unmeasured(unit, "skipped" if state.skipped and not problem else "failed", f"{where}{why}")
            self._tell(LaunchEnded(self._deployment(unit), problem or state.problem or None))

    # -- the driver's own ------------------------------------------------------------------------------------------------------

    def lacks(self, cell: Cell) -> bool:
        """Whether a cell, or a search that begins with it, is still to be measured."""
        if cell.id in self._plan.searches:
            return bool(CellQueue(self._plan, self._run, [cell]).cells)
        return not self._run.has(cell.id)

    def assessed(self) -> set[str]:
        """Texts of the deployments whose quality has been measured."""
        return {text_of(launch.deployment) for launch in self._records.values() if launch.quality is not None}

    def lacking(self, units: Sequence[Unit]) -> list[Unit]:
        """The units with an id that no earlier session of this run has used."""
        used: dict[str, int] = {}
        for name in self._launches:
            head, _, attempt = name.partition("/")[0].rpartition("-")
            used[head] = max(used.get(head, -1), int(attempt))
        return [replace(unit, id=f"{unit.launch_id}-{used.get(unit.launch_id, -1) + 1}") for unit in units]

    def skip(self, unit: Unit, why: str) -> None:
        """Store a unit that no node can take."""
        with self._lock:
            self._store_unmeasured(unit, "skipped", why)

    def skip_planned(self) -> None:
        """Store the cells that the plan skips."""
        for cell in self._plan.cells:
            if cell.id in self._plan.skipped and not self._run.has(cell.id):
                self._add(cell, CellRecord.of(cell, "skipped", self._plan.skipped[cell.id]))

    def finish(self) -> None:
        """Store what the nodes that measured have in common as the machine of the run."""
        machines = [launch.machine for launch in self._records.values() if launch.machine]
        if machines:
            same = {key: machines[0].get(key) for key in _COMMON if all(each.get(key) == machines[0].get(key) for each in machines)}
            self._run.update(replace(self._run.record, machine={**self._run.record.machine, **same}))

    def _deployment(self, unit: Unit) -> Deployment:
        """The object of the plan, which the other events have."""
        return self._deployments.get(text_of(unit.deployment), unit.deployment)

    def _state(self, unit: Unit) -> _State:
        return self._states.setdefault(unit.id, _State())

    def _opened(self, unit: Unit, record: RunRecord) -> None:
        """The node's own record of its run: the facts of the node, the inputs that it found, the probes of searches."""
        state, ours = self._state(unit), self._run.record
        state.machine = record.machine
        if differs := changed(ours.inputs, record.inputs):
            state.differs = f"measured with other files than this run: {differs}"
            return
        new = replace(ours, inputs={**ours.inputs, **{name: its for name, its in record.inputs.items() if name not in ours.inputs}})
        for first, probes in record.probes.items():
            for probe, level in probes.items():
                new = new.with_probe(first, probe, level)
        if new != ours:
            self._run.update(new)

    def _launch(self, unit: Unit, launch: LaunchRecord) -> None:
        origin, state = f"{unit.id}/{launch.id}", self._state(unit)
        if origin not in self._launches:
            self._launches[origin] = self._run.new_launch_id(launch.id)
        here = replace(launch, id=self._launches[origin], node=state.node, unit=origin, machine=state.machine)
        self._records[here.id] = here
        self._run.add_launch(here)

    def _log(self, unit: Unit, name: str, content: bytes) -> None:
        """A log 'LAUNCH.log' or 'LAUNCH.MEMBER.log', under the launch's id here. One of no launch is left out."""
        launch, dot, rest = name.partition(".")
        if (here := self._launches.get(f"{unit.id}/{launch}")) is not None:
            replace_atomically(self._run.log(here).with_name(f"{here}{dot}{rest}"), lambda part: part.write_bytes(content))

    def _cell(self, unit: Unit, content: bytes, samples: bytes | None) -> None:
        record = parse(content, Path("cells"), CellRecord, upgrades.CELL)
        if self._run.has(record.id):
            return
        problem = self._state(unit).differs
        if record.samples_sha256 is not None and (samples is None or hashlib.sha256(samples).hexdigest() != record.samples_sha256):
            problem, samples = f"its samples were damaged on their way from {self._state(unit).node}", None
        found = Samples.parse(samples, Path(record.id)) if samples is not None else None
        launch_id = self._launches.get(f"{unit.id}/{record.launch_id}", record.launch_id)
        cell = self._cells.get(record.id) or Cell(self._deployment(unit), record.load, record.repeat)
        if problem:
            record, found = replace(CellRecord.of(cell, "failed", problem), traits=record.traits), None
        self._add(cell, replace(record, launch_id=launch_id), found)

    def _add(self, cell: Cell, record: CellRecord, samples: Samples | None = None) -> None:
        self._run.add_cell(record, samples)
        launch = self._records.get(record.launch_id) if samples is not None else None
        planned, log = len(self._run.record.cells), self._run.log_of(record)
        self._tell(CellEnded(cell, record, planned, samples, self._plan.scenario.slo, launch, log))

    def _store_unmeasured(self, unit: Unit, status: Status, reason: str) -> None:
        for cell in unit.cells:
            if not self._run.has(cell.id):
                cell = self._cells[cell.id]  # noqa: PLW2901  # the object of the plan
                traits = CellTraits(random_weights=is_synthetic(cell.deployment))
                self._add(cell, replace(CellRecord.of(cell, status, reason), traits=traits))
