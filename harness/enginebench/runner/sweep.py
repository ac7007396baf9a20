"""Walks a plan: one engine start per deployment and repeat, one stored record per cell. A failed cell does not end the sweep.

An engine that crashes is started again for the cells that are left, and given up when it crashes on several cells in a row.
"""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from enginebench.adapter import Adapter, Install, Unsupported
from enginebench.checkpoints import prepare
from enginebench.domain import Cell, ClosedLoop, Deployment, Load, Status
from enginebench.engines.registry import Registry
from enginebench.errors import UserError
from enginebench.loadgen.remote.host import ClientHost
from enginebench.records.cell import CellRecord, CellTraits
from enginebench.records.files import NotStored, now
from enginebench.records.launch import LaunchRecord, latest_quality
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.runner.cell import is_synthetic, measure, parity_outputs
from enginebench.runner.cell_queue import CellQueue
from enginebench.runner.engine import Engine
from enginebench.runner.events import CellEnded, CellsAdded, CellStarted, EngineReady, LaunchEnded, LaunchStarted, LaunchStep, Note, OnEvent
from enginebench.runner.failures import still_busy, why_of
from enginebench.runner.growth import Fixed, Growth
from enginebench.runner.instruments import Instruments
from enginebench.runner.launch import checkpoints_of, open_engine
from enginebench.runner.priming import first_generation, fit_text_scale, wait_until_idle
from enginebench.runner.quality.assess import assess
from enginebench.runner.quality.due import lacking, quality_due, unmeasured
from enginebench.runner.redaction import secrets_of
from enginebench.runtime.machine_lease import MachineLease
from enginebench.runtime.nodes import Followers
from enginebench.scenario.checkpoint import check_fetched
from enginebench.scenario.contents import changed, contents_of, hashes
from enginebench.scenario.plan import Plan, launches_of

MAX_CRASHES = 2
"""An engine that crashed on this many cells in a row is not started again."""


@dataclass(frozen=True)
class Sweep:
    """A plan that is run into a run folder."""

    plan: Plan
    run: Run
    registry: Registry
    installs: Callable[[Adapter], Sequence[Install]]
    """Finds the installations of an adapter's engine on this machine."""
    on_event: OnEvent
    instruments: Instruments
    """Started and closed by the caller, because starting takes a while."""
    client_processes: int = 1
    """Processes that the load generator may use."""
    lease: MachineLease | None = None
    """Of this run. Tells who else measures on this machine, and has the folder for temporary files."""
    gpu_users: Sequence[str] = ()
    """Other processes on the GPUs of this plan when the run began."""
    session_id: str = field(default_factory=lambda: secrets.token_hex(4))
    """Makes the prompts for an attached server differ from those of earlier runs; stored with each cell that uses it."""
    growth: Growth = field(default_factory=Fixed)
    """What adds cells when those of the plan are stored."""
    hosts: Sequence[ClientHost] = ()
    """Clients on other hosts, which send the loads in the place of this machine."""
    others: Followers | None = None
    """The other nodes of an engine that spans several."""

    def go(self) -> None:
        """Measure every cell that is not stored yet. KeyboardInterrupt passes through; what is stored is kept."""
        self._prepare_checkpoints()
        self._identify(whole=False)
        self._measure(self.plan.cells)
        while (added := self.growth.more(self.run)) is not None:
            self.run.update(self.run.record.with_cells(cell.id for cell in added.cells))
            left = tuple(cell for cell in added.cells if not self.run.has(cell.id))
            self.on_event(CellsAdded(left, len(self.run.record.cells), added.why))
            self._measure(left)
        self._catch_up()
        if large := [name for name, found in self.run.record.inputs.items() if found.sha256 is None]:
            self.on_event(Note(f"hashing what was too large before the run: {', '.join(large)}"))
            with contextlib.suppress(UserError):  # a file that is gone by now costs its hash
                self._identify(whole=True)

    def _measure(self, cells: Sequence[Cell]) -> None:
        for deployment, its in launches_of(cells):
            for cell in its:
                if cell.id in self.plan.skipped and not self.run.has(cell.id):
                    self._store_unmeasured([cell], "skipped", self.plan.skipped[cell.id])
            queue = CellQueue(self.plan, self.run, [cell for cell in its if cell.id not in self.plan.skipped])
            self._measure_deployment(deployment, queue)

    def _identify(self, *, whole: bool) -> None:
        """Store what the files contain that were fetched for this run, or whose whole content was not hashed before it."""
        deployments = [deployment for deployment, _ in self.plan.launches()]
        found = contents_of(deployments, {cell.load for cell in self.plan.cells}, self._base(), whole=whole)
        known = self.run.record.inputs
        new = {name: now for name, now in found.items() if name not in known or (known[name].same_as(now) and known[name] != now)}
        if new:
            self.run.update(replace(self.run.record, inputs={**known, **new}))

    def _inputs(self, deployment: Deployment, load: Load | None = None) -> dict[str, str]:
        """Name -> SHA-256 of what is measured with. UserError if it has changed since the run was begun."""
        found = contents_of([deployment], [load] if load else [], self._base())
        if differs := changed(self.run.record.inputs, found):
            raise UserError(f"changed while the run was measuring: {differs}", advice="start another run with --fresh")
        on_hub = {name: known for name, known in self.run.record.inputs.items() if load and name == f"prompts {load.prompts}"}
        return hashes({**on_hub, **found})

    def _prepare_checkpoints(self) -> None:
        """Download or make every checkpoint before the first launch, so that no download runs between engines that are compared.
        Errors are ignored here: the cells of that checkpoint fail with the reason when their turn comes."""
        for deployment, cells in self.plan.launches():
            if deployment.runtime != "attach" and any(not self.run.has(c.id) and c.id not in self.plan.skipped for c in cells):
                adapter = self.registry[deployment.engine]
                say = partial(self._step, deployment)
                with contextlib.suppress(UserError, OSError):
                    for reference, precision in filter(lambda each: each[0], checkpoints_of(deployment)):
                        prepare(reference, precision, adapter.checkpoint_format, self._base(), say)

    def _measure_deployment(self, deployment: Deployment, queue: CellQueue) -> None:
        """Measure the queue with as few engine starts as possible."""
        crashes = 0
        while queue.cells:
            first, ended = queue.cells[0], queue.ended
            launch = LaunchRecord(self.run.new_launch_id(first.launch_id), deployment, first.repeat, now())
            self.on_event(LaunchStarted(deployment, first.repeat))
            try:
                self._launch(launch, queue)
            except Unsupported as reason:
                self._store_unmeasured(queue.cells, "skipped", str(reason))
                return
            except NotStored:
                raise
            except Exception as error:  # noqa: BLE001  # an error in one engine or adapter must not end the sweep
                self._check_nodes()
                launch.ended, log_tail = why_of(error, secrets_of(deployment))
                self._store_unmeasured(queue.cells, "failed", launch.ended, log_tail, launch)
                return
            finally:
                self.run.add_launch(launch)
                self.on_event(LaunchEnded(deployment, launch.ended))
            crashes = crashes + 1 if queue.ended - ended == 1 else 1
            if queue.cells and crashes >= MAX_CRASHES:
                why = f"not tried: the engine had to be given up on the {MAX_CRASHES} cells before"
                self._store_unmeasured(queue.cells, "failed", why)
                return

    def _launch(self, launch: LaunchRecord, queue: CellQueue) -> None:
        """Start the engine and measure until the queue is empty or the engine cannot be used any more."""
        deployment = launch.deployment
        adapter = self.registry[deployment.engine]
        with self._opened(launch) as engine:
            self._check_outputs(engine, queue.cells[0].load)
            self.run.add_launch(launch)  # already now, in case this process is killed
            self.on_event(EngineReady(deployment, launch.startup.start_s))
            while queue.cells and not launch.ended:
                cell = queue.cells[0]
                self.on_event(CellStarted(cell, len(self.run.record.cells)))
                fit_text_scale(engine, cell.load, salt=self._salt("gauge", deployment))
                session_id = self._session_id(deployment)
                inputs = self._inputs(deployment, cell.load)
                others = self._others()
                record, samples = measure(cell, engine, adapter, self.on_event, self.instruments, session_id=session_id)
                self._check_nodes()
                record = replace(record, shared_machine=", ".join(dict.fromkeys([*others, *self._others()])) or None)
                record = replace(record, inputs=inputs)
                self.run.add_cell(record, samples)
                queue.end(record, samples)
                self._ended(cell, record, samples, launch)
                launch.ended = engine.ending() or still_busy(deployment, samples)
                if record.delivery.stopped and queue.cells and not launch.ended:
                    wait_until_idle(engine, cell.load, salt=self._salt(f"recover/{record.id}", deployment))
            self._check_quality(engine, deployment, launch)

    def _opened(self, launch: LaunchRecord) -> AbstractContextManager[Engine]:
        """The started engine."""
        deployment = launch.deployment
        adapter = self.registry[deployment.engine]
        launch.inputs = self._inputs(deployment)
        if deployment.runtime != "attach":
            check_fetched(adapter, deployment, self._base())
        log, say = self.run.log(launch.id), partial(self._step, deployment)
        installs = self.installs(adapter)
        where: dict[str, Any] = {"log": log, "base": self._base(), "folder": self.lease.folder if self.lease else None}
        where |= {"hosts": self.hosts, "others": self.others}
        return open_engine(adapter, launch, installs, **where, say=say, processes=self.client_processes)

    def _check_outputs(self, engine: Engine, load: Load) -> None:
        """Run the first generation, and store the greedy outputs by which engines are compared."""
        launch, check = engine.launch, self.plan.scenario.parity
        deployment = launch.deployment
        self._step(deployment, "first generation")
        first_generation(engine, load, salt=self._salt("prime", deployment))
        if check and launch.repeat == 0:
            self._step(deployment, "parity outputs")
            same = ClosedLoop(
                concurrency=1, input_tokens=check.input_tokens, output_tokens=check.output_tokens, requests=check.prompts,
                prompts="text", api=load.api, timeout_s=load.timeout_s,
            )  # fmt: skip
            if engine.prompts.vocabulary is None:  # otherwise all engines get the same text, whatever their templates add
                fit_text_scale(engine, same, salt=self._salt("gauge", deployment))
            launch.parity = parity_outputs(engine, same)

    def _check_quality(self, engine: Engine, deployment: Deployment, launch: LaunchRecord) -> None:
        """Measure the quality once per deployment, after its loads, which it must not disturb."""
        check = self.plan.scenario.quality
        if check is None or launch.ended or engine.ending():
            return
        known = latest_quality(self.run.launches(), deployment)
        if lacking(check, known):
            load = next(cell.load for cell in self.plan.cells if cell.deployment == deployment)
            launch.quality = assess(engine, check, load, partial(self._step, deployment), known)
            self.run.add_launch(launch)

    def _catch_up(self) -> None:
        """Start the engines again whose quality is not measured, because the scenario did not ask for it when they ran."""
        check = self.plan.scenario.quality
        for deployment in quality_due(self.run, self.plan):
            first = next(cell for cell in self.plan.cells if cell.deployment == deployment)
            launch = LaunchRecord(self.run.new_launch_id(first.launch_id), deployment, first.repeat, now())
            self.on_event(LaunchStarted(deployment, first.repeat))
            try:
                with self._opened(launch) as engine:
                    first_generation(engine, first.load, salt=self._salt("prime", deployment))
                    self.on_event(EngineReady(deployment, launch.startup.start_s))
                    self._check_quality(engine, deployment, launch)
            except NotStored:
                raise
            except Exception as error:  # noqa: BLE001  # an error in one engine or adapter must not end the others
                launch.ended, _ = why_of(error, secrets_of(deployment))
            finally:
                if launch.quality is None and check is not None and launch.ended:
                    launch.quality = unmeasured(check, latest_quality(self.run.launches(), deployment), launch.ended)
                self.run.add_launch(launch)
                self.on_event(LaunchEnded(deployment, launch.ended))

    def _check_nodes(self) -> None:
        """A node that is lost is not the engine's failure: the sweep ends as by Ctrl-C, and the cell in flight is not stored."""
        if self.others is not None and self.others.lost:
            raise KeyboardInterrupt

    def _others(self) -> list[str]:
        return [*self.gpu_users, *(self.lease.others() if self.lease else ())]

    def _step(self, deployment: Deployment, step: str) -> None:
        self.on_event(LaunchStep(deployment, step))

    def _ended(self, cell: Cell, record: CellRecord, samples: Samples | None = None, launch: LaunchRecord | None = None) -> None:
        log = self.run.log_of(record)
        self.on_event(CellEnded(cell, record, len(self.run.record.cells), samples, self.plan.scenario.slo, launch, log))

    def _base(self) -> Path:
        """Folder that relative checkpoint paths start from."""
        return self.plan.base

    def _session_id(self, deployment: Deployment) -> str:
        """Prompts are the same in every run, except for an attached server: its prefix cache outlives the run."""
        return self.session_id if deployment.runtime == "attach" else ""

    def _salt(self, purpose: str, deployment: Deployment) -> str:
        """Salt of prompts that are not part of a cell."""
        return f"{purpose}/{self._session_id(deployment)}"

    def _store_unmeasured(
        self, cells: Sequence[Cell], status: Status, reason: str, log_tail: tuple[str, ...] = (), launch: LaunchRecord | None = None
    ) -> None:
        """Store cells that were not measured, with the reason. launch: the server start that failed."""
        for cell in cells:
            traits = CellTraits(random_weights=is_synthetic(cell.deployment))
            start = launch.id if launch else cell.launch_id
            record = replace(CellRecord.of(cell, status, reason, log_tail=log_tail), traits=traits, launch_id=start)
            self.run.add_cell(record)
            self._ended(cell, record)
