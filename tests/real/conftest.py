"""Real engines, on small models made from a seed. An engine that is not installed skips with the command that installs it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.records.run_folder import Run, open_run

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

Measured = tuple[Run, Analysis]
Measure = Callable[[str], Measured]


@pytest.fixture(scope="session")
def need() -> Callable[[str], None]:
    """Skip without the engine - but fail in CI, where a missing engine is a broken CI and not a user's choice."""

    def check(engine: str) -> None:
        if not installs_of(discover()[engine]):
            message = f"{engine} is not installed: bench engines install {engine}"
            pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)

    return check


@pytest.fixture(scope="session")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """Runs scenario text with `bench run` in a folder of its own and reads the run back."""

    def run(text: str) -> Measured:
        base = tmp_path_factory.mktemp("run")
        (base / "s.yaml").write_text(text)
        done = subprocess.run(bench_argv("run", "s.yaml", "--no-html"), cwd=base, text=True, capture_output=True, timeout=580)
        assert done.returncode == 0, done.stderr + done.stdout
        (folder,) = (base / "results").iterdir()
        stored = open_run(folder)
        return stored, analyse(stored)

    return run
