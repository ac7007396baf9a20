"""The line that a finished cell leaves: what was measured, its figures, and what is wrong with them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from enginebench.cli.progress import ProgressLines, _outcome, fitted
from enginebench.domain import KINDS, Cell, ClosedLoop, Container, Deployment, Load, OpenLoop, Parallelism, TraceReplay, load_fields
from enginebench.domain.load import _stored_names
from enginebench.domain.load_field import load_field
from enginebench.records.cell import CellRecord
from enginebench.records.run_folder import Run
from enginebench.runner.events import CellEnded, LaunchEnded, LaunchStarted, LaunchStep, RunOpened

NUMBER = r"[\d.,]+"


def test_a_finished_cell_says_what_is_wrong_with_it(synthetic_run: Run) -> None:
    lines = {}
    for record in synthetic_run.cells():
        if record.deployment.model.startswith("scout") and record.repeat == 0:
            cell = Cell(record.deployment, record.load, record.repeat)
            ended = CellEnded(cell, record, 1, synthetic_run.samples(record.id))
            lines[record.deployment.engine, record.load.concurrency, record.load.input_tokens] = _outcome(ended)
    assert lines["llamacpp", 4, 128].endswith(" ms  suspect: the client used 97 % of a core (limit 80 %)")
    assert lines["attach", 4, 128].endswith(" ms  invalid: asked for 32 output tokens, the server counted 20 on average (limit 10 %)")
    figures = "  ".join(f"{name} {NUMBER} {unit}" for name, unit in (("output", "tok/s"), ("TTFT p50", "ms"), ("TPOT p50", "ms")))
    assert re.search(rf"  {figures}  suspect", f"  {lines['llamacpp', 4, 128]}")
    assert lines["vllm", 16, 1024] == "failed: the engine ended with exit code 1 before it was ready"
    assert lines["attach", 16, 1024].startswith("skipped: weights 215.5 GB")
    marked = Counter(word for line in lines.values() for word in ("suspect", "invalid") if word in line)
    assert marked == {"suspect": 1, "invalid": 1}, "the other cells are valid, and their lines are as before"


SERVER = Deployment("fake", "any", "none", "any")


def lines_of(loads: list[Load], capsys: pytest.CaptureFixture[str], *, planned: int | None = None) -> list[str]:
    """What a run of these loads leaves on stderr, one line per cell, without count and outcome. planned: loads in the plan, default all."""
    progress = ProgressLines()
    progress(RunOpened(Path(), len(loads), 0, tuple(loads[:planned])))
    for number, load in enumerate(loads):
        cell = Cell(SERVER, load)
        progress(CellEnded(cell, CellRecord.of(cell, "skipped", f"no reason {'abc'[number]}"), len(loads)))
    progress.finish()
    return [re.sub(r"^\[\d+/\d+\] fake (.*?)  skipped: .*", r"\1", line) for line in capsys.readouterr().err.splitlines()]


CLOSED, OPEN = ClosedLoop(concurrency=2), OpenLoop(rate=3.0)


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([CLOSED], ["2 streams 128 + 64 tokens"]),
        (
            [CLOSED, replace(CLOSED, prompts="text"), replace(CLOSED, api="chat")],
            [
                "2 streams 128 + 64 tokens, prompts random, api completions",
                "2 streams 128 + 64 tokens, prompts text, api completions",
                "2 streams 128 + 64 tokens, prompts random, api chat",
            ],
        ),
        (
            [replace(CLOSED, turns=2, think_s=0.5), replace(CLOSED, turns=2)],
            ["2 streams 128 + 64 tokens, think 0.5 s", "2 streams 128 + 64 tokens"],
        ),
        (
            [replace(OPEN, arrivals="gamma", burstiness=0.25), replace(OPEN, arrivals="constant")],
            ["3 req/s 128 + 64 tokens, arrivals gamma, burstiness 0.25", "3 req/s 128 + 64 tokens, arrivals constant"],
        ),
        (
            [replace(CLOSED, seed=1_234_567), replace(CLOSED, seed=1_234_568)],
            ["2 streams 128 + 64 tokens, seed 1234567", "2 streams 128 + 64 tokens, seed 1234568"],
        ),
        # requests and warm-up follow from the level: they are shown only where nothing else differs
        (
            [CLOSED, replace(CLOSED, concurrency=8, requests=32, warmup_requests=8)],
            ["2 streams 128 + 64 tokens", "8 streams 128 + 64 tokens"],
        ),
        (
            [CLOSED, replace(CLOSED, requests=40), replace(CLOSED, concurrency=8)],
            ["2 streams 128 + 64 tokens, requests 16", "2 streams 128 + 64 tokens, requests 40", "8 streams 128 + 64 tokens, requests 16"],
        ),
        (
            [replace(CLOSED, timeout_s=5.0), replace(CLOSED, timeout_s=9.0)],
            ["2 streams 128 + 64 tokens, timeout 5 s", "2 streams 128 + 64 tokens, timeout 9 s"],
        ),
        (
            [TraceReplay(trace="monday/calls.csv"), TraceReplay(trace="sunday/calls.csv")],
            [f"calls.csv x1 the trace's lengths, trace {day}/calls.csv" for day in ("monday", "sunday")],
        ),
    ],
)
def test_a_line_has_what_distinguishes_the_load(loads: list[Load], expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert lines_of(loads, capsys) == expected


def test_a_probe_that_a_search_adds_has_its_level(capsys: pytest.CaptureFixture[str]) -> None:
    loads = [OPEN, replace(OPEN, prompts="text"), replace(OPEN, rate=6.0, prompts="text", requests=360)]
    assert lines_of(loads, capsys, planned=2)[2] == "6 req/s 128 + 64 tokens, prompts text"


@pytest.fixture
def pulsed() -> Iterator[Callable[..., Load]]:
    """A kind of load that the harness does not have, with a field of its own."""

    @dataclass(frozen=True, kw_only=True)
    class Pulsed(OpenLoop):
        kind = "pulsed loop"
        key = "pulse_s"
        pulse_s: float = load_field("Seconds between two pulses.", default=1.0, unit="s")

    caches = (load_fields, _stored_names)
    for cache in caches:
        cache.cache_clear()
    yield Pulsed
    KINDS.remove(Pulsed)
    for cache in caches:
        cache.cache_clear()


def test_a_field_of_a_kind_of_load_from_elsewhere_is_shown_too(pulsed: Callable[..., Load], capsys: pytest.CaptureFixture[str]) -> None:
    loads = [pulsed(rate=3.0, pulse_s=seconds) for seconds in (0.5, 20.0)]
    assert lines_of(loads, capsys) == ["3 req/s 128 + 64 tokens, pulse 0.5 s", "3 req/s 128 + 64 tokens, pulse 20 s"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([{"parallelism": Parallelism(tp=tp), "max_concurrency": tp} for tp in (1, 2)], ["fake tp=1", "fake tp=2"]),
        ([{"max_context": most} for most in (512, 4096)], ["fake max_context=512", "fake max_context=4096"]),
        ([{"label": "mine", "runtime": each} for each in ("process", "docker")], ["mine", "mine docker"]),
        ([{"options": {"a": 1}, "max_context": 512}, {"options": {"a": 2}}], ["fake a=1", "fake a=2"]),
        (
            [{"container": Container(memory=size)} for size in ("8GiB", "9GiB")],
            ["fake memory=8GiB", "fake memory=9GiB"],
        ),
    ],
)
def test_a_line_has_what_distinguishes_the_deployment(
    changes: list[dict[str, object]], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = ProgressLines()
    deployments = tuple(replace(SERVER, **its) for its in changes)
    progress(RunOpened(Path(), 2, 0, (CLOSED,), deployments))
    for reason, deployment in zip("ab", deployments, strict=True):
        progress(LaunchStep(deployment, "starting"))
        cell = Cell(deployment, CLOSED)
        progress(CellEnded(cell, CellRecord.of(cell, "skipped", reason), 2))
    progress.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines[::2] == [f"{name}: starting ..." for name in expected]
    assert [line.split("] ")[1].split(" 2 streams ")[0] for line in lines[1::2]] == expected


# -- cells that were not measured ---------------------------------------------------------------------------------------------------


def ended(deployment: Deployment, load: Load, repeat: int, reason: str, planned: int = 12) -> CellEnded:
    cell = Cell(deployment, load, repeat)
    return CellEnded(cell, CellRecord.of(cell, "failed", reason), planned)


def test_cells_that_fail_for_one_reason_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Two deployments whose server does not start, in three repeats; ports and times differ each time."""
    progress = ProgressLines()
    deployments, loads = (SERVER, replace(SERVER, engine="vllm")), (CLOSED, replace(CLOSED, concurrency=8))
    progress(RunOpened(Path(), 12, 0, loads, deployments))
    for repeat in range(3):
        for i, deployment in enumerate(deployments):
            progress(LaunchStarted(deployment, repeat))
            for load in loads:
                progress(
                    ended(deployment, load, repeat, f"port {8000 + 10 * i + repeat} is taken" if i else f"no such file after {repeat} s")
                )
            progress(LaunchEnded(deployment, "x"))
    progress.finish()
    assert capsys.readouterr().err.splitlines() == [
        "[1-2/12] fake: 2 cells failed: no such file after 0 s",
        "[3-4/12] vllm: 2 cells failed: port 8010 is taken",
        "4 more cells failed: no such file after ... s",
        "4 more cells failed: port ... is taken",
    ]


def test_of_several_deployments_in_a_row_the_number_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressLines()
    progress(RunOpened(Path(), 312, 0))
    for i in range(312):
        progress(ended(replace(SERVER, label=f"d{i % 26}"), CLOSED, i, "no GPU", 312))
    progress.finish()
    assert capsys.readouterr().err.splitlines() == ["[1-312/312] 26 deployments: 312 cells failed: no GPU"]


def test_a_single_one_keeps_its_load(capsys: pytest.CaptureFixture[str]) -> None:
    progress = ProgressLines()
    progress(RunOpened(Path(), 12, 3, (CLOSED,), (SERVER,)))
    progress(ended(SERVER, CLOSED, 1, "it died"))
    progress(ended(SERVER, CLOSED, 2, "it burnt"))
    progress.finish()
    assert capsys.readouterr().err.splitlines() == [
        "[4/12] fake 2 streams 128 + 64 tokens #2  failed: it died",
        "[5/12] fake 2 streams 128 + 64 tokens #3  failed: it burnt",
    ]


VALUES = ["12/1024 requests", "TTFT 1,312 ms", "TPOT 38.9 ms", "~1,742 tok/s", "~38 min left"]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (140, "[14/360] vllm fp8 tp=4 ep=4 256 streams 1792 + 256 tokens  " + "  ".join(VALUES)),
        (110, "[14/360] vllm fp8 tp=4 ep=4 256...  " + "  ".join(VALUES)),
        (80, "[14/360] vllm fp8 tp=4 ep=4 256...  12/1024 requests  ~1,742 tok/s  ~38 min left"),
        (60, "[14/360] vllm fp8 tp=4 ep=4 2...  ~1,742 tok/s  ~38 min left"),
        (40, "[14/360] vllm fp8 tp=4...  ~38 min left"),
        (12, "~38 min left"),
    ],
)
def test_live_values_fit_the_width(width: int, line: str) -> None:
    found = fitted("[14/360] vllm fp8 tp=4 ep=4 256 streams 1792 + 256 tokens", VALUES, width)
    assert len(found) <= width
    assert found == line
