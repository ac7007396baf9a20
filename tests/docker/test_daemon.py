"""A Docker daemon of this test's own, so that it can be killed, and given a stand-in for NVIDIA's hook. Needs root and dockerd."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from enginebench.domain.container import Container
from enginebench.runtime import free_ports
from enginebench.runtime.container.client import connect
from enginebench.runtime.container.leftovers import find

from .conftest import FAKE, IMAGE, Bench, boxed, import_nothing, mounts, need, until
from .test_containers import said

HOOK = "#!/bin/sh\nexit 0\n"
ELSEWHERE = "127.0.0.2"
"""An address that leads here and is not taken for this machine's own."""


class Daemon:
    """dockerd in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, f"unix://{folder}/d.sock"
        self.remote = f"tcp://{ELSEWHERE}:{free_ports(ELSEWHERE, 1)[0]}"
        self.process: subprocess.Popen[bytes] | None = None
        hook = folder / "bin" / "nvidia-container-runtime-hook"
        hook.parent.mkdir()
        hook.write_text(HOOK)
        hook.chmod(0o755)

    def start(self) -> None:
        """Start it, and wait until it answers at DOCKER_HOST."""
        for stale in ("pid", "exec/containerd/containerd.pid"):  # kill -9 leaves them, and then the next one does not start
            (self.folder / stale).unlink(missing_ok=True)
        # Without iptables it leaves the rules of the machine's own daemon alone; ports are then passed on by a process.
        command = [
            "dockerd",
            f"--host={self.address}",
            f"--host={self.remote}",
            "--tls=false",
            "--iptables=false",
            f"--pidfile={self.folder}/pid",
        ]
        command += [f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec"]
        env = {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        until(self.answers, (self.folder / "log").read_text())

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with socket.socket(socket.AF_UNIX) as probe:  # the SDK leaves its own socket open when nobody answers
            return probe.connect_ex(f"{self.folder}/d.sock") == 0

    def stop(self, number: signal.Signals) -> None:
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(60)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon that may be killed; DOCKER_HOST leads to it."""
    need(None if shutil.which("dockerd") else "dockerd is not installed")
    need(None if os.getuid() == 0 else "dockerd needs root")
    with tempfile.TemporaryDirectory(prefix="eb-", ignore_cleanup_errors=True) as folder:  # short: a socket's path has 108 characters
        daemon = Daemon(Path(folder))
        monkeypatch.setenv("DOCKER_HOST", daemon.address)
        daemon.start()
        with contextlib.closing(connect()) as client:
            import_nothing(client)
        yield daemon
        daemon.stop(signal.SIGTERM)


@pytest.fixture
def bench(own: Daemon, tmp_path: Path) -> Bench:
    return Bench(tmp_path, {**os.environ, "ENGINEBENCH_HOME": str(tmp_path / "home"), "DOCKER_HOST": own.address})


def test_a_daemon_that_is_killed_fails_the_cell_and_clean_removes_the_rest(own: Daemon, bench: Bench) -> None:
    bench.scenario(
        FAKE + "options: {ttft_ms: 20, itl_ms: 5}, " + boxed(), load="concurrency: 2, requests: 0, duration_s: 30, timeout_s: 10"
    )
    with bench.start("run", "s.yaml", "--no-html") as process:
        until(lambda: list(bench.folder.glob("results/*/launches/*.json")), "nothing was started")
        own.stop(signal.SIGKILL)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 3, err
    (cell,) = bench.records("cells")
    assert cell["status"] == "failed"
    assert "lost with its Docker daemon" in str(cell["reason"])
    log = (bench.run_folder() / "logs" / f"{cell['launch_id']}.log").read_text()
    assert "could not remove" in log
    own.start()
    said = bench("clean").stderr  # unless the guardian, which had a minute, was quicker
    assert all(line.startswith(("removed ", "nothing was left behind")) for line in said.splitlines()), said
    with contextlib.closing(connect()) as client:
        assert not find(client)


@pytest.mark.parametrize(
    ("gpus", "seen"),
    [(2, "0,1"), ("all", "all"), (["GPU-aaaa", "GPU-bbbb"], "GPU-aaaa,GPU-bbbb")],
)  # fmt: skip
def test_a_gpu_request_reaches_the_vendors_hook(own: Daemon, nothing_here: Container, tmp_path: Path, gpus: Any, seen: str) -> None:
    asked = replace(nothing_here, gpus=tuple(gpus) if isinstance(gpus, list) else gpus)
    with contextlib.closing(connect()) as client:
        told = json.loads(said(client, asked, tmp_path, "import json, os; print(json.dumps(dict(os.environ)))"))
    assert told["NVIDIA_VISIBLE_DEVICES"] == seen


def test_a_daemon_on_another_machine_needs_an_address_that_leads_there(own: Daemon, tmp_path: Path) -> None:
    env = {**os.environ, "ENGINEBENCH_HOME": str(tmp_path / "home"), "DOCKER_HOST": own.remote}
    for name, settings in (("without", boxed()), ("with", boxed(address=ELSEWHERE))):
        (tmp_path / name).mkdir()
        bench = Bench(tmp_path / name, env)
        done = bench("run", bench.scenario(FAKE + settings), "--no-html")
        (cell,) = bench.records("cells")
        if name == "without":
            assert (
                f"the Docker daemon is on {ELSEWHERE}, so ports on its loopback address are unreachable: set container.address"
                in cell["reason"]
            )
        else:
            assert (done.returncode, cell["status"], cell["identity"]) == (0, "ok", "proven"), done.stderr


@pytest.fixture
def nothing_here(own: Daemon) -> Container:
    return Container(image=IMAGE, mounts=mounts(), shm="64MiB")
