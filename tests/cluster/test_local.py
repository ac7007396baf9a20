"""`bench run --on local`: what any placement does, with real processes on this machine: the cells of a plain run, resumed after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import enginebench
import pytest
from enginebench.analysis.analysis import analyse
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.records.run_folder import open_run
from enginebench.runner.placement.unit_plan import units_of

from ..engine.bench import Bench  # noqa: TID252  # tests/ is no package

pytestmark = pytest.mark.cluster


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """`bench` whose units have their folders in this test's own folder, so that its engines are found."""
    found = Bench(tmp_path)
    (tmp_path / "tmp").mkdir()
    found.env |= {"TMPDIR": str(tmp_path / "tmp"), "XDG_STATE_HOME": str(tmp_path / "state")}
    return found


def test_a_placed_run_has_the_cells_of_a_plain_one_and_names_the_node(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 5, tick_ms: 2}", "options: {ttft_ms: 5, tick_ms: 2, exit_at_start: true}")
    store = bench.folder / "store"
    placed = bench("run", scenario, "--on", "local", "--results", f"file://{store}")
    assert placed.returncode == 3, placed.stderr
    assert "repeat 1: on this machine" in placed.stderr
    plain = bench("run", scenario, "--results", "plain")
    assert plain.returncode == 3, plain.stderr
    one, other = (open_run(next((bench.folder / name).iterdir())) for name in ("store", "plain"))
    assert one.record.cells == other.record.cells
    assert [cell.status for cell in one.cells()] == [cell.status for cell in other.cells()] == ["ok", "ok", "failed", "failed"]
    assert one.damage() == {}
    assert one.requests() == other.requests() == 16
    launches = one.launches().values()
    assert {launch.node for launch in launches} == {"this machine"}
    assert all(launch.machine["usable_cores"] for launch in launches)
    assert all(one.log(launch.id).is_file() for launch in launches)
    assert one.record.machine["placement"] == "local"
    assert one.record.machine["cpu"] == other.record.machine["cpu"]
    assert next(iter(other.launches().values())).node == ""


def test_quality_is_measured_once_for_each_deployment(bench: Bench) -> None:
    """By the first unit of each, on the text that came with it; the judgement is that of a plain run."""
    write_hf_folder(RandomMoE(layers=1, hidden=32, heads=2, kv_heads=1, head_dim=32, experts=2, top_k=1), "f16", bench.folder / "weights")
    (bench.folder / "text.txt").write_text("In the beginning there was a benchmark, and nobody could repeat it. " * 20)
    (bench.folder / "s.yaml").write_text(
        "name: judged\nmodels: {m: {checkpoint: weights}}\ndeployments:\n"
        "  - {engine: fake, model: m, precision: none, label: exact, options: {itl_ms: 2}}\n"
        "  - {engine: fake, model: m, precision: none, label: cheap, options: {itl_ms: 1, loss: 0.05}}\n"
        "loads: [{concurrency: 2, input_tokens: 16, output_tokens: 8, requests: 4}]\nrepeats: 2\n"
        "quality: {perplexity: {text: text.txt, windows: 2, window: 32, max_increase: 2%}, reference: exact}\n"
    )
    done = bench("run", "s.yaml", "--on", "local", "--no-html")
    assert done.returncode == 0, done.stderr
    stored = open_run(bench.run_folder())
    measured = [launch for launch in stored.launches().values() if launch.quality is not None]
    assert sorted((launch.deployment.label, launch.repeat) for launch in measured) == [("cheap", 0), ("exact", 0)]
    assert all(launch.quality.perplexity is not None and not launch.quality.missing for launch in measured if launch.quality)
    assert {its.deployment: its.verdict for its in analyse(stored).quality} == {"exact": "reference", "cheap": "breaks"}


def test_a_killed_driver_loses_the_cell_in_flight_and_the_same_command_resumes(bench: Bench) -> None:
    scenario = bench.scenario("options: {ttft_ms: 60, tick_ms: 20}", repeats=3)
    first = bench.start("run", scenario, "--on", "local")
    bench.wait_for_cells(3)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    bench.wait_until_quiet()
    stored = {file.name: file.stat().st_mtime_ns for file in (bench.run_folder() / "cells").glob("*.json")}
    assert 3 <= len(stored) < 6
    again = bench("run", scenario, "--on", "local")
    assert again.returncode == 0, again.stderr
    assert f"resuming results/{bench.run_folder().name}: {len(stored)} of 6 cells are stored" in again.stderr
    assert all((bench.run_folder() / "cells" / name).stat().st_mtime_ns == then for name, then in stored.items())
    assert len(bench.cells()) == 6
    assert bench("run", scenario).stderr.count("measured on another machine") == 0, "finished: a plain run begins anew"


def test_the_command_of_a_unit_ends_with_its_stdin_and_resumes(bench: Bench, tmp_path: Path) -> None:
    bench.scenario("options: {ttft_ms: 60, tick_ms: 20}")
    (unit,) = units_of(enginebench.plan(bench.folder / "s.yaml"))
    unit.write(tmp_path / "unit.json")
    command = [sys.executable, "-m", "enginebench.runner.placement.unit", "unit.json", "--into", "into", "--node", "n"]
    with subprocess.Popen([*command, "--while-stdin"], cwd=tmp_path, env=bench.env, stdin=subprocess.PIPE) as process:
        while not list(tmp_path.glob("into/*/cells/*.json")):
            assert process.poll() is None
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 130
    bench.wait_until_quiet()
    assert not (tmp_path / "into" / "ended.json").exists()
    done = subprocess.run(command, cwd=tmp_path, env=bench.env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "into" / "ended.json").read_text()) == {"problem": "", "skipped": False}
    (folder,) = tmp_path.glob("into/*/run.json")
    assert open_run(folder.parent).finished
