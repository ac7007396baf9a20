"""A client process that is killed costs its cell; the engine and the other cells go on."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import psutil
import pytest
from enginebench.dialects.openai import OpenAICompletions
from enginebench.loadgen import LoadSpec, Target, WireRequest, workers
from enginebench.loadgen.sharing import ClientLost

from .bench import Bench


def test_a_killed_client_process_costs_its_cell_and_not_the_launch(bench: Bench) -> None:
    running = bench.start("run", bench.scenario("options: {ttft_ms: 100, tick_ms: 40}"), "--client-processes", "2", "--no-html")
    deadline, killed = time.monotonic() + 60, 0
    while not killed:
        assert time.monotonic() < deadline
        for child in psutil.Process(running.pid).children():
            with contextlib.suppress(psutil.Error):
                if "enginebench.loadgen.workers" in child.cmdline() and bench.engines():
                    killed = child.pid
        time.sleep(0.02)
    time.sleep(0.3)
    os.kill(killed, signal.SIGKILL)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 3, errors
    cells = sorted(bench.cells(), key=lambda cell: str(cell["status"]))
    assert [cell["status"] for cell in cells] == ["failed", "ok"]
    assert cells[0]["reason"] == "a client process was killed by signal 9 during the cell"
    assert cells[0]["launch_id"] == cells[1]["launch_id"], "one start of the engine served both"


def test_a_client_process_that_is_killed_just_before_the_start_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has said that it is ready, so that the first thing that fails is to tell it when to start."""
    ready = workers.ClientProcess.expect_ready

    def killed(worker: workers.ClientProcess) -> None:
        ready(worker)
        worker._process.kill()
        worker._process.wait()

    monkeypatch.setattr(workers.ClientProcess, "expect_ready", killed)
    requests = tuple(WireRequest(i, "/v1/completions", b"{}", 3, 4) for i in range(4))
    spec = LoadSpec(Target("127.0.0.1", 9), requests, 2, OpenAICompletions(), 5.0)
    with pytest.raises(ClientLost, match="killed by signal 9"):
        workers.run_parts(spec, None, 2)
