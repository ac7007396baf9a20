"""Walks a plan: one engine start per deployment and repeat, one stored record per cell, and nothing lost on the way.

A deployment with its loads is the unit of work: plain data in, records out. A cell that fails does not end the sweep; an engine
that dies is started again for the cells that are left, and given up when it dies on two in a row.
"""

from __future__ import annotations

import contextlib
import secrets
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from enginebench.adapter import Adapter, Install, Unsupported
from enginebench.checkpoints import prepare
from enginebench.domain import JSON, Cell, ClosedLoop, Deployment, Status, plain_object
from enginebench.engines.registry import Registry
from enginebench.errors import UserError
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord, LaunchRecord, Run, now
from enginebench.runner.cell import measure, parity_outputs, record_of
from enginebench.runner.cell_queue import CellQueue
from enginebench.runner.engine import Engine, Opening
from enginebench.runner.events import CellEnded, CellStarted, EngineReady, LaunchEnded, LaunchStarted, LaunchStep, OnEvent
from enginebench.runner.instruments import Instruments
from enginebench.runner.opening import open_engine
from enginebench.runner.priming import gauge, prime, recover
from enginebench.runtime import LaunchFailed
from enginebench.scenario.plan import Plan

MAX_CRASHES = 2
"""An engine that died on this many cells in a row is not started again."""


@dataclass
class _Launch:
    """One engine start in the making: the cells still to measure and what becomes the launch record."""

    deployment: Deployment
    agenda: CellQueue
    id: str
    repeat: int
    started_at: str
    opening: Opening = field(default_factory=Opening)
    parity: tuple[Mapping[str, JSON], ...] = ()
    ended: str | None = None


@dataclass(frozen=True)
class Sweep:
    """A plan being run into a run folder.

    installs: where an adapter's engine is on this machine. client_processes: how many the load generator may use. instruments: have been
    started, as that takes a while, and are ended by whoever did.
    """

    plan: Plan
    run: Run
    registry: Registry
    installs: Callable[[Adapter], Sequence[Install]]
    on_event: OnEvent
    instruments: Instruments
    client_processes: int = 1
    session_id: str = field(default_factory=lambda: secrets.token_hex(4))
    """Tells this sitting's prompts from an earlier one's; stored with each cell that it was mixed into."""

    def go(self) -> None:
        """Measure every cell that has no record yet. KeyboardInterrupt passes through: what is stored stays."""
        self._prepare_checkpoints()
        for deployment, cells in self.plan.launches():
            for cell in cells:
                if cell.id in self.plan.skipped and not self.run.has(cell.id):
                    self._end([cell], "skipped", self.plan.skipped[cell.id])
            agenda = CellQueue(self.plan, self.run, [cell for cell in cells if cell.id not in self.plan.skipped])
            self._serve(deployment, agenda)

    def _prepare_checkpoints(self) -> None:
        """Fetch or make every checkpoint before the first launch, so that nothing lies between the engines that are compared.

        What cannot be had is not complained about here: its cells fail with the reason when their turn comes.
        """
        for deployment, cells in self.plan.launches():
            if deployment.runtime != "attach" and any(not self.run.has(c.id) and c.id not in self.plan.skipped for c in cells):
                adapter = self.registry[deployment.engine]
                say = partial(self._step, deployment)
                with contextlib.suppress(UserError):
                    prepare(deployment.checkpoint, deployment.precision, adapter.checkpoint_format, self._base(), say)

    def _serve(self, deployment: Deployment, agenda: CellQueue) -> None:
        """Measure these cells of one deployment with as few engine starts as possible."""
        crashes = 0
        while agenda.cells:
            first, ended = agenda.cells[0], agenda.ended
            launch = _Launch(deployment, agenda, self.run.new_launch_id(first.launch_id), first.repeat, now())
            self.on_event(LaunchStarted(deployment, first.repeat))
            try:
                self._start(launch)
            except Unsupported as reason:
                self._end(agenda.cells, "skipped", str(reason))
                return
            except LaunchFailed as failure:
                launch.ended = failure.reason
                self._end(agenda.cells, "failed", failure.reason, tuple(failure.log_tail.splitlines()))
                return
            except UserError as error:
                launch.ended = _one_line(error)
                self._end(agenda.cells, "failed", launch.ended)
                return
            except Exception as error:  # noqa: BLE001  # a sweep never dies because one engine, or its adapter, did
                launch.ended = f"enginebench failed: {type(error).__name__}: {error}"
                self._end(agenda.cells, "failed", launch.ended, tuple(traceback.format_exc().splitlines()))
                return
            finally:
                self.run.add_launch(_launch_record(launch))
                self.on_event(LaunchEnded(deployment, launch.ended))
            crashes = crashes + 1 if agenda.ended - ended == 1 else 1
            if agenda.cells and crashes >= MAX_CRASHES:
                self._end(agenda.cells, "failed", f"not tried: the engine had to be given up on the {MAX_CRASHES} cells before")
                return

    def _start(self, launch: _Launch) -> None:
        """Bring the engine up and measure until no cell is left or the engine cannot be used any more."""
        adapter = self.registry[launch.deployment.engine]
        with open_engine(
            adapter,
            launch.deployment,
            self.installs(adapter),
            launch.opening,
            log=self.run.log(launch.id),
            base=self._base(),
            say=partial(self._step, launch.deployment),
            processes=self.client_processes,
        ) as engine:
            self._prove(engine, launch)
            self.run.add_launch(_launch_record(launch))  # now: a kill -9 must not cost what is known of this start
            self.on_event(EngineReady(launch.deployment, launch.opening.start_s))
            while launch.agenda.cells and not launch.ended:
                cell = launch.agenda.cells[0]
                self.on_event(CellStarted(cell, len(self.run.record.cells)))
                gauge(engine, launch.deployment, cell.load, salt=self._salt("gauge", launch.deployment))
                record, samples = measure(cell, engine, adapter, self.on_event, self.instruments, nonce=self._nonce(launch.deployment))
                record = replace(record, launch_id=launch.id)
                self.run.add_cell(record, samples)
                launch.agenda.end(record, samples)
                self._ended(cell, record, samples)
                launch.ended = engine.ending() or _still_busy(launch.deployment, samples)
                if record.stopped and launch.agenda.cells and not launch.ended:
                    recover(engine, cell.load, salt=self._salt(f"recover/{record.id}", launch.deployment))

    def _prove(self, engine: Engine, launch: _Launch) -> None:
        """One real generation, and the greedy outputs that engines are compared by."""
        load = launch.agenda.cells[0].load
        self._step(launch.deployment, "first generation")
        prime(engine, launch.deployment, load, salt=self._salt("prime", launch.deployment))
        check = self.plan.scenario.parity
        if check and launch.repeat == 0:
            self._step(launch.deployment, "parity outputs")
            same = ClosedLoop(
                concurrency=1, input_tokens=check.input_tokens, output_tokens=check.output_tokens, requests=check.prompts,
                prompts="text", api=load.api, timeout_s=load.timeout_s,
            )  # fmt: skip
            if launch.opening.vocabulary is None:  # else all engines get the same text, whatever their templates add to it
                gauge(engine, launch.deployment, same, salt=self._salt("gauge", launch.deployment))
            launch.parity = parity_outputs(engine, same)

    def _step(self, deployment: Deployment, step: str) -> None:
        self.on_event(LaunchStep(deployment, step))

    def _ended(self, cell: Cell, record: CellRecord, samples: Samples | None = None) -> None:
        self.on_event(CellEnded(cell, record, len(self.run.record.cells), samples, self.plan.scenario.slo))

    def _base(self) -> Path:
        """The folder that relative checkpoint paths start from."""
        return self.plan.scenario.file.resolve().parent

    def _nonce(self, deployment: Deployment) -> str:
        """Prompts are the same in every run, except to a server that outlives this sitting: its cache would know them again."""
        return self.session_id if deployment.runtime == "attach" else ""

    def _salt(self, purpose: str, deployment: Deployment) -> str:
        """Of prompts that are sent once for a purpose of our own."""
        return f"{purpose}/{self._nonce(deployment)}"

    def _end(self, cells: Sequence[Cell], status: Status, reason: str, log_tail: tuple[str, ...] = ()) -> None:
        """Store cells that were not measured, with the reason."""
        for cell in cells:
            record = record_of(cell, status, reason, log_tail=log_tail)
            self.run.add_cell(record)
            self._ended(cell, record)


def _one_line(error: UserError) -> str:
    """The error as a reason: the advice, which has a line of its own where a person reads it, after a semicolon."""
    return "; ".join(line.strip() for line in str(error).splitlines())


def _still_busy(deployment: Deployment, samples: Samples | None) -> str | None:
    """Requests that timed out go on inside the engine and would run into the next cell; an engine of ours is started again."""
    if deployment.runtime in ("process", "docker") and samples is not None and "timeout" in samples.outcome:
        return "requests timed out and may still be running; started again for the next cell"
    return None


def _launch_record(launch: _Launch) -> LaunchRecord:
    opening = launch.opening
    command, install = opening.launch, opening.install
    return LaunchRecord(
        id=launch.id,
        deployment=launch.deployment,
        repeat=launch.repeat,
        started_at=launch.started_at,
        argv=command.argv if command else (),
        env=command.env if command else {},
        members=tuple(map(plain_object, command.members)) if command else (),
        notes=command.notes if command else (),
        packages=opening.packages,
        inherited=opening.inherited,
        container=opening.container,
        variant=install.variant if install else None,
        version=opening.resolved.version or (install.version if install else None),
        start_s=opening.start_s,
        stop_s=opening.stop_s,
        identity=opening.identity,
        resolved=plain_object(opening.resolved),
        differences=tuple(map(plain_object, opening.differences)),
        parity=launch.parity,
        ended=launch.ended,
    )
