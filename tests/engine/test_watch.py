"""The engine's counters while a load runs: a process of its own fetches them, over a real socket, and nobody else is disturbed."""

from __future__ import annotations

import http.server
import io
import json
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from enginebench.adapter import Adapter, Get
from enginebench.domain import Deployment
from enginebench.engines.registry import discover
from enginebench.loadgen import Target
from enginebench.records.launch import LaunchRecord
from enginebench.records.run_folder import open_run
from enginebench.runner.engine_counters import CounterWatch
from enginebench.runner.http_engine import HttpEngine
from enginebench.runner.prompts import PromptSource
from enginebench.runtime import http_get
from enginebench.telemetry import loop, scraper

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

FAKE = discover()["fake"]


class Counting(type(FAKE)):  # type: ignore[misc]  # an adapter is loaded from a file, so it has no name to import
    """Reads two paths, as llama.cpp's adapter does."""

    def counters(self, get: Get) -> Mapping[str, float]:
        told, gauges = get("/metrics").json(), get("/slots").json()
        if not isinstance(told, dict) or not isinstance(gauges, dict):
            return {}
        return {"output_tokens": float(str(told["tokens"])), "running": float(str(gauges["running"])), "unheard_of": 1.0}


class Page(http.server.BaseHTTPRequestHandler):
    """Counts every GET of /metrics as ten tokens."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str | None, float]]
    answer: Callable[[int], tuple[int, str]]

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"], time.monotonic()))
        self.server.heard.set()  # type: ignore[attr-defined]
        count = sum(path == self.path for path, _, _ in self.asked)
        status, body = type(self).answer(count) if self.path.endswith("/metrics") else (200, json.dumps({"running": count}))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def server(answer: Callable[[int], tuple[int, str]]) -> Iterator[http.server.ThreadingHTTPServer]:
    page = type("APage", (Page,), {"asked": [], "answer": staticmethod(answer)})
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), page)
    made.page, made.heard = page, threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def tokens(count: int) -> tuple[int, str]:
    return 200, json.dumps({"tokens": 10 * count})


def served(
    made: http.server.ThreadingHTTPServer, adapter: Adapter, prefix: str = "", headers: Mapping[str, str] | None = None
) -> HttpEngine:
    host, port = "127.0.0.1", made.server_address[1]
    get = http_get(host, port, prefix=prefix, headers=headers)
    launch = LaunchRecord("l", Deployment("fake", "m", "none", "m"), 0, "")
    return HttpEngine(adapter, launch, PromptSource(), None, get, "m", Target(host, port, headers=headers or {}), prefix)


def wait_for(made: Any, count: int) -> None:
    """Until so many GETs have come in."""
    while len(made.page.asked) < count:
        assert made.heard.wait(20), f"{len(made.page.asked)} of {count} requests came"
        made.heard.clear()


def watchers() -> list[psutil.Process]:
    alive = (child for child in psutil.Process().children() if child.status() != psutil.STATUS_ZOMBIE)
    return [child for child in alive if "enginebench.telemetry.scraper" in " ".join(child.cmdline())]


def test_counters_are_read_before_during_and_after_a_load() -> None:
    adapter = Counting()
    with server(tokens) as made:
        engine = served(made, adapter, "/v9", {"Authorization": "Bearer sesame"})
        began = time.monotonic_ns()
        with CounterWatch(engine, adapter, every_s=0.05) as watching:
            assert len(watchers()) == 1
            assert len(made.page.asked) >= 4, "the first reading is there before the load begins"  # type: ignore[attr-defined]
            wait_for(made, 12)
        ended = time.monotonic_ns()
        assert not watchers()
        series, totals = watching.series(), watching.totals()
        asked = made.page.asked  # type: ignore[attr-defined]
    assert {path for path, _, _ in asked} == {"/v9/metrics", "/v9/slots"}
    assert {key for _, key, _ in asked} == {"Bearer sesame"}
    readings = len(series.at_ns)
    assert readings >= 5
    assert list(series.at_ns) == sorted(series.at_ns)
    assert began < series.at_ns[0] <= series.at_ns[-1] < ended
    assert dict(series.values) == {
        "output_tokens": tuple(10.0 * (i + 2) for i in range(readings)),
        "running": tuple(float(i + 2) for i in range(readings)),
    }
    assert totals == {"output_tokens": 10.0 * (readings + 1)}, "a gauge has no total"
    assert 0 < series.cpu_s < 5


def test_a_reading_that_cannot_be_read_is_left_out() -> None:
    adapter = Counting()
    odd = {3: (200, "{"), 4: (503, "busy"), 5: (200, '{"no": "tokens"}')}
    with (
        server(lambda count: odd.get(count, tokens(count))) as made,
        CounterWatch(served(made, adapter), adapter, every_s=0.02) as watching,
    ):
        wait_for(made, 16)
        before_the_end = len(made.page.asked)  # type: ignore[attr-defined]
    assert before_the_end >= 16
    assert watching.series().values["output_tokens"][:2] == (20.0, 60.0)


def test_an_engine_without_counters_costs_no_process() -> None:
    adapter = Counting()
    with server(lambda _count: (404, "no metrics")) as made, CounterWatch(served(made, adapter), adapter) as watching:
        assert not watchers()
    assert watching.series().at_ns == ()
    assert watching.totals() == {}


def test_what_ends_the_load_ends_the_watch() -> None:
    adapter = Counting()

    def interrupted(engine: HttpEngine) -> None:
        with CounterWatch(engine, adapter):
            assert watchers()
            raise KeyboardInterrupt

    with server(tokens) as made, pytest.raises(KeyboardInterrupt):
        interrupted(served(made, adapter))
    assert not watchers()


def test_it_ends_with_its_parent() -> None:
    with server(tokens) as made:
        orders = {
            "host": "127.0.0.1", "port": made.server_address[1], "tls": False, "prefix": "", "headers": {}, "paths": ["/metrics"],
            "every_s": 60,
        }  # fmt: skip
        process = subprocess.Popen(
            [sys.executable, *scraper.COMMAND], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(orders).encode() + b"\n\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        process.stdout.close()  # as when the harness is gone: nobody reads, and its ends of the pipes close
        process.stdin.close()
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()


def test_a_long_load_keeps_a_bounded_number_of_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter(range(100))
    monkeypatch.setattr(select, "select", lambda *_: ([] if next(left) < 30 else [0], [], []))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=io.BytesIO()))
    replies = scraper.Replies({"paths": []})
    monkeypatch.setattr(scraper.Replies, "most", 8)
    monkeypatch.setattr(replies, "read", lambda: replies.readings.append((next(left), [])))
    loop.take(replies, 0)
    kept = [at for at, _ in replies.readings]
    assert 4 <= len(kept) <= 8
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert kept[-1] >= 24, "thinned out, not cut off"


SCENARIO = """
name: watched
deployments: [{engine: fake, model: any, precision: none, options: {ttft_ms: 10, itl_ms: 2, cached_tokens: 0}}]
loads: [{concurrency: 2, duration_s: 4, input_tokens: 16, output_tokens: 32}]
"""


def test_a_run_has_the_series_and_shows_it(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SCENARIO)
    done = subprocess.run(bench_argv("run", "s.yaml"), cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    (record,) = open_run(folder).cells()
    assert record.delivery.window_ns is not None
    inside = record.counters.series.within(record.delivery.window_ns)
    assert 3 <= len(inside.at_ns) <= 6
    made = inside.known("output_tokens")
    assert made == sorted(made)
    assert made[-1] > made[0]
    assert (record.prompts.form, record.traits.gpus, record.traits.random_weights, record.traits.forced_routing) == ("ids", 1, False, False)
    text = next((folder / "cells").glob("*.json")).read_text()
    assert '"at_ns": [' in text
    assert text.count("\n") < 250, "a list of numbers is one line"
    shown = json.loads(subprocess.run(
        bench_argv("report", str(folder), "--json"), cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout)  # fmt: skip
    (cell,) = shown["rows"][0]["cells"]
    assert cell["prefix_cache"] == {"asked": "cold", "proved_by": "counters", "cached_tokens": 0}
    page = (folder / "report.html").read_text()
    assert 'id="fairness"' in page
    assert 'id="engine-internals"' in page
