"""Engines on a GPU, for contributors who have one: `make gpu-test`. Without a device every test here is skipped, with the reason."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.machine.accelerators import Gpu, gpus
from enginebench.records.run_folder import Run, open_run

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

Measured = tuple[Run, Analysis]


@pytest.fixture(scope="session")
def gpu() -> Gpu:
    found = gpus()
    if not found:
        pytest.skip("no GPU is seen on this machine (NVML, rocm-smi and system_profiler have none)")
    return found[0]


@pytest.fixture(scope="session")
def measure(gpu: Gpu, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Measured]:
    """Runs the scenario of an engine that is installed, and reads the run back; skips with the command that installs the engine."""

    def run(engine: str, text: str) -> Measured:
        if not installs_of(discover()[engine]):
            pytest.skip(f"{engine} is not installed: bench engines install {engine}, or bench engines use {engine} PYTHON")
        base = tmp_path_factory.mktemp(engine)
        (base / "s.yaml").write_text(text)
        done = subprocess.run(bench_argv("run", "s.yaml", "--no-html"), cwd=base, text=True, capture_output=True, timeout=880)
        assert done.returncode == 0, done.stderr + done.stdout
        (folder,) = (base / "results").iterdir()
        stored = open_run(folder)
        return stored, analyse(stored)

    return run
