"""`bench run --on slurm` on a real Slurm: munged, slurmctld and two slurmd. See `slurm_cluster`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..engine.bench import Bench  # noqa: TID252  # tests/ is no package
from .slurm_cluster import MOST_JOBS, NODES, SlurmCluster, missing, until

pytestmark = pytest.mark.cluster
SCENARIO = """
name: demo
deployments:
{deployments}
loads:
  - {{concurrency: [1, 2], input_tokens: 16, output_tokens: 8, requests: 4, timeout_s: 60}}
repeats: {repeats}
"""
FAST = "label: fast, options: {itl_ms: 2}"
SLOW = "label: slow, options: {itl_ms: 3}"
LONG = "label: long, options: {itl_ms: 300}"
"""A cell of 4 requests one after another takes 10 s, one of 2 at a time 5 s."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    if problem := missing():
        pytest.fail(problem) if os.environ.get("CI") else pytest.skip(problem)
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


class SlurmBench(Bench):
    """`bench` on the cluster."""

    def __init__(self, folder: Path, cluster: SlurmCluster) -> None:
        super().__init__(folder)
        self.cluster = cluster
        self.env |= {**cluster.env, "ENGINEBENCH_LEASES": str(cluster.leases)}

    def scenario(self, *deployments: str, repeats: int = 1) -> str:
        lines = "\n".join(f"  - {{engine: fake, model: any, precision: none, {each}}}" for each in deployments)
        (self.folder / "s.yaml").write_text(SCENARIO.format(deployments=lines, repeats=repeats))
        return "s.yaml"

    def arguments(self, *more: str) -> list[str]:
        return ["run", "s.yaml", "--on", "slurm", "--place", "poll_s=0.3", *more]

    def launches(self) -> list[dict[str, object]]:
        import json

        return [json.loads(file.read_text()) for file in sorted((self.run_folder() / "launches").glob("*.json"))]

    def cells_stored(self) -> list[Path]:
        return list(self.folder.glob("results/*/cells/*.json"))

    def running(self) -> str:
        """Wait until a job runs, and return its id: '12_0'."""
        lines = until(
            lambda: [line for line in self.cluster.jobs() if " RUNNING " in line], "no job runs", explain=lambda: str(self.cluster.jobs())
        )
        return lines[0].split()[0]

    def measuring(self) -> None:
        """Wait until an engine has been started for a cell."""
        until(lambda: list(self.folder.glob("slurm-units/*/runs/*/*/logs/*.log")), "no engine runs")


@pytest.fixture
def bench(tmp_path: Path, cluster: SlurmCluster) -> Iterator[SlurmBench]:
    yield SlurmBench(tmp_path, cluster)
    cluster.mend()


def test_units_of_one_array_run_on_both_nodes(bench: SlurmBench) -> None:
    bench.scenario(FAST, SLOW, repeats=2)
    run = bench.start(*bench.arguments())
    at_once = lambda: {line.split()[-1] for line in bench.cluster.jobs() if " RUNNING " in line} == set(NODES)  # noqa: E731
    until(at_once, "no two units run at once", 60, explain=lambda: str(bench.cluster.jobs()))
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert re.search(r"submitted job \d+: 4 of 4 units", errors)
    cells, launches = bench.cells(), bench.launches()
    assert [cell["status"] for cell in cells] == ["ok"] * 8
    assert len(launches) == 4
    assert {launch["node"] for launch in launches} == set(NODES)
    assert all(cell["shared_machine"] is None for cell in cells), "two units never share a node"
    assert not list((bench.folder / "slurm-units").iterdir()), "the folder of an array goes when all of it is stored"


def test_slurm_accepts_the_scripts_of_a_dry_run(bench: SlurmBench) -> None:
    bench.scenario(FAST, SLOW)
    options = "--nice=10 --comment=bench"
    done = bench(*bench.arguments("--dry-run", "--partition", "both", "--place", "time=5", "--place", f"options={options}"))
    assert done.returncode == 0, done.stderr
    assert "#SBATCH --array=0-1" in done.stdout
    assert "#SBATCH --partition=both" in done.stdout
    assert not (bench.folder / "slurm-units").exists()
    tested = subprocess.run(
        ["sbatch", "--test-only"], input=done.stdout.partition("\n")[2], env={**os.environ, **bench.env}, text=True, capture_output=True
    )
    assert tested.returncode == 0, tested.stderr


def test_an_unknown_partition_is_a_mistake_of_the_command(bench: SlurmBench) -> None:
    bench.scenario(FAST)
    done = bench(*bench.arguments("--partition", "bothe"))
    assert done.returncode == 2
    assert "partition" in done.stderr
    assert "both, minute" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(bench.folder.glob("results/*"))


def test_labels_of_a_scenario_choose_the_node(bench: SlurmBench) -> None:
    bench.scenario(f"{FAST}, node: {{feature: second}}", f"{SLOW}, node: {{name: node1}}")
    assert bench(*bench.arguments()).returncode == 0
    on = {launch["deployment"]["label"]: launch["node"] for launch in bench.launches()}
    assert on == {"fast": "node2", "slow": "node1"}


def test_a_node_that_no_node_is_like_is_named(bench: SlurmBench) -> None:
    bench.scenario(f"{FAST}, node: {{feature: third}}")
    done = bench(*bench.arguments())
    assert done.returncode == 2
    assert "feature" in done.stderr
    bench.scenario(f"{FAST}, node: {{colour: blue}}")
    done = bench(*bench.arguments())
    assert done.returncode == 2
    assert "colour" in done.stderr


def test_more_devices_than_a_node_has_are_refused_although_another_is_drained(bench: SlurmBench) -> None:
    bench.cluster("scontrol", "update", "nodename=node2", "state=drain", "reason=cooling")
    text = "engine: vllm, model: m, precision: bf16, tp: [2, 4], node: {gpu: h100}"
    models = "models: {m: {checkpoints: {bf16: org/m}}}"
    loads = "loads: [{concurrency: 1, requests: 4, input_tokens: 16, output_tokens: 8}]"
    (bench.folder / "s.yaml").write_text(f"name: demo\n{models}\ndeployments: [{{{text}}}]\n{loads}\n")
    done = bench("plan", "s.yaml", "--on", "slurm", "--hardware", "any")
    assert done.returncode == 0, done.stderr
    assert "1 of 2 units can be placed" in done.stdout
    assert re.search(r"tp=2.* node1$", done.stdout, re.MULTILINE)
    assert "tp=4" in done.stdout
    assert "Requested node configuration is not available" in done.stdout


def test_the_fleet_is_shown(bench: SlurmBench) -> None:
    done = bench("doctor", "--on", "slurm")
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in (*NODES, "h100"))


@pytest.mark.long
def test_a_cancelled_job_costs_its_unit_and_retry_measures_the_rest(bench: SlurmBench) -> None:
    bench.scenario(f"{LONG}, node: {{name: node1}}", FAST)
    run = bench.start(*bench.arguments())
    bench.measuring()
    long = until(lambda: next((line.split()[0] for line in bench.cluster.jobs() if line.endswith("node1")), ""), "nothing on node1")
    bench.cluster("scancel", long)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 3, errors
    cells = bench.cells()
    assert [cell["status"] for cell in cells].count("ok") == 2
    reasons = {cell["reason"] for cell in cells if cell["status"] == "failed"}
    assert reasons == {f"on node1: Slurm job {long} on node1 was cancelled"}
    again = bench(*bench.arguments("--retry-failed"))
    assert again.returncode == 0, again.stderr
    assert [cell["status"] for cell in bench.cells()] == ["ok"] * 4


@pytest.mark.long
def test_a_lost_driver_loses_nothing_and_the_same_command_follows_the_jobs(bench: SlurmBench) -> None:
    bench.scenario(f"{LONG}, node: {{name: node1}}", f"{FAST}, node: {{name: node2}}")
    run = bench.start(*bench.arguments())
    bench.measuring()
    run.kill()
    run.communicate()
    assert bench.cluster.jobs(), "the jobs go on"
    again = bench(*bench.arguments())
    assert again.returncode == 0, again.stderr
    assert "of an earlier session" in again.stderr
    assert len(bench.launches()) == 2, "no server was started twice"
    assert [cell["status"] for cell in bench.cells()] == ["ok"] * 4


@pytest.mark.long
def test_results_of_jobs_that_ended_without_a_driver_are_collected(bench: SlurmBench) -> None:
    bench.scenario(FAST, SLOW)
    run = bench.start(*bench.arguments())
    bench.running()
    run.kill()
    run.communicate()
    until(lambda: not bench.cluster.jobs(), "the jobs do not end")
    again = bench(*bench.arguments())
    assert again.returncode == 0, again.stderr
    assert "submitted" not in again.stderr
    assert len(bench.launches()) == 2


@pytest.mark.long
def test_a_lost_node_costs_the_cell_in_flight(bench: SlurmBench) -> None:
    bench.scenario(LONG)
    run = bench.start(*bench.arguments())
    until(lambda: list(bench.folder.glob("slurm-units/*/runs/*/*/cells/*.json")), "no cell ends", 90)
    (line,) = bench.cluster.jobs()
    node = line.split()[-1]
    slurmd = bench.cluster.daemons.pop(node)
    slurmd.kill()
    slurmd.wait()
    end_units(bench)
    bench.cluster("scontrol", "update", f"nodename={node}", "state=down", "reason=lost")
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert "lost its node; the cells that are left (1) are submitted again" in errors
    assert [cell["status"] for cell in bench.cells()] == ["ok"] * 2
    assert {launch["node"] for launch in bench.launches()} == set(NODES)


def end_units(bench: SlurmBench) -> None:
    """What a crash of their node does to the units of this folder and their engines."""
    for process, _ in bench.logging():
        process.kill()


@pytest.mark.long
def test_a_drained_node_is_named_while_its_unit_waits(bench: SlurmBench) -> None:
    bench.scenario(f"{FAST}, node: {{name: node1}}")
    bench.cluster("scontrol", "update", "nodename=node1", "state=drain", "reason=cooling")
    run = bench.start(*bench.arguments())
    until(lambda: [line for line in bench.cluster.jobs() if " PENDING" in line], "nothing waits")
    time.sleep(2)
    bench.cluster("scontrol", "update", "nodename=node1", "state=resume")
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert re.search(r"Slurm job \d+_0 \(.*\) waits: \S+", errors)


@pytest.mark.long
def test_a_full_queue_is_waited_for(bench: SlurmBench) -> None:
    bench.scenario(FAST, SLOW)
    known = len(bench.cluster("squeue", "--noheader", "--array", "--states=all").splitlines())
    for first in range(known, MOST_JOBS - 1, 10):
        count = min(10, MOST_JOBS - 1 - first)
        bench.cluster("sbatch", "--hold", f"--array=1-{count}", "--wrap=true", "--output=/dev/null")
    run = bench.start(*bench.arguments())
    held = [line.split()[0] for line in bench.cluster.jobs()]
    time.sleep(15)
    assert not bench.cells_stored(), "nothing fits"
    bench.cluster("scancel", *held)
    _, errors = run.communicate(timeout=200)
    assert run.returncode == 0, errors
    assert [cell["status"] for cell in bench.cells()] == ["ok"] * 4


@pytest.mark.long
def test_a_time_limit_that_is_reached(bench: SlurmBench) -> None:
    """Its first cell takes 10 s, the second would take 168 s: the first is kept, and the next job gets no further."""
    bench.scenario("label: endless, options: {itl_ms: 300}")
    text = (bench.folder / "s.yaml").read_text().replace("concurrency: [1, 2]", "concurrency: [1]")
    more = "  - {concurrency: 1, input_tokens: 16, output_tokens: 140, requests: 4, timeout_s: 600}\nrepeats"
    (bench.folder / "s.yaml").write_text(text.replace("repeats", more))
    run = bench.start(*bench.arguments("--partition", "minute", "--place", "time=1"))
    _, errors = run.communicate(timeout=290)
    assert run.returncode == 3, errors
    assert sorted(str(cell["status"]) for cell in bench.cells()) == ["failed", "ok"]
    assert "reached its time limit of 1:00; the cells that are left (1) are submitted again" in errors
    (reason,) = (cell["reason"] for cell in bench.cells() if cell["status"] == "failed")
    assert "reached its time limit of 1:00 before a cell was measured; allow more with --place time=" in reason


@pytest.mark.long
def test_ctrl_c_cancels_the_jobs_and_keeps_what_is_measured(bench: SlurmBench) -> None:
    bench.scenario(LONG)
    run = bench.start(*bench.arguments())
    until(lambda: list(bench.folder.glob("slurm-units/*/runs/*/*/cells/*.json")), "no cell ends", 90)
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert not bench.cluster.jobs()
    assert not bench.engines()
    assert [cell["status"] for cell in bench.cells()] == ["ok"]
    again = bench(*bench.arguments())
    assert again.returncode == 0, again.stderr


@pytest.mark.long
def test_the_controller_may_be_away_for_a_while(bench: SlurmBench) -> None:
    bench.scenario(LONG)
    run = bench.start(*bench.arguments())
    bench.measuring()
    controller = bench.cluster.daemons.pop("slurmctld")
    controller.terminate()
    controller.wait()
    time.sleep(25)
    bench.cluster.start_controller()
    _, errors = run.communicate(timeout=200)
    assert run.returncode == 0, errors
    assert "the jobs go on" in errors


@pytest.mark.long
def test_llamacpp_on_both_nodes(bench: SlurmBench) -> None:
    """A real engine; the weights are made once, in the folder that both nodes see."""
    bench.env.pop("ENGINEBENCH_HOME")  # where `bench engines install llamacpp` has put it
    (bench.folder / "s.yaml").write_text(
        "name: demo\n"
        "models: {tiny: {random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}}}\n"
        "deployments: [{engine: llamacpp, model: tiny, precision: f32, node: [{name: node1}, {name: node2}], options: {threads: 1}}]\n"
        "loads: [{concurrency: [1, 2], input_tokens: 32, output_tokens: 16, requests: 8}]\n"
    )
    done = bench(*bench.arguments())
    assert done.returncode == 0, done.stderr
    assert {launch["node"] for launch in bench.launches()} == set(NODES)
    assert [cell["status"] for cell in bench.cells()] == ["ok"] * 4
