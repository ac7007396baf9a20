"""`bench` as a user runs it, in a folder and with a home of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

ENGINE = "fake_worker.py"
SCENARIO = """
name: demo
deployments:
{deployments}
loads:
  - {{concurrency: [1, 4], input_tokens: 16, output_tokens: 8, requests: 8, timeout_s: 3}}
repeats: {repeats}
"""


class Bench:
    """Runs `bench` in a folder of its own with a home of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {**os.environ, "ENGINEBENCH_HOME": str(folder / "home"), "ENGINEBENCH_LEASES": str(folder / "leases")}

    def scenario(self, *deployments: str, repeats: int = 1) -> str:
        """A scenario file with fake engines, of which this is said beside."""
        return self.write(*(f"engine: fake, model: any, precision: none, {deployment}" for deployment in deployments), repeats=repeats)

    def write(self, *deployments: str, repeats: int = 1) -> str:
        """A scenario file with these deployments."""
        lines = "\n".join(f"  - {{{deployment}}}" for deployment in deployments)
        (self.folder / "s.yaml").write_text(SCENARIO.format(deployments=lines, repeats=repeats))
        return "s.yaml"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "enginebench", *arguments], cwd=self.folder, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(bench_argv(*arguments), cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=90)

    def run_folder(self) -> Path:
        (found,) = (self.folder / "results").iterdir()
        return found

    def cells(self) -> list[dict[str, object]]:
        return [json.loads(file.read_text()) for file in sorted((self.run_folder() / "cells").glob("*.json"))]

    def logging(self) -> Iterator[tuple[psutil.Process, Path]]:
        """Every process whose errors go into a file below this test's folder, with that file; one that ends meanwhile is none."""
        for process in psutil.process_iter():
            try:
                log = Path(f"/proc/{process.pid}/fd/2").readlink()
            except OSError:
                continue
            if log.is_relative_to(self.folder):
                yield process, log

    def engines(self) -> list[psutil.Process]:
        """Fake engines of this test."""
        found = []
        for process, _ in self.logging():
            with contextlib.suppress(psutil.Error):
                if any(ENGINE in part for part in process.cmdline()):
                    found.append(process)
        return found

    def wait_for_cells(self, count: int) -> None:
        deadline = time.monotonic() + 60
        while len(list(self.folder.glob("results/*/cells/*.json"))) < count:
            assert time.monotonic() < deadline, "no cell was stored"
            time.sleep(0.02)
        assert self.engines(), "an engine runs now, so that finding none later means something"

    def wait_until_quiet(self) -> None:
        deadline = time.monotonic() + 10
        while self.engines():
            assert time.monotonic() < deadline, f"left behind: {self.engines()}"
            time.sleep(0.05)
