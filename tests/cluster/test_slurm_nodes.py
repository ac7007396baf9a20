"""Engines over several nodes of a real Slurm: one job with a task on each further node."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ..engine.bench import Bench  # noqa: TID252  # tests/ is no package
from .slurm_cluster import SlurmCluster, missing, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
SCENARIO = """
name: demo
deployments: [DEPLOYMENTS]
loads: [{concurrency: [1, 2], input_tokens: 16, output_tokens: 8, requests: 4, timeout_s: 60, warmup_requests: 0}]
"""
RANKS = "{engine: fake, model: any, precision: none, tp: 2, nodes: 2, options: {itl_ms: 2}}"
SLOW = "{engine: fake, model: any, precision: none, tp: 2, nodes: 2, options: {itl_ms: 300}}"
PAIR = "{engine: fake, model: any, precision: none, nodes: 2, options: {itl_ms: 2, disaggregated: true}}"
THREE = "{engine: fake, model: any, precision: none, tp: 3, nodes: 3}"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    if problem := missing():
        pytest.fail(problem) if os.environ.get("CI") else pytest.skip(problem)
    with SlurmCluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture
def bench(tmp_path: Path, cluster: SlurmCluster) -> Iterator[Bench]:
    cluster.mend()
    found = Bench(tmp_path)
    found.env |= {**cluster.env, "ENGINEBENCH_LEASES": str(cluster.leases)}
    yield found
    cluster.mend()


def arguments(bench: Bench, deployments: str) -> list[str]:
    (bench.folder / "s.yaml").write_text(SCENARIO.replace("DEPLOYMENTS", deployments))
    return ["run", "s.yaml", "--on", "slurm", "--place", "poll_s=0.3"]


def engine(bench: Bench, rank: int) -> psutil.Process | None:
    """The fake engine of this rank in a unit of this test: below its guardian, and that below the process of a unit or a rank."""
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if "guardian.py" in " ".join(words) or not words[1:] or not words[1].endswith("fake_worker.py"):
                continue
            if words[-4:-2] == ["--node-rank", str(rank)] and str(bench.folder) in process.parents()[1].cwd():
                return process
        except (psutil.Error, IndexError):
            continue
    return None


def test_an_engine_has_a_rank_on_each_node_and_so_have_prefill_and_decode(bench: Bench) -> None:
    done = bench(*arguments(bench, f"{RANKS}, {PAIR}"))
    assert done.returncode == 0, done.stderr
    launches = [json.loads(file.read_text()) for file in sorted((bench.run_folder() / "launches").glob("*.json"))]
    assert [{each["node"], *(node["name"] for node in each["startup"]["nodes"])} for each in launches] == [{"node1", "node2"}] * 2
    cells = [json.loads(file.read_text()) for file in (bench.run_folder() / "cells").glob("*.json")]
    assert [cell["status"] for cell in cells] == ["ok"] * 4
    logs = {file.name.split(".", 1)[1] for file in (bench.run_folder() / "logs").iterdir()}
    assert logs == {"log", "rank-1.log", "prefill.log", "decode.log"}


def test_not_enough_nodes_is_one_sentence(bench: Bench) -> None:
    done = bench(*arguments(bench, THREE))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no node of slurm fits any deployment: "), done.stderr
    assert "Traceback" not in done.stderr
    assert "#SBATCH --nodes=3" in bench(*arguments(bench, THREE), "--dry-run").stdout


def test_a_killed_rank_fails_the_cell_with_its_name(bench: Bench) -> None:
    process = bench.start(*arguments(bench, SLOW))
    until(lambda: list(bench.folder.glob("slurm-units/*/runs/*/*/launches/*.json")), "no engine serves", patience_s=120)
    rank = until(lambda: engine(bench, 1), "rank 1 is not there", patience_s=120)
    rank.kill()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 3, errors
    reasons = [json.loads(file.read_text())["reason"] or "" for file in (bench.run_folder() / "cells").glob("*.json")]
    assert any("lost its member rank-1: killed by SIGKILL (out of memory?) on node2" in reason for reason in reasons), reasons


def test_a_killed_head_leaves_no_rank_behind(bench: Bench) -> None:
    process = bench.start(*arguments(bench, SLOW))
    until(lambda: list(bench.folder.glob("slurm-units/*/runs/*/*/launches/*.json")), "no engine serves", patience_s=120)
    rank = until(lambda: engine(bench, 1), "rank 1 is not there", patience_s=120)
    head = until(lambda: engine(bench, 0), "rank 0 is not there", patience_s=120)
    unit = next(each for each in head.parents() if "enginebench.runner.placement.unit" in each.cmdline())
    unit.kill()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 3, errors
    until(lambda: not rank.is_running(), "rank 1 outlives the unit", patience_s=60)
