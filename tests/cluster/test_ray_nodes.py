"""Engines over several nodes of a real Ray cluster: placed together or not at all, ended together, recorded with every node."""

from __future__ import annotations

import time

import psutil
import pytest

from .conftest import Driver

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

RANKS = "{engine: fake, model: any, precision: none, tp: 2, nodes: 2, options: {ttft_ms: 5, itl_ms: 2}}"
PAIR = "{engine: fake, model: any, precision: none, nodes: 2, options: {ttft_ms: 5, itl_ms: 2, disaggregated: true}}"
ONE = "{engine: fake, model: any, precision: none, options: {ttft_ms: 5, itl_ms: 2}}"
SLOW = "{engine: fake, model: any, precision: none, tp: 2, nodes: 2, options: {ttft_ms: 200, itl_ms: 50}}"


def engines(driver: Driver, rank: int) -> list[psutil.Process]:
    """The fake engines of this rank that belong to the cluster."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            home = str(process.parents()[1].environ().get("ENGINEBENCH_HOME", ""))
        except (psutil.Error, IndexError):
            continue
        ours = words[1:2] and words[1].endswith("fake_worker.py") and str(driver.cluster.folder) in home  # its guardian has it further on
        if ours and "--node-rank" in words:
            found += [process] if words[words.index("--node-rank") + 1] == str(rank) else []
    return found


def test_ranks_are_on_both_nodes_and_so_are_prefill_and_decode(driver: Driver) -> None:
    driver.scenario(f"{RANKS}, {ONE}, {PAIR}", rest="repeats: 2")
    placed = driver.json("plan", "s.yaml")
    assert [each["nodes"] for each in placed["placing"]] == [["a", "b"]] * 6
    assert placed["launches"][0]["nodes"] == {"rank-1": 1, "": 0}
    done = driver("run", "s.yaml")
    assert done.returncode == 0, done.stderr
    run = driver.run
    assert [cell.status for cell in run.cells()] == ["ok"] * 12
    assert run.damage() == {}
    for launch in run.launches().values():
        command = launch.startup.command
        assert command is not None
        if launch.deployment.nodes == 2:
            assert {launch.node, *(each.name for each in launch.startup.nodes)} == {"a", "b"}
            assert {member.node for member in command.members} <= {0, 1}
            logs = [run.log(launch.id).with_name(f"{launch.id}.{member.name}.log") for member in command.members]
            assert logs
            assert all(log.read_text() for log in logs)
        else:
            assert launch.startup.nodes == ()


def test_not_enough_nodes_is_one_sentence(driver: Driver) -> None:
    driver.scenario(f"{RANKS[:-1].replace('tp: 2, nodes: 2', 'tp: 3, nodes: 3')}}}")
    done = driver("run", "s.yaml")
    assert done.returncode == 2
    assert f"error: no node of {driver.cluster.address} fits any deployment: 3 nodes needed, a, b fit" in done.stderr
    driver.scenario(f"{RANKS[:-1]}, node: {{zone: zone-a}}}}")
    done = driver("run", "s.yaml")
    assert done.returncode == 2
    assert "2 nodes needed, a fits; b: its zone is zone-b, not zone-a" in done.stderr
    assert not (driver.folder / "results").exists()


def test_a_killed_rank_fails_its_cell_and_the_engine_starts_again(driver: Driver) -> None:
    driver.scenario(SLOW, loads="{concurrency: [1, 2], input_tokens: 8, output_tokens: 16, requests: 6, warmup_requests: 0}")
    process = driver.start("run", "s.yaml")
    driver.wait_for(lambda: bool(list(driver.folder.glob("results/*/launches/*.json"))), "a start")
    driver.wait_for(lambda: bool(engines(driver, 1)), "rank 1")
    engines(driver, 1)[0].kill()
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 3, errors
    cells = list(driver.run.cells())
    assert [cell.status for cell in cells] == ["failed", "ok"]
    assert "lost its member rank-1: killed by SIGKILL (out of memory?) on " in str(cells[0].reason)
    assert engines(driver, 0) == engines(driver, 1) == []


def test_a_lost_node_costs_the_cell_in_flight(driver: Driver) -> None:
    """It is tried again, and no two nodes are left."""
    driver.scenario(SLOW, loads="{concurrency: [1, 2], input_tokens: 8, output_tokens: 16, requests: 6, warmup_requests: 0}")
    process = driver.start("run", "s.yaml")
    driver.wait_for(lambda: driver.stored() == 1, "a cell")
    launch = next(iter(driver.run.launches().values()))
    driver.cluster.kill(launch.startup.nodes[0].name)
    _, errors = process.communicate(timeout=240)
    assert "Traceback" not in errors
    assert "; 1 cells are tried again" in errors
    cells = list(driver.run.cells())
    assert cells[0].status == "ok"
    assert process.returncode == 3, errors
    assert "no node fits any more: 2 nodes needed" in str(cells[1].reason)
    until = time.monotonic() + 60
    while engines(driver, 0) or engines(driver, 1):
        assert time.monotonic() < until
        time.sleep(0.1)
