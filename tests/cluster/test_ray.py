"""`--on ray://`: a real cluster of two nodes. What is placed where, what a lost node and a lost driver cost, and what a unit costs."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import psutil
import pytest
from enginebench.analysis.analysis import analyse

from .conftest import Driver

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]

FAKE = "{engine: fake, model: any, precision: none, options: {ttft_ms: 5, itl_ms: 2}}"
SLOW = "{engine: fake, model: any, precision: none, options: {ttft_ms: 200, itl_ms: 50}}"
TINY = "models:\n  tiny: {random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}}"
OVERHEAD_S = 1.5
"""What a unit may cost beside the start of its engine and its load."""


def test_nodes_are_shown_and_units_go_where_they_fit(driver: Driver) -> None:
    nodes = {node["name"]: node for node in driver.json("doctor")}
    assert sorted(nodes) == ["a", "b"]
    assert nodes["a"]["labels"]["zone"] == "zone-a"
    assert "fake" in nodes["b"]["engines"]
    assert nodes["a"]["cores"] == 2
    driver.scenario(f"{FAKE[:-1]}, node: [{{name: a}}, {{zone: zone-b}}, {{zone: zone-c}}]}}")
    placed = driver.json("plan", "s.yaml")["placing"]
    assert [each["nodes"] for each in placed] == [["a"], ["b"], []]
    assert placed[2]["why_not"] == "a: its zone is zone-a, not zone-c; b: its zone is zone-b, not zone-c"
    done = driver("run", "s.yaml")
    assert done.returncode == 0, done.stderr
    run = driver.run
    cells = list(run.cells())
    assert Counter(cell.status for cell in cells) == {"ok": 4, "skipped": 2}
    launches = run.launches()
    assert [launches[cell.launch_id].node for cell in cells if cell.status == "ok"] == ["a", "a", "b", "b"]
    assert {cell.reason for cell in cells if cell.status == "skipped"} == {f"no node fits: {placed[2]['why_not']}"}
    assert run.damage() == {}
    assert all(run.log(launch).is_file() for launch in launches)


def test_a_cluster_without_a_fitting_node_refuses_in_one_sentence(driver: Driver) -> None:
    driver.scenario(f"{FAKE[:-1]}, node: {{name: c}}}}")
    done = driver("run", "s.yaml")
    assert done.returncode == 2
    assert (
        f"error: no node of {driver.cluster.address} fits any deployment: a: its name is a, not c; b: its name is b, not c" in done.stderr
    )
    assert not (driver.folder / "results").exists()


def test_no_cluster_is_one_sentence(driver: Driver) -> None:
    driver.on = "ray://127.0.0.1:1"
    done = driver("doctor")
    assert done.returncode == 2
    assert done.stderr.startswith("error: no Ray cluster answers at ray://127.0.0.1:1")
    assert "Traceback" not in done.stderr


def test_a_cluster_is_made_for_a_run_and_ends_with_it(driver: Driver) -> None:
    driver.on = "local-ray"
    driver.scenario(FAKE, rest="repeats: 2")
    done = driver("run", "s.yaml")
    assert done.returncode == 0, done.stderr
    run = driver.run
    assert [cell.status for cell in run.cells()] == ["ok"] * 4
    assert len({launch.node for launch in run.launches().values()} - {""}) == 1
    assert run.record.machine["placement"] == "ray"


def test_an_engine_is_installed_on_every_node(driver: Driver) -> None:
    done = driver("engines", "install", "llamacpp")
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert [line.partition(": ")[0] for line in lines] == ["llamacpp on a", "llamacpp on b"]
    assert all("llama.cpp" in line for line in lines)
    done = driver("engines", "install", "llamacpp:moon")
    assert done.returncode == 2
    assert "error: llamacpp:moon is not on every node: a, b: llama.cpp has no variant 'moon'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_node_that_is_lost_costs_the_cell_in_flight(driver: Driver) -> None:
    driver.scenario(SLOW, loads="{concurrency: [1, 2, 3, 4, 5, 6], input_tokens: 8, output_tokens: 8, requests: 6}", rest="repeats: 3")
    process = driver.start("run", "s.yaml")
    driver.wait_for(lambda: bool(_cells_of("b", driver)), "a cell of b")
    before = {file.name for file in driver.folder.glob("results/*/cells/*.json")}
    assert len(_cells_of("b", driver)) < 6, "its unit is not done"
    driver.cluster.kill("b")
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    assert "lost on b" in errors
    run = driver.run
    cells = list(run.cells())
    assert len(cells) == 18
    assert {cell.status for cell in cells} == {"ok"}
    assert before <= {f"{cell.id}.json" for cell in cells}
    assert run.damage() == {}
    again = {launch.node for launch in run.launches().values() if not launch.unit.split("/")[0].endswith("-0")}  # handed over once or twice
    assert again == {"a"}, "what was lost was measured on the node that was left"
    assert len(_cells_of("b", driver)) == len([name for name in before if name[:-5] in _cells_of("b", driver)]), "and nothing twice"


def _cells_of(node: str, driver: Driver) -> set[str]:
    """Ids of the stored cells that a node measured."""
    if not driver.stored():
        return set()
    run = driver.run
    launches = run.launches()
    return {cell.id for cell in run.cells() if cell.launch_id in launches and launches[cell.launch_id].node == node}


def test_a_killed_driver_resumes(driver: Driver) -> None:
    driver.scenario(SLOW, loads="{concurrency: [1, 2, 3], input_tokens: 8, output_tokens: 8, requests: 6}", rest="repeats: 4")
    process = driver.start("run", "s.yaml")
    driver.wait_for(lambda: driver.stored() >= 3, "cells")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    stored = {file: file.stat().st_mtime_ns for file in driver.folder.glob("results/*/cells/*.json")}
    done = driver("run", "s.yaml")
    assert done.returncode == 0, done.stderr
    assert f"{len(stored)} of 12 cells are stored" in done.stderr
    assert all(file.stat().st_mtime_ns == then for file, then in stored.items())
    assert {cell.status for cell in driver.run.cells()} == {"ok"}
    assert len(list(driver.run.cells())) == 12


def test_units_that_share_a_node_share_no_core(driver: Driver) -> None:
    driver.scenario(f"{SLOW[:-1]}, node: {{name: a}}}}", rest="placement: {exclusive: false, cores: 1}\nrepeats: 4")
    process, seen, most = driver.start("run", "s.yaml"), set(), 0
    while process.poll() is None:
        running = list(_engines(driver.cluster.folder / "a"))
        most = max(most, len(running))
        seen |= {(a, b) for i, a in enumerate(running) for b in running[:i]}
        time.sleep(0.05)
    assert process.returncode == 0, process.communicate()
    assert most == 2, "two at a time on two cores"
    assert all(not set(a) & set(b) for a, b in seen)
    assert {launch.machine["usable_cores"] for launch in driver.run.launches().values()} == {1}


def _home_of(engine: psutil.Process) -> str:
    """ENGINEBENCH_HOME of the unit that started an engine, through a guardian."""
    return str(engine.parents()[1].environ().get("ENGINEBENCH_HOME", ""))


def _engines(home: Path) -> list[tuple[int, ...]]:
    """The cores of every fake engine of a node."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if "fake_worker.py" in words and "guardian.py" not in words and str(home) in _home_of(process):
                found.append(tuple(process.cpu_affinity()))
        except (psutil.Error, IndexError):
            continue
    return found


@pytest.mark.parametrize("units", [12, pytest.param(200, marks=pytest.mark.long)])
def test_small_units_are_balanced_and_cost_little(driver: Driver, units: int) -> None:
    driver.scenario(
        FAKE, loads="{concurrency: 1, input_tokens: 8, output_tokens: 4, requests: 4, warmup_requests: 0}", rest=f"repeats: {units}"
    )
    began, before = time.monotonic(), os.getloadavg()[0]
    done = driver("run", "s.yaml", "--no-html", timeout_s=580)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    run = driver.run
    launches = list(run.launches().values())
    shares = Counter(launch.node for launch in launches)
    assert sum(shares.values()) == units
    assert max(shares.values()) - min(shares.values()) <= max(2, units // 10), shares
    started = {launch.node: [] for launch in launches}  # type: ignore[var-annotated]
    for launch in sorted(launches, key=lambda each: each.started_at):
        started[launch.node].append(datetime.fromisoformat(launch.started_at).timestamp())
    busy = sum((cell.wall_s or 0) for cell in run.cells()) + sum(
        (launch.startup.start_s or 0) + (launch.startup.stop_s or 0) + (launch.startup.first_generation_s or 0) for launch in launches
    )
    span = sum(times[-1] - times[0] for times in started.values())  # from the first start of a node to its last
    overhead = (span - busy * (units - len(started)) / units) / (units - len(started))
    print(f"{units} units in {took:.0f} s on 2 nodes {dict(shares)}: {overhead:.2f} s a unit beside its engine and load")
    cores = os.cpu_count() or 1
    if before < cores / 2:  # else other programs take most of it, which says nothing of a unit
        assert overhead < OVERHEAD_S * (2 if cores < 4 else 1), "two nodes on two cores wait for each other"


@pytest.mark.long
def test_llamacpp_against_transformers_on_both_nodes(driver: Driver) -> None:
    driver.scenario(
        "{engine: [llamacpp, transformers], model: tiny, precision: f32, options: {threads: 1}, node: [{name: a}, {name: b}]}",
        loads="{concurrency: [1, 2], input_tokens: 32, output_tokens: 16, requests: 6}", rest=f"{TINY}\nrepeats: 2\nparity: {{prompts: 2}}",
    )  # fmt: skip
    done = driver("run", "s.yaml", timeout_s=580)
    assert done.returncode == 0, done.stderr
    run = driver.run
    cells, launches = list(run.cells()), run.launches()
    assert len(cells) == 16
    assert {cell.status for cell in cells} == {"ok"}
    assert all(launches[cell.launch_id].node == cell.deployment.node["name"] for cell in cells)
    assert Counter(launch.node for launch in launches.values()) == {"a": 4, "b": 4}
    names = {row.name for row in analyse(run).rows}
    assert len(names) == 4, names
