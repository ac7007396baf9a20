"""Telemetry end to end without a GPU: the real NVML binding over a library that plays devices, then sampler, store, figures, verdicts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
from enginebench.analysis.analysis import analyse
from enginebench.analysis.rows import CellResult, result_of
from enginebench.records.run_folder import Run, open_run
from enginebench.report.blocks import Plots
from enginebench.report.section import Context
from enginebench.report.sections.engine_internals import SECTION
from enginebench.telemetry import loop, sampler

SOURCE = Path(__file__).parent / "nvml" / "standin.c"
SCENARIO = """
name: demo
deployments:
  - {engine: fake, model: any, precision: none, options: {ttft_ms: 5, itl_ms: 5}}
loads:
  - {concurrency: 2, input_tokens: 16, output_tokens: 8, requests: 0, duration_s: 4}
"""
QUIET = """\
0 0 total 85899345920
0 0 used 64424509440
0 0 util 75
0 0 sm 1980
0 0 celsius 61
0 0 limit 700000
0 0 default 700000
0 0 power 300000
0 0 counter 310000
0 0 reasons 4
0 0 pid engine
0 1 total 85899345920
0 1 power 90000
0 1 counter 90000
0 1 pid 1
"""
"""Device 0 is the engine's and at its power limit; its energy counter runs a little faster than its power reads. Device 1 is others'."""

Environment = dict[str, str]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the library that plays."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("the stand-in needs a C compiler on Linux")
    folder = tmp_path_factory.mktemp("nvml")
    subprocess.run([compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return folder


@pytest.fixture
def playing(library: Path, tmp_path: Path) -> Callable[[str], Environment]:
    """The environment in which NVML plays a script."""

    def play(script: str) -> Environment:
        (tmp_path / "nvml.txt").write_text(script)
        ours = {"LD_LIBRARY_PATH": str(library), "NVML_STANDIN": str(tmp_path / "nvml.txt"), "ENGINEBENCH_HOME": str(tmp_path / "home")}
        return {**os.environ, **ours}

    return play


def ran(folder: Path, env: Environment) -> Run:
    """What `bench run` has left of its one cell."""
    (folder / "s.yaml").write_text(SCENARIO)
    command = [sys.executable, "-m", "enginebench", "run", "s.yaml", "--no-html"]
    done = subprocess.run(command, cwd=folder, env=env, text=True, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr + done.stdout
    (path,) = (folder / "results").iterdir()
    return open_run(path)


def measured(run: Run) -> CellResult:
    """Its one cell, read back."""
    (record,) = run.cells()
    samples = run.samples(record.id)
    assert samples is not None
    return result_of(record, samples)


def test_a_cell_on_a_gpu_has_power_energy_and_memory(playing: Callable[[str], Environment], tmp_path: Path) -> None:
    run = ran(tmp_path, playing(QUIET))
    cell = measured(run)
    assert [(s.kind, s.name) for s in cell.record.telemetry] == [
        ("processes", "engine"), ("gpu", "GPU 0"), ("gpu", "GPU 1"), ("host", "this machine"),
    ]  # fmt: skip
    assert cell.hardware.devices == ("GPU 0",), "the other device has no process of the engine"
    watts, pace = cell.figures["mean_power"], cell.figures["output_throughput"]
    assert watts is not None
    assert pace is not None
    assert watts == pytest.approx(310, rel=0.01), "the energy counter, not the power readings"
    assert cell.figures["energy_per_token"] == pytest.approx(watts / pace)
    assert cell.figures["gpu_memory"] == 60 * 2**30
    assert cell.hardware.cores is not None
    assert 0.001 < cell.hardware.cores < psutil.cpu_count()
    assert cell.hardware.throttled == {"power cap": 1.0}
    assert not {reason.check.id for reason in cell.reasons} & {"gpu_throttled", "gpu_shared"}
    (plots,) = SECTION.blocks(Context(run, analyse(run)))
    assert isinstance(plots, Plots)
    drawn = [panel.title.rpartition(" · ")[2] for panel in plots.panels]
    assert drawn[-4:] == ["GPU utilisation", "GPU power", "GPU memory in use", "CPU cores in use by the engine"]
    gpus = analyse(run).run.machine["gpus"]
    assert isinstance(gpus, list)
    assert [(gpu["name"], gpu["driver"]) for gpu in gpus] == [("Stand-in GPU", "580.00-standin")] * 2
    assert gpus[0]["memory_bytes"] == 80 * 2**30
    facts = cell.record.telemetry[1].facts
    assert facts == {
        "vendor": "NVIDIA", "model": "Stand-in GPU", "memory_bytes": 80 * 2**30, "limit_watts": 700.0, "default_limit_watts": 700.0,
    }  # fmt: skip


def test_a_gpu_that_is_hot_lowered_and_shared_is_flagged(playing: Callable[[str], Environment], tmp_path: Path) -> None:
    script = QUIET.replace("reasons 4", "reasons 36").replace("limit 700000", "limit 400000") + "1.5 0 pid 1\n"
    cell = measured(ran(tmp_path, playing(script)))
    told = {reason.check.id: reason.detail for reason in cell.reasons}
    assert told["gpu_throttled"].startswith("a GPU lowered its clock: power cap at 100 % of the readings, heat at 100 % of the readings")
    assert told["gpu_throttled"].endswith("the power limit of GPU 0 is below its default")
    assert told["gpu_shared"] == "processes that are not the engine's used GPU 0"
    assert cell.verdict in ("suspect", "invalid"), "a busy machine may add reasons of its own"
    assert cell.figures["energy_per_token"] is None
    assert cell.withheld["energy_per_token"] == "part of the GPU's time and energy went into other work"


@pytest.mark.clock
def test_a_machine_without_a_gpu_has_no_gpu_series(tmp_path: Path) -> None:
    env = {**os.environ, "ENGINEBENCH_HOME": str(tmp_path / "home")}
    cell = measured(ran(tmp_path, env))
    if any(subject.kind == "gpu" for subject in cell.record.telemetry):
        pytest.skip("this machine has a GPU")
    assert [subject.kind for subject in cell.record.telemetry] == ["processes", "host"]
    assert cell.figures["mean_power"] is None
    assert cell.hardware.watts is None
    assert cell.hardware.steal is not None
    assert sum(subject.series.cpu_s for subject in cell.record.telemetry) < 0.05 * 4, "a twentieth of a core"


# -- the sampler alone ---------------------------------------------------------------------------------------------------


@contextmanager
def sampling(orders: dict[str, object], env: Environment | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """The sampler, once its first reading is there."""
    command = [sys.executable, "-P", "-m", "enginebench.telemetry.sampler"]
    whole = {"every_s": 0.05, "gpus": True, "processes": {}, "containers": {}, **orders}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(whole).encode() + b"\n\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_it_has_a_reading_before_and_one_after(playing: Callable[[str], Environment]) -> None:
    before = time.monotonic_ns()
    with sampling({"every_s": 1000}, playing(QUIET)) as process:
        ready = time.monotonic_ns()
        said = process.communicate(timeout=30)[0]
    for subject in json.loads(said):
        first, last = subject["series"]["at_ns"]
        assert before < first < ready < last, subject["name"]


def test_it_ends_with_whoever_started_it() -> None:
    with sampling({"every_s": 1000}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        process.stdin.close()
        assert process.wait(30) == 0


BURN = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(3_000_000))'])"
WORKER = f"{BURN}; import resource; print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime, flush=True); input()"


def test_processor_time_of_children_that_have_ended_is_kept() -> None:
    root = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORKER!r}])"]
    with subprocess.Popen(root, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guardian:
        assert guardian.stdout is not None
        with sampling({"gpus": False, "processes": {"engine": guardian.pid}}) as process:
            burned = float(guardian.stdout.readline())
            engine, _ = json.loads(process.communicate(timeout=30)[0])
        guardian.communicate(b"\n")
    cpu = [value for value in engine["series"]["values"]["cpu_s"] if value is not None]
    assert cpu == sorted(cpu), "a total never falls"
    assert cpu[-1] >= burned > 0.02


def test_readings_are_thinned_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler.Tracks, "most", 8)

    class Counting:
        kind, name = "host", "x"
        facts: ClassVar[dict[str, object]] = {}
        asked = 0

        def read(self) -> dict[str, float]:
            self.asked += 1
            if self.asked == 40:
                os.close(write)
            return {"load": self.asked}

    read, write = os.pipe()
    monkeypatch.setattr(sys, "stdin", os.fdopen(read))
    source = Counting()
    track = sampler.Track(source)
    tracks = sampler.Tracks([track])
    loop.take(tracks, 0.001)
    tracks.output()
    kept = track.subject()["series"]["values"]["load"]
    assert len(kept) <= 9
    assert kept[0] == 1
    assert kept[-1] == source.asked
    sys.stdin.close()
