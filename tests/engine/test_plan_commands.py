"""The commands that `bench plan -v` prints can be pasted into a shell."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from .bench import Bench

AWKWARD = "a b; $(touch no) 'c' \"d\" * ~ &"
ADAPTER = """
import sys
from collections.abc import Sequence
from pathlib import Path

import enginebench.adapter as eb

PRINT = "import json, os, sys; print(json.dumps([os.environ['AWKWARD'], sys.argv[1:]]))"


class Awkward(eb.Adapter):
    name = "awkward"
    title = "prints what it gets"
    precisions = frozenset({"none"})

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        return (eb.Install("builtin", "1", python=Path(sys.executable)),)

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        return eb.Launch((str(install.python), "-c", PRINT, deployment.model), "x", env={"AWKWARD": deployment.model})
"""


def command_of(bench: Bench, *arguments: str) -> str:
    done = bench("plan", "s.yaml", "-v", *arguments)
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  $ ")]
    return line.removeprefix("  $ ")


def test_a_shell_starts_the_fake_engine(bench: Bench) -> None:
    bench.write(f"engine: fake, model: {json.dumps(AWKWARD)}, precision: none, options: {{ttft_ms: 5, itl_ms: 1}}")
    command = command_of(bench)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert " --port 8000 " in command
    shell = ["sh", "-c", f"exec {command.replace(' --port 8000 ', f' --port {port} ')}"]
    with subprocess.Popen(shell, cwd=bench.folder, env={**os.environ, **bench.env}) as server:
        try:
            props = _answer(f"http://127.0.0.1:{port}/props")
        finally:
            server.kill()
    assert props["model"] == AWKWARD
    assert not (bench.folder / "no").exists()


def _answer(url: str) -> dict[str, object]:
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:  # noqa: S310  # of this machine
                return dict(json.load(reply))
        except OSError:
            time.sleep(0.1)
    return pytest.fail("the server did not answer")


def test_arguments_and_environment_reach_the_program_as_they_are(bench: Bench) -> None:
    (bench.folder / "awkward.py").write_text(ADAPTER)
    bench.write(f"engine: awkward, model: {json.dumps(AWKWARD)}, precision: none")
    done = subprocess.run(
        ["sh", "-c", command_of(bench, "--adapter", str(Path("awkward.py")))], cwd=bench.folder, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [AWKWARD, [AWKWARD]]
    assert not (bench.folder / "no").exists()
