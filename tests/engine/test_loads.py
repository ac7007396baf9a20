"""Every kind of load through `bench run`, from the scenario file to the record, against the fake engine."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from enginebench.analysis.rows import CellResult, result_of
from enginebench.domain import SteppedLoop
from enginebench.metrics.window import phase_span, steady_window
from enginebench.records.cell import CellRecord
from enginebench.records.run_folder import Run, open_run
from enginebench.records.samples import Samples

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

HEAD = """
name: loads
deployments: [{{engine: fake, model: any, precision: none, options: {options}, max_context: 4096}}]
loads: [{load}]
"""
QUICK = "{ttft_ms: 10, itl_ms: 1}"


def measured(folder: Path, load: str, options: str = QUICK, *arguments: str) -> tuple[CellRecord, Samples, CellResult]:
    """The one cell of a scenario with this load."""
    run_loads(folder, load, options, *arguments)
    (found,) = cells_of(folder)
    return found


def run_loads(folder: Path, load: str, options: str = QUICK, *arguments: str) -> None:
    """`bench run` of a scenario with these loads."""
    (folder / "s.yaml").write_text(HEAD.format(load=load, options=options))
    environment = {**os.environ, "ENGINEBENCH_HOME": str(folder / "home")}
    argv = bench_argv("run", "s.yaml", "--no-html", *arguments)
    done = subprocess.run(argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def cells_of(folder: Path) -> list[tuple[CellRecord, Samples, CellResult]]:
    """Every cell of the one run in a folder, in the order in which they were measured."""
    (path,) = (folder / "results").iterdir()
    run: Run = open_run(path)
    found = []
    for record in sorted(run.cells(), key=lambda record: record.started_at or ""):
        samples = run.samples(record.id)
        assert samples is not None
        found.append((record, samples, result_of(record, samples)))
    return found


@pytest.mark.clock
def test_a_rate_for_a_duration(tmp_path: Path) -> None:
    record, s, _ = measured(tmp_path, "{rate: 60, duration_s: 2, input_tokens: 16, output_tokens: 8}")
    assert s.ok.all()
    assert 60 < len(s) < 180, "Poisson arrivals: 120 are expected"
    assert (record.delivery.stopped, record.delivery.unsent) == (None, 0)
    assert float(s.due_ns.max() - s.due_ns.min()) / 1e9 < 2
    gaps = np.diff(np.sort(s.due_ns)) / 1e9
    assert 0.5 < gaps.std() / gaps.mean() < 1.5, "as exponential gaps vary, and not constant ones"
    wanted = record.client.health["wanted_rate"]
    assert isinstance(wanted, float)
    assert record.client.health["achieved_rate"] == pytest.approx(wanted, rel=0.1)


@pytest.mark.clock
def test_a_rate_in_steps(tmp_path: Path) -> None:
    record, s, result = measured(tmp_path, "{steps: '20@1, 100@1, 10@1', arrivals: constant, input_tokens: 16, output_tokens: 8}")
    assert s.ok.all()
    assert isinstance(record.load, SteppedLoop)
    assert record.delivery.window_ns is not None
    assert result.window is not None
    assert result.window.state == "changing by design"
    for phase in record.load.phases():
        span, window = phase_span(s, record.load, phase), steady_window(s, record.load, phase)
        assert span is not None
        assert ((span[0] <= s.due_ns) & (s.due_ns < span[1])).sum() == phase.level
        assert span[0] <= window.start_ns < window.end_ns <= span[1]
        assert abs(span[0] - record.delivery.window_ns[0] - phase.start_s * 1e9) < 50e6


@pytest.mark.clock
@pytest.mark.parametrize("warmup", ["", ", warmup_requests: 1", ", warmup_requests: 0"])
def test_a_closed_loop_for_a_duration_finds_its_own_number_of_requests(tmp_path: Path, warmup: str) -> None:
    record, s, _ = measured(tmp_path, f"{{concurrency: 4, duration_s: 1.5, input_tokens: 16, output_tokens: 20{warmup}}}")
    assert s.ok.all()
    assert record.delivery.window_ns is not None
    assert 1.3 < (record.delivery.window_ns[1] - record.delivery.window_ns[0]) / 1e9 < 2.5
    assert len(s) > 50, "1.5 s at 4 streams of 30 ms"


def test_a_trace_is_replayed_with_its_lengths(tmp_path: Path) -> None:
    rows = [(0, 20, 4), (50, 30, 5), (400, 40, 6)]
    lines = [json.dumps({"timestamp": t, "input_length": i, "output_length": o, "hash_ids": []}) for t, i, o in rows]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    _, s, _ = measured(tmp_path, "{trace: t.jsonl, time_scale: 0.5, warmup_requests: 1}")
    assert [int(ms) for ms in np.round((s.due_ns - s.due_ns[0]) / 1e6)] == [0, 25, 200]
    assert list(s.asked_output_tokens) == list(s.output_tokens) == [4, 5, 6]
    assert list(s.asked_input_tokens) == [20, 30, 40]


@pytest.mark.clock
def test_conversations_over_chat(tmp_path: Path) -> None:
    record, s, result = measured(
        tmp_path, "{concurrency: 2, turns: 3, requests: 12, input_tokens: 16, output_tokens: 6, api: chat, prefix_cache: allowed}"
    )
    assert s.ok.all()
    assert sorted(zip(s.conversation.tolist(), s.turn.tolist(), strict=True)) == [(c, t) for c in range(4) for t in range(3)]
    counted = s.input_tokens.reshape(4, 3)
    assert (np.diff(counted, axis=1) > 16).all(), "each turn holds what was said before"
    assert {r.check.id for r in result.reasons if r.severity == "invalid"} <= {"foreign_load"}, "the machine may be busy"
    assert record.load.turns == 3


@pytest.mark.clock
def test_lengths_that_are_drawn(tmp_path: Path) -> None:
    _, s, result = measured(tmp_path, '{concurrency: 4, requests: 40, input_tokens: "uniform(10,60)", output_tokens: "uniform(2,9)"}')
    assert s.ok.all()
    assert len(set(s.asked_input_tokens.tolist())) > 10
    assert set(s.output_tokens.tolist()) == set(s.asked_output_tokens.tolist()) <= set(range(2, 10))
    assert {r.check.id for r in result.reasons if r.severity == "invalid"} <= {"foreign_load"}, "the machine may be busy"


@pytest.mark.parametrize("protocol", ["ollama", "sglang", "tgi"])
def test_every_protocol(tmp_path: Path, protocol: str) -> None:
    _, s, result = measured(
        tmp_path, "{concurrency: 2, requests: 8, input_tokens: 16, output_tokens: 6}", f"{{ttft_ms: 10, itl_ms: 1, protocol: {protocol}}}"
    )
    assert s.ok.all()
    assert s.output_tokens.tolist() == [6] * 8
    assert result.tokens == "server usage"


@pytest.mark.clock
def test_reasoning_has_a_time_to_the_first_answer_of_its_own(tmp_path: Path) -> None:
    _, s, result = measured(
        tmp_path,
        "{concurrency: 1, requests: 8, input_tokens: 16, output_tokens: 12, api: chat}",
        "{ttft_ms: 10, itl_ms: 5, reasoning_tokens: 8}",
    )
    assert s.ok.all()
    ttft, ttfa = result.figures["ttft_p50"], result.figures["ttfa_p50"]
    assert ttft is not None
    assert ttfa is not None
    assert ttfa - ttft > 0.03, "eight tokens of reasoning at 5 ms come first"


def test_two_client_processes(tmp_path: Path) -> None:
    record, s, _ = measured(
        tmp_path, "{concurrency: 4, requests: 24, input_tokens: 16, output_tokens: 8}", QUICK, "--client-processes", "2"
    )
    assert s.ok.all()
    assert record.client.health["processes"] == 2


@pytest.mark.clock
def test_a_server_that_drowns_ends_its_cell_early(tmp_path: Path) -> None:
    record, s, result = measured(
        tmp_path,
        "{rate: 60, duration_s: 60, input_tokens: 16, output_tokens: 3, timeout_s: 30}",
        "{ttft_ms: 40, itl_ms: 5, slots: 1}",
    )
    assert record.delivery.saturated is not None
    assert record.wall_s is not None
    assert record.wall_s < 30
    assert result.verdict == "invalid"
    assert result.figures["ttft_p50"] is None
    assert any("queue grew" in str(reason) for reason in result.reasons)
    assert not s.ok.all()


def test_text_has_the_length_asked_for_whatever_came_first(tmp_path: Path) -> None:
    """An engine whose tokenizer is unknown; the first load is short, and a chat's template adds tokens that the other route has not."""
    run_loads(tmp_path, "{input_tokens: [10, 1000], api: [completions, chat], prompts: [random, text], output_tokens: 2, requests: 3}")
    found = cells_of(tmp_path)
    assert len(found) == 8
    for record, samples, _ in found:
        asked = record.load.input_tokens
        assert isinstance(asked, int)
        assert abs(samples.input_tokens.mean() - asked) <= max(2, 0.02 * asked), (record.load, samples.input_tokens)


@pytest.mark.clock
def test_a_cell_after_one_that_was_broken_off_does_not_wait_for_its_leftovers(tmp_path: Path) -> None:
    drowning = "{rate: 75, duration_s: 60, input_tokens: 16, output_tokens: 1, timeout_s: 30}"
    run_loads(tmp_path, f"{drowning}, {{requests: 20, input_tokens: 16, output_tokens: 1, warmup_requests: 0}}", "{ttft_ms: 20, slots: 1}")
    (first, _, _), (second, samples, _) = cells_of(tmp_path)
    assert (first.delivery.saturated is not None, second.delivery.saturated) == (True, None)
    assert float(np.max(samples.edge(last=False) - samples.sent_ns)) / 1e6 < 500, "the queue took seconds"


@pytest.mark.clock
@pytest.mark.parametrize("api", ["responses", "messages"])
@pytest.mark.parametrize(
    "options", ["ttft_ms: 50, itl_ms: 5", "ttft_ms: 50, itl_ms: 5, reasoning_tokens: 4", "ttft_ms: 50, itl_ms: 5, tool_call: true"]
)
def test_the_routes_of_agents(tmp_path: Path, api: str, options: str) -> None:
    """The events at the start of a stream are no output, and each delta is stamped when it comes."""
    load = f"{{concurrency: 2, requests: 8, input_tokens: 40, output_tokens: 12, api: {api}, warmup_requests: 2}}"
    _, s, result = measured(tmp_path, load, f"{{{options}}}")
    assert s.ok.all(), s.error
    assert s.output_tokens.tolist() == [12] * 8
    assert (s.events >= 12).all()
    first_ms = (s.edge(last=False) - s.sent_ns) / 1e6
    assert (first_ms > 45).all(), "what comes before the first token is none"
    assert result.figures["tpot_p50"] == pytest.approx(0.005, rel=0.3)
    assert set(s.finish_reason) == {"max_output_tokens" if api == "responses" else "tool_use" if "tool" in options else "max_tokens"}
    assert {r.check.id for r in result.reasons if r.severity == "invalid"} <= {"foreign_load"}, result.reasons


def test_what_comes_from_the_cache_is_part_of_the_prompt(tmp_path: Path) -> None:
    load = "{concurrency: 1, requests: 4, input_tokens: 40, output_tokens: 4, api: messages, prefix_cache: allowed}"
    _, s, _ = measured(tmp_path, load, "{ttft_ms: 5, itl_ms: 1, cached_tokens: 7}")
    assert s.cached_tokens.tolist() == [7] * 4
    assert (s.input_tokens > 30).all()


@pytest.mark.clock
def test_aborted_requests_are_counted_apart(tmp_path: Path) -> None:
    load = "{concurrency: 4, requests: 40, input_tokens: 16, output_tokens: 40, cancel_share: 0.5, cancel_s: 0.1}"
    record, s, result = measured(tmp_path, load, "{ttft_ms: 20, itl_ms: 5}")
    count = int(s.aborted.sum())
    assert 8 < count < 32
    assert (s.ok | s.aborted).all()
    took_ms = (s.end_ns - s.sent_ns)[s.aborted] / 1e6
    assert took_ms.min() >= 99
    assert np.median(took_ms) < 130
    assert (s.events[s.aborted] > 3).all(), "what came before is kept"
    assert record.status == "ok"
    assert result.figures["success_rate"] == 1
    assert result.figures["aborted_requests"] == pytest.approx(count / len(s), abs=0.3)
    assert "failed_requests" not in {reason.check.id for reason in result.reasons}


def test_requests_with_everything(tmp_path: Path) -> None:
    """A system message, tools, a schema of the answer and images, as the fake engine received them."""
    (tmp_path / "answer.json").write_text('{"type": "object", "properties": {"a": {"type": "string"}}}')
    load = (
        "{concurrency: 1, requests: 3, input_tokens: 200, output_tokens: 4, api: chat, prefix_cache: allowed, system_tokens: 50, "
        "tools: '3', tool_choice: none, response_format: answer.json, images: 2, image_size: 100x60}"
    )
    record, s, result = measured(tmp_path, load)
    assert s.ok.all()
    assert list(s.asked_input_tokens) == [200] * 3
    assert record.load.tools == "3"
    assert {r.check.id for r in result.reasons if r.severity == "invalid"} <= {"foreign_load"}, result.reasons


@pytest.mark.clock
def test_classes_are_reported_one_by_one_and_together(tmp_path: Path) -> None:
    """A prompt token takes 0.1 ms, so the classes differ by what their prompts take."""
    load = "{concurrency: 2, requests: 60, lengths: 'short: 50+10*2, long: 1050+4, agent: 550/400+20', prefix_cache: allowed}"
    _, s, result = measured(tmp_path, load, "{ttft_ms: 5, prefill_ms_per_token: 0.1, itl_ms: 1}")
    classes = result.classes
    assert list(classes) == ["agent", "long", "short"]
    assert sum(part["requests"] or 0 for part in classes.values()) == result.requests
    ttft = {name: part["ttft_p50"] or 0 for name, part in classes.items()}
    assert ttft["long"] - ttft["short"] == pytest.approx(0.1, rel=0.2)
    assert ttft["agent"] - ttft["short"] == pytest.approx(0.05, rel=0.3)
    assert {name: part["osl_p50"] for name, part in classes.items()} == {"agent": 20, "long": 4, "short": 10}
    together = result.figures["output_throughput"]
    assert sum(part["output_throughput"] or 0 for part in classes.values()) == pytest.approx(together)
    assert len(s) == 60
