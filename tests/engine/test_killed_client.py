"""A client process that is killed costs its cell; the engine and the other cells go on."""

from __future__ import annotations

import contextlib
import os
import signal
import time

import psutil

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
