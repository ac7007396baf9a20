"""Starts the fake engine, as a user's machine would: its own process, a free port, ended by its own handle."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from enginebench.adapter import WORKERS
from enginebench.loadgen import Target
from enginebench.loadgen.transport import factory

from .bench import Bench

StartFake = Callable[..., Target]


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_listening(process: subprocess.Popen[str], port: int) -> None:
    """Returns once something accepts; fails after 10 s or when the process has ended."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    pytest.fail(f"the fake engine does not listen (exit code {process.poll()})")


@pytest.fixture(params=["kernel", "loop"])
def stamps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with either transport: the receiver in C, and the event loop's own, which machines without a C compiler have."""
    if request.param == "loop":
        monkeypatch.setattr(factory, "library", lambda: None)
    else:
        request.getfixturevalue("built_receiver")
    return str(request.param)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """`bench` in a folder of this test's own."""
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def start_fake() -> Iterator[StartFake]:
    """start_fake("--ttft-ms", "5") -> the Target of a fake engine with these flags; equal flags share one engine."""
    running: dict[tuple[str, ...], tuple[subprocess.Popen[str], Target]] = {}

    def start(*flags: str) -> Target:
        if flags not in running:
            port = free_port()
            argv = [sys.executable, str(WORKERS / "fake_worker.py"), "--port", str(port), *flags]
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
            running[flags] = process, Target("127.0.0.1", port)
            wait_until_listening(process, port)
        return running[flags][1]

    yield start
    for process, _ in running.values():
        process.terminate()
        process.wait(10)
