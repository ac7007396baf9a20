"""An engine over two nodes, both on this machine: two processes that share nothing but a connection."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from enginebench import plan
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.records.run_folder import Run, open_run
from enginebench.runner.placement.unit import NODE_LOST
from enginebench.runner.placement.unit_data import ENDED, MEETING
from enginebench.runner.placement.unit_plan import units_of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SCENARIO = """
name: s
deployments: [{DEPLOYMENT}]
loads: [{concurrency: [1, 2], input_tokens: 8, output_tokens: 8, requests: LOAD, warmup_requests: 0}]
"""
RANKS = "{engine: fake, model: any, precision: none, tp: 2, nodes: 2, options: {ttft_ms: 5, itl_ms: 5}}"
PAIR = "{engine: fake, model: any, precision: none, nodes: 2, options: {ttft_ms: 5, itl_ms: 5, disaggregated: true}}"


class TwoProcesses:
    """A unit, and the rank of a second node, each with its own folder of leases."""

    def __init__(self, folder: Path, deployment: str, requests: int = 4, scenario: str = SCENARIO) -> None:
        self.folder, self.into = folder, folder / "into"
        (folder / "s.yaml").write_text(scenario.replace("{DEPLOYMENT}", deployment).replace("LOAD", str(requests)))
        (self.unit,) = units_of(plan(folder / "s.yaml", elsewhere=True))
        self.unit.write(folder / "unit.json")
        self.into.mkdir()

    def start(self, module: str, *arguments: str, home: str) -> subprocess.Popen[str]:
        env = {**os.environ, "ENGINEBENCH_LEASES": str(self.folder / home)}
        command = [sys.executable, "-m", f"enginebench.runner.placement.{module}", str(self.folder / "unit.json"), *arguments]
        return subprocess.Popen(command, cwd=self.folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def begin(self) -> None:
        self.head = self.start("unit", "--into", str(self.into), "--node", "a", "--meet", "127.0.0.1", home="a")
        self.rank = self.start("rank", "--meeting", str(self.into / MEETING), "--rank", "1", "--node", "b", home="b")

    def end(self, timeout_s: float = 60) -> tuple[int, int, str, str]:
        """Exit codes and output of both."""
        said, heard = self.head.communicate(timeout=timeout_s)[0], self.rank.communicate(timeout=60)[0]
        return self.head.returncode, self.rank.returncode, said, heard

    def engines(self, of: subprocess.Popen[str]) -> list[psutil.Process]:
        """The fake engines below a process."""
        found = psutil.Process(of.pid).children(recursive=True)
        return [each for each in found if "fake_worker.py" in " ".join(each.cmdline()) and "guardian.py" not in " ".join(each.cmdline())]

    @property
    def run(self) -> Run:
        (found,) = self.into.glob("*/run.json")
        return open_run(found.parent)

    def wait_for(self, of: subprocess.Popen[str]) -> None:
        """Until its rank runs, and the engine as a whole serves."""
        until = time.monotonic() + 60
        while not list(self.into.glob("*/launches/*.json")) or not self.engines(of):
            assert self.head.poll() is None, self.head.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)

    def wait_for_cell(self) -> None:
        until = time.monotonic() + 60
        while not list(self.into.glob("*/cells/*.json")):
            assert self.head.poll() is None, self.head.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)


@pytest.fixture
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[TwoProcesses]:
    found = TwoProcesses(tmp_path, *request.param)
    found.begin()
    yield found
    for each in (found.head, found.rank):
        if each.poll() is None:
            each.kill()
        each.communicate()


@pytest.mark.parametrize("two", [(RANKS,)], indirect=True)
def test_both_ranks_serve_and_all_is_recorded(two: TwoProcesses) -> None:
    head, rank, said, heard = two.end()
    assert (head, rank) == (0, 0), (said, heard)
    assert [cell.status for cell in two.run.cells()] == ["ok", "ok"]
    (launch,) = two.run.launches().values()
    assert [(each.name, each.address) for each in launch.startup.nodes] == [("b", "127.0.0.1")]
    assert launch.startup.nodes[0].machine["usable_cores"]
    assert launch.startup.nodes[0].install is not None
    command = launch.startup.command
    assert command is not None
    (member,) = command.members
    assert (member.name, member.node) == ("rank-1", 1)
    assert "127.0.0.1:" in member.argv[-1]
    log = two.run.log(launch.id)
    assert "rank 1 of 2 is here" in log.read_text()
    assert "rank 1 is connected" in log.with_name(f"{log.stem}.rank-1.log").read_text()
    assert not (two.into / MEETING).exists(), "it held the key"


@pytest.mark.parametrize("two", [(PAIR,)], indirect=True)
def test_prefill_and_decode_are_on_different_nodes(two: TwoProcesses) -> None:
    two.wait_for_cell()
    assert [len(two.engines(each)) for each in (two.head, two.rank)] == [1, 1]
    head, rank, said, heard = two.end()
    assert (head, rank) == (0, 0), (said, heard)
    assert [cell.status for cell in two.run.cells()] == ["ok", "ok"]
    (launch,) = two.run.launches().values()
    assert launch.startup.identity == "proven", "each port is answered by what was started on its node"
    command = launch.startup.command
    assert command is not None
    assert {member.name: member.node for member in command.members} == {"prefill": 0, "decode": 1}


@pytest.mark.parametrize("two", [(RANKS, 2000)], indirect=True)
def test_a_rank_that_dies_fails_the_cell_with_its_name_and_its_log(two: TwoProcesses) -> None:
    two.wait_for(two.rank)
    (engine,) = two.engines(two.rank)
    engine.kill()
    two.end()
    failed = [cell for cell in two.run.cells() if cell.status == "failed"]
    assert failed
    assert "lost its member rank-1: killed by SIGKILL (out of memory?) on b" in str(failed[0].reason)


@pytest.mark.parametrize("two", [(RANKS, 2000)], indirect=True)
def test_a_head_that_dies_ends_the_rank_on_the_other_node(two: TwoProcesses) -> None:
    two.wait_for(two.rank)
    (engine,) = two.engines(two.rank)
    two.head.kill()
    _, rank, _, _ = two.end()
    assert rank == 0
    assert not engine.is_running()


@pytest.mark.parametrize("two", [(RANKS, 2000)], indirect=True)
def test_a_node_that_is_lost_ends_the_unit_without_a_record_of_the_cell(two: TwoProcesses) -> None:
    two.wait_for(two.rank)
    two.rank.send_signal(signal.SIGTERM)
    head, rank, said, _ = two.end()
    assert (head, rank) == (NODE_LOST, 130), (said, [cell.reason for cell in two.run.cells()])
    assert said.splitlines()[-1] == "error: lost node b"
    assert list(two.run.cells()) == []
    assert not (two.into / ENDED).exists(), "so it is tried again elsewhere"


VLLM = """
name: v
models: {tiny: {random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}}}
deployments:
  - {engine: vllm, model: tiny, precision: f32, tp: 2, nodes: 2, options: {kv_gib: 0.25, enforce_eager: true, cpu_threads: nobind}}
loads: [{concurrency: 1, input_tokens: 16, output_tokens: 4, requests: 2, warmup_requests: 0}]
"""


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(not installs_of(discover()["vllm"]), reason="needs: bench engines install vllm:cpu")
def test_vllm_shares_its_layers_between_two_nodes(tmp_path: Path) -> None:
    two = TwoProcesses(tmp_path, "", scenario=VLLM)
    two.begin()
    head, rank, said, heard = two.end(600)
    assert (head, rank) == (0, 0), (said, heard)
    assert [cell.status for cell in two.run.cells()] == ["ok"]
    (launch,) = two.run.launches().values()
    assert launch.startup.identity == "proven"
    log = two.run.log(launch.id)
    assert "Worker_TP0" in log.read_text()
    assert "Worker_TP1" in log.with_name(f"{log.stem}.rank-1.log").read_text(), "the second half is on the other node"
