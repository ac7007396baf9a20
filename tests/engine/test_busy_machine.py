"""Other work on the machine is announced before the first cell, and its cells say so: live, in the table and when they are read again."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest
from enginebench.analysis.analysis import analyse
from enginebench.loadgen import Target
from enginebench.records.run_folder import open_run

from .bench import Bench

LOAD = """
name: busy
deployments:
  - {{engine: fake, model: any, precision: none, options: {{ttft_ms: 10, itl_ms: 5}}}}
  - {{engine: openai, model: any, runtime: attach, url: "http://{host}:{port}"}}
loads: [{{concurrency: 2, duration_s: 1, input_tokens: 16, output_tokens: 16}}]
"""


@pytest.fixture
def other_work() -> Iterator[None]:
    """A program that computes on every core."""
    with contextlib.ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"]))
            stack.callback(process.kill)
        yield


@pytest.mark.alone
def test_cells_beside_other_work_are_invalid_and_it_is_said_at_once(
    bench: Bench, start_fake: Callable[..., Target], other_work: None
) -> None:
    target = start_fake("--ttft-ms", "10", "--itl-ms", "5")
    (bench.folder / "s.yaml").write_text(LOAD.format(host=target.host, port=target.port))
    began = time.monotonic()
    process = bench.start("run", "s.yaml", "--no-html", "--wait-quiet", "1s")  # not a fork, which sees no other work
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert time.monotonic() - began > 1 + 2 * 1
    waited, warned, *_, first, second = (line for line in err.splitlines() if "machine is busy" in line or line.startswith("["))
    assert re.match(r"this machine is busy \(load [\d.]+ on \d+ cores, other work uses \d+ % of them\): waiting up to 1 s", waited)
    assert "cells are judged by it (`foreign_load`)" in warned
    for line in (first, second):
        assert re.search(r"\binvalid: other work used \d+ % of the CPUs \(limit 30 %; \d+ % were busy in all\)", line)
    assert "the machine was not the engine's alone" in " ".join(out.split())
    assert "Nothing can be ranked" in out
    for row in analyse(open_run(bench.run_folder())).rows:
        assert row.verdict == "invalid"
        (found,) = [reason for reason in row.cells[0].reasons if reason.check.id == "foreign_load"]
        assert found.severity == "invalid"
        share = row.cells[0].hardware.foreign
        assert share is not None
        assert 0.3 < share <= 1
