"""The line protocol with a batch worker, held against workers that are late, out of step or dead."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from enginebench.adapter import Launch, Site
from enginebench.domain import ClosedLoop, Deployment
from enginebench.engines.registry import discover
from enginebench.records.launch import LaunchRecord
from enginebench.runner.offline import OfflineEngine
from enginebench.runner.prompts import PromptSource
from enginebench.runtime import EngineProcess, LaunchFailed, unique_tag
from enginebench.workload import Prompt

WORKER = """
import json, sys, time
def say(**event): print(json.dumps(event), flush=True)
mode = sys.argv[1]
if mode == "dies at once": sys.exit(3)
say(event="ready", engine_version="1", load_s=0, resolved={})
for line in sys.stdin:
    asked = json.loads(line)
    if mode == "late": time.sleep(1.5)
    if mode == "dies": sys.exit(4)
    if mode == "complains": say(event="error", message="ValueError: no"); continue
    if mode == "babbles": print("hello", flush=True); continue
    requests = [{"input_tokens": len(p), "output_tokens": asked["output_tokens"]} for p in asked["prompts"]]
    if mode == "forgets one": requests.pop()
    now = time.monotonic_ns()
    say(event="result", id=asked["id"] + (mode == "out of step"), start_ns=now - 10, end_ns=now, requests=requests)
"""
DEPLOYMENT = Deployment("llamacpp", "m", "f16", "m", runtime="in-process")
PROMPTS = [Prompt((1, 2, 3), None, 3, 7), Prompt((4, 5, 6), None, 3, 7)]
LOAD = ClosedLoop(concurrency=2, input_tokens=3, output_tokens=7, requests=2, timeout_s=5)


@contextmanager
def worker(folder: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[OfflineEngine]:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(folder / "home"))
    (folder / "worker.py").write_text(WORKER)
    launch = Launch((sys.executable, str(folder / "worker.py"), mode), "m")
    site = Site("127.0.0.1", 0, folder, "m")
    with EngineProcess.start(launch, site, log=folder / "log", tag=unique_tag("offline"), piped=True) as process:
        yield OfflineEngine.connect(discover()["llamacpp"], LaunchRecord("l", DEPLOYMENT, 0, ""), process, PromptSource(), 10)


def test_a_batch_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker(tmp_path, "good", monkeypatch) as engine:
        for _ in range(2):
            samples = engine.run(PROMPTS, LOAD).samples
            assert [(s.outcome, s.input_tokens, s.output_tokens) for s in samples] == [("ok", 3, 7)] * 2
        assert engine.ending() is None


@pytest.mark.parametrize(
    ("mode", "outcome", "reason"),
    [
        ("complains", "in_stream_error", "ValueError: no"),
        ("babbles", "in_stream_error", "unreadable line"),
        ("out of step", "in_stream_error", "does not match"),
        ("forgets one", "in_stream_error", "does not match"),
        ("dies", "cut", "exited with code 4"),
    ],
)
def test_what_goes_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, outcome: str, reason: str) -> None:
    with worker(tmp_path, mode, monkeypatch) as engine:
        samples = engine.run(PROMPTS, LOAD).samples
        assert {s.outcome for s in samples} == {outcome}
        assert reason in str(samples[0].error)


def test_a_late_answer_is_never_taken_for_the_next_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with worker(tmp_path, "late", monkeypatch) as engine:
        samples = engine.run(PROMPTS, ClosedLoop(concurrency=2, output_tokens=7, requests=2, timeout_s=0.5)).samples
        assert {s.outcome for s in samples} == {"timeout"}
        assert engine.ending() == "did not answer within 0.5 s"


def test_a_worker_that_dies_while_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LaunchFailed, match="exited with code 3"), worker(tmp_path, "dies at once", monkeypatch):
        pass
