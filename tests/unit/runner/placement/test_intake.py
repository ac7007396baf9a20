"""What comes back from nodes is stored once, whole and under the right names; what does not come back is said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from enginebench.analysis.caveats import of_nodes
from enginebench.domain import Deployment
from enginebench.records.cell import CellRecord
from enginebench.records.launch import LaunchRecord
from enginebench.records.run_folder import Run
from enginebench.records.schema import dump
from enginebench.runner.events import CellEnded, Event
from enginebench.runner.folder import open_run_for
from enginebench.runner.placement.intake import RunIntake
from enginebench.runner.placement.unit_data import Unit
from enginebench.runner.placement.unit_plan import units_of
from enginebench.scenario.plan import Plan
from enginebench.scenario.planning import plan

from ....conftest import Pace, synthetic_samples  # noqa: TID252  # tests/ is no package

SCENARIO = """
name: s
deployments: [{engine: fake, model: any, precision: none}]
loads: [{concurrency: [1, 2], input_tokens: 8, output_tokens: 4, requests: 4}]
repeats: 2
"""
FACTS = {"cpu": "AMD EPYC 9654", "usable_cores": 8, "memory_bytes": 2**34, "gpus": [], "architecture": "x86_64"}


class Driver:
    """A run that is open, and what its listener was told."""

    def __init__(self, found: Plan, results: Path) -> None:
        self.plan, self.results, self.events = found, results, list[Event]()

    def open(self, stack: ExitStack) -> RunIntake:
        opened = open_run_for(self.plan, self.results, {"placement": "ray"}, fresh=False, retry_failed=False, say=lambda _: None)
        self.run = stack.enter_context(opened)
        return RunIntake(self.plan, self.run, self.events.append)


@pytest.fixture
def driver(tmp_path: Path) -> Driver:
    (tmp_path / "s.yaml").write_text(SCENARIO)
    return Driver(plan(tmp_path / "s.yaml"), tmp_path / "results")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def sent(unit: Unit, tmp_path: Path, *, cells: int = 2, facts: Any = FACTS) -> dict[str, bytes]:
    """The files of a unit that a node has measured, as far as these cells."""
    import shutil

    shutil.rmtree(tmp_path / "node", ignore_errors=True)
    from enginebench.records.run import RunRecord

    record = RunRecord("s", "2026-01-02T03:00:00+00:00", {}, "0" * 12, tuple(cell.id for cell in unit.cells), facts, "0.2.0")
    run = Run.create(tmp_path / "node", record, "name: s\n")
    start = unit.cells[0].launch_id
    run.add_launch(LaunchRecord(start, unit.deployment, unit.repeat, "2026-01-02T03:00:00+00:00"))
    run.log(start).write_text("a log")
    for cell in unit.cells[:cells]:
        run.add_cell(CellRecord.of(cell, "ok"), synthetic_samples(cell.load, Pace(0.02, 0.005), seed=1))
    names = ["run.json", f"launches/{start}.json", f"logs/{start}.log"]
    names += [f"{kind}/{cell.id}.{end}" for cell in unit.cells[:cells] for kind, end in (("samples", "parquet"), ("cells", "json"))]
    return {"node.json": b'{"name": "a"}'} | {name: (tmp_path / "node" / name).read_bytes() for name in names}


def test_cells_are_stored_with_their_samples_and_node_once(driver: Driver, stack: ExitStack, tmp_path: Path) -> None:
    intake = driver.open(stack)
    first, second = units_of(driver.plan)
    files = sent(first, tmp_path)
    for _ in range(2):  # again after a driver was lost
        intake.store(first, files)
    intake.ended(first)
    run = driver.run
    assert [cell.status for cell in run.cells()] == ["ok", "ok"]
    assert run.damage() == {}
    (launch,) = run.launches().values()
    assert (launch.node, launch.machine, launch.unit) == ("a", FACTS, f"{first.id}/{launch.id}")
    assert run.log(launch.id).read_text() == "a log"
    assert hashlib.sha256(run.stored_samples(run.cell(first.cells[0].id)).content).hexdigest() == run.cell(first.cells[0].id).samples_sha256
    ended = [event for event in driver.events if isinstance(event, CellEnded)]
    assert [event.record.status for event in ended] == ["ok", "ok"]
    assert all(event.cell in driver.plan.cells and event.result is not None for event in ended)
    assert intake.left(first) is None
    assert intake.left(second).cells == second.cells
    intake.finish()
    assert run.record.machine["cpu"] == "AMD EPYC 9654"


def test_a_second_try_has_a_launch_of_its_own_and_only_what_lacks(driver: Driver, stack: ExitStack, tmp_path: Path) -> None:
    intake = driver.open(stack)
    first, _ = units_of(driver.plan)
    intake.store(first, sent(first, tmp_path, cells=1))
    again = intake.left(first)
    assert again is not None
    assert again.cells == first.cells[1:]
    assert again.id == f"{first.launch_id}-1"
    intake.store(again, sent(again, tmp_path))
    start = first.cells[0].launch_id
    assert sorted(driver.run.launches()) == [start, f"{start}-2"]
    assert [cell.launch_id for cell in driver.run.cells()] == [start, f"{start}-2"]


def test_a_resumed_driver_gives_units_new_ids(driver: Driver, tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, second = units_of(driver.plan)
        driver.open(stack).store(first, sent(first, tmp_path, cells=1))
    with ExitStack() as stack:
        intake = driver.open(stack)
        units = intake.lacking(units_of(driver.plan, intake.lacks))
        assert [(unit.id, len(unit.loads)) for unit in units] == [(f"{first.launch_id}-1", 1), (second.id, 2)]


def test_what_does_not_come_back_fails_or_is_skipped_with_the_reason(driver: Driver, stack: ExitStack, tmp_path: Path) -> None:
    intake = driver.open(stack)
    first, second = units_of(driver.plan)
    intake.store(first, {"node.json": b'{"name": "a"}', "ended.json": b'{"problem": "cannot run here: no GPU", "skipped": true}'})
    intake.ended(first)
    intake.ended(second, "given up after 3 tries")
    assert [(cell.status, cell.reason) for cell in driver.run.cells()] == [
        ("skipped", "on a: cannot run here: no GPU"), ("skipped", "on a: cannot run here: no GPU"),
        ("failed", "given up after 3 tries"), ("failed", "given up after 3 tries"),
    ]  # fmt: skip


def test_damaged_samples_fail_their_cell_and_nothing_else(driver: Driver, stack: ExitStack, tmp_path: Path) -> None:
    intake = driver.open(stack)
    first, _ = units_of(driver.plan)
    files = sent(first, tmp_path)
    intake.store(first, files | {f"samples/{first.cells[0].id}.parquet": b"PAR1 half of it"})
    assert [cell.status for cell in driver.run.cells()] == ["failed", "ok"]
    assert "damaged on their way from a" in (driver.run.cell(first.cells[0].id).reason or "")


def test_nodes_that_measure_other_files_do_not_count(driver: Driver, stack: ExitStack, tmp_path: Path) -> None:
    from enginebench.checkpoints.content import Content

    intake = driver.open(stack)
    first, second = units_of(driver.plan)
    for unit, digest in ((first, "1" * 64), (second, "2" * 64)):
        files = sent(unit, tmp_path)
        record = replace(Run(tmp_path / "node").record, inputs={"checkpoint tiny": Content(8, digest, digest)})
        intake.store(unit, files | {"run.json": dump(record).encode()})
    assert [cell.status for cell in driver.run.cells()] == ["ok", "ok", "failed", "failed"]
    assert "measured with other files than this run: checkpoint tiny" in (driver.run.cell(second.cells[0].id).reason or "")


def test_a_run_of_a_cluster_is_not_resumed_here_nor_the_other_way(driver: Driver, tmp_path: Path) -> None:
    said: list[str] = []
    with ExitStack() as stack:
        driver.open(stack)
    for machine in ({"cpu": "this one"}, {"placement": "slurm"}):
        with open_run_for(driver.plan, driver.results, machine, fresh=False, retry_failed=False, say=said.append):
            pass
    assert len(list(driver.results.iterdir())) == 3
    assert all("measured on another machine" in text for text in said)


def test_unlike_nodes_are_said() -> None:
    one, other = Deployment("fake", "any", "none", "any"), Deployment("vllm", "any", "none", "any")

    def launch(deployment: Deployment, node: str, **facts: Any) -> LaunchRecord:
        return LaunchRecord("1", deployment, 0, "", node=node, machine=FACTS | facts)

    assert list(of_nodes([launch(one, ""), launch(other, "a")])) == []
    assert list(of_nodes([launch(each, node) for each in (one, other) for node in "ab"])) == []
    assert list(of_nodes([launch(one, "a"), launch(other, "b")])) == [
        "measured on 2 nodes of one kind (a, b), and not every deployment on the same ones"
    ]
    assert list(of_nodes([launch(one, "a"), launch(other, "b", cpu="Intel Xeon", usable_cores=4)])) == [
        "measured on nodes that differ in cpu, usable cores (a, b): compare what ran on the same node"
    ]
