"""What a run is said to mean: no claim without a test, no agreement without equal prompts, no traceback for a lost file."""

from __future__ import annotations

import time
from array import array
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from enginebench.analysis.analysis import LOAD_COLUMNS, Row, analyse
from enginebench.analysis.conclude import conclude
from enginebench.analysis.conclusion import Conclusion
from enginebench.analysis.labels import deployment_names
from enginebench.analysis.parity import parities
from enginebench.analysis.ranking import contenders
from enginebench.domain import JSON, Cell, ClosedLoop, Deployment, Load, OpenLoop, Parallelism, Sample, TraceReplay
from enginebench.errors import UserError
from enginebench.metrics.registry import metric_of
from enginebench.metrics.slo import Slo
from enginebench.metrics.statistics import estimate
from enginebench.records.cell import CellRecord
from enginebench.records.launch import LaunchRecord
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.report import render_table
from enginebench.report.html import render_html

MS = 1_000_000


def row(name: str, *throughputs: float, verdict: str = "valid") -> Row:
    return Row(
        Deployment(name, "m", "none", "m"), ClosedLoop(concurrency=4), {}, (), "ok", {"output_throughput": estimate(throughputs)},
        verdict, (), name,
    )  # fmt: skip


def concluded(rows: list[Row]) -> Conclusion:
    return conclude(rows, RunRecord("demo", "2026-01-01T00:00:00+00:00", {}, "p", (), {}, "1"), {})


# -- the sentence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row("a", 100)], "a reaches 100 tok/s at 4 streams of 128 + 64 tokens."),
        (
            [row("a", 100), row("b", 50)],
            "a is probably ahead at 4 streams of 128 + 64 tokens: 2x b. Not sure: one restart each is too few to be sure (4 would do).",
        ),
        ([row("b", 50, 51, 52, 53), row("a", 100, 101, 102, 103)], "a leads at 4 streams of 128 + 64 tokens: 97 % ahead of b."),
        (
            [row("a", 100, 101, 102), row("b", 50, 51, 52)],
            "a is probably ahead at 4 streams of 128 + 64 tokens: 98 % ahead of b. Not sure: 3 restarts each are too few to be sure (4",
        ),
        (
            [row("a", 100, 104, 108, 112), row("b", 99, 103, 107, 111)],
            "a and b cannot be told apart at 4 streams of 128 + 64 tokens. Not sure: restarts overlap.",
        ),
        (
            [row("a", 101, 101.2, 101.3, 101.5), row("b", 100, 100.2, 100.3, 100.5)],
            "a and b are equal at 4 streams of 128 + 64 tokens (within 3 %).",
        ),
        ([row("a", 100, 101), row("b", 50, 51), row("c", 20)], "a is probably ahead at 4 streams"),
    ],
)
def test_a_claim_is_as_strong_as_its_test(rows: list[Row], said: str) -> None:
    assert concluded(rows).sentence.startswith(said)


def test_the_leader_is_compared_with_everybody_not_with_the_runner_up() -> None:
    rows = [row("a", 99, 101), row("b", 94, 96), row("c", 60, 120)]
    assert concluded(rows).sentence.startswith("a and c cannot be told apart")
    assert {c.row.name for c in contenders(rows) if c.behind is None or c.behind.order == "tied"} == {"a", "c"}


def test_a_suspect_row_that_may_change_the_outcome_is_said() -> None:
    rows = [row("a", 100, 101, 102, 103), row("b", 50, 51, 52, 53, verdict="suspect"), row("c", 10, 11, 12, 13)]
    assert concluded(rows).sentence.endswith("(some cells are suspect).")
    rows = [row("a", 100, 101, 102, 103), row("b", 50, 51, 52, 53), row("c", 10, 11, 12, 13, verdict="suspect")]
    assert "suspect" not in concluded(rows).sentence


def rated(name: str, *goodputs: float, load: Load | None = None, tokens: float = 100) -> Row:
    found = row(name, tokens)
    return replace(found, load=load or found.load, figures={**found.figures, "goodput": estimate(goodputs)})


def test_with_an_slo_goodput_ranks_and_is_said_to() -> None:
    rows = [rated("a", 1, 1.1, 1.2, 1.3, tokens=900), rated("b", 2, 2.1, 2.2, 2.3)]
    assert concluded(rows).sentence == "b leads at 4 streams of 128 + 64 tokens: 87 % ahead of a."
    assert [c.row.name for c in contenders(rows)] == ["b", "a"]
    assert concluded([rated("a", 0), rated("b", 2)]).sentence.startswith("b is probably ahead at 4 streams of 128 + 64 tokens")


def test_every_load_speaks_for_itself() -> None:
    light, heavy = OpenLoop(rate=2), OpenLoop(rate=8)
    rows = [rated("a", 1.9, load=light), rated("a", 0.2, load=heavy), rated("b", 1, load=light), rated("b", 1, load=heavy)]
    sentence = concluded(rows).sentence
    assert "a is probably ahead at 2 req/s: 90 % ahead of b" in sentence
    assert "b is probably ahead at 8 req/s: 5x a" in sentence


def test_an_open_loop_is_named_by_its_rate_and_any_length_by_its_text() -> None:
    load = OpenLoop(rate=2.5, input_tokens="uniform(64,256)")
    assert concluded([replace(row("a", 100), load=load)]).sentence == "a reaches 100 tok/s at 2.5 req/s of uniform(64,256) + 64 tokens."


# -- parity --------------------------------------------------------------------------------------------------------------


def said(prompt: JSON, output: str, outcome: str = "ok") -> Mapping[str, JSON]:
    return {"prompt": prompt, "output": output, "outcome": outcome}


@pytest.mark.parametrize(
    ("a", "b", "summary"),
    [
        ([said("p", "one two")], [said("p", "one two")], "1 of 1 prompt"),
        ([said("p", "one two")], [said("p", "one ten")], "0 of 1 prompt"),
        ([said("p", "x"), said("q", "x")], [said("p", "x"), said("r", "x")], "1 of 1 prompt; 1 not comparable: the prompts differ"),
        ([said("p", "")], [said("p", "")], "1 not comparable: both outputs are empty"),
        ([said("p", "x", "cut")], [said("p", "x")], "1 not comparable: a request ended as cut"),
        ([said("p", "x")], [said([1, 2], "x")], "1 not comparable: one prompt is known as text, the other as token ids"),
        ([said([1, 2], "x")], [said([1, 2], "x")], "1 of 1 prompt"),
        ([said("p", "x")], [said("p", "x"), said("q", "x")], "1 of 1 prompt; 1 not comparable: only one deployment was asked"),
    ],
)
def test_only_the_same_prompt_answered_well_is_compared(a: list[Mapping[str, JSON]], b: list[Mapping[str, JSON]], summary: str) -> None:
    rows = [row("a", 1), row("b", 2)]
    launches = {
        r.name: LaunchRecord(r.name, r.deployment, 0, "2026-01-01T00:00:00+00:00", parity=tuple(its))
        for r, its in zip(rows, (a, b), strict=True)
    }
    (parity,) = parities(rows, launches)
    assert parity.summary == summary


# -- samples that are gone -----------------------------------------------------------------------------------------------


def measured(path: Path, samples: Samples, slo: Mapping[str, JSON] | None = None, **changes: str) -> Run:
    deployment = replace(Deployment("fake", "m", "none", "m"), **changes)
    cell = Cell(deployment, ClosedLoop(concurrency=1, input_tokens=10, output_tokens=4, requests=8))
    run = Run.create(path, RunRecord("demo", "2026-01-01T00:00:00+00:00", {}, "0", (cell.id,), {}, "0", slo), "")
    run.add_cell(CellRecord(cell.id, cell.launch_id, cell.deployment, cell.load, 0, "ok", identity="proven"), samples)
    return run


def eight(gap_ms: float = 50) -> Samples:
    made = []
    for i in range(8):
        events = array("q", [int((1_000 + 300 * i + 50 + j * gap_ms) * MS) for j in range(4)])
        made.append(
            Sample(
                i, 10, 4, due_ns=(1_000 + 300 * i) * MS, sent_ns=(1_000 + 300 * i) * MS, end_ns=events[-1], event_ns=events,
                event_tokens=array("i", [1] * 4), event_chars=array("i", [1] * 4), input_tokens=10, output_tokens=4,
                server_timings={"prompt_ms": 1.5} if i else None,
            )
        )  # fmt: skip
    return Samples.collect(made)


@pytest.mark.parametrize(("damage", "reason"), [(None, "missing"), (b"", "damaged"), (b"PAR1 and then nothing", "damaged")])
def test_lost_samples_are_a_failed_row_not_a_traceback(tmp_path: Path, damage: bytes | None, reason: str) -> None:
    run = measured(tmp_path / "run", eight())
    (file,) = (run.path / "samples").iterdir()
    file.unlink() if damage is None else file.write_bytes(damage)
    analysis = analyse(run)
    assert analysis.rows[0].status == "failed"
    assert analysis.rows[0].reasons[0].startswith(f"raw samples are {reason}")
    assert analysis.counts["failed"] == 1
    assert f"raw samples are {reason}" in render_table(analysis, width=100)
    assert render_html(run, analysis).startswith("<!doctype html>")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"x\.parquet"):
        Samples.read(tmp_path / "x.parquet")


def test_the_engines_own_timings_are_kept_and_older_files_have_none(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    eight().write(file)
    assert Samples.read(file).server_timings == (None, *[{"prompt_ms": 1.5}] * 7)
    pq.write_table(pq.read_table(file).drop_columns(["server_timings"]), file)
    assert Samples.read(file).server_timings == (None,) * 8


# -- figures that mean nothing -------------------------------------------------------------------------------------------


def test_a_burst_row_is_ranked_by_throughput_without_a_pace(tmp_path: Path) -> None:
    analysis = analyse(measured(tmp_path / "run", eight(gap_ms=0.01)))
    (only,) = analysis.rows
    assert only.ranked
    assert (only.figures["tpot_p50"], only.figures["itl_p50"], only.figures["user_throughput"]) == (None, None, None)
    assert only.figures["output_throughput"] and only.figures["ttft_p50"]  # noqa: PT018
    assert "TPOT p50: tokens came in bursts" in render_table(analysis, width=100)


def test_a_batch_shows_its_throughput_and_no_latency(tmp_path: Path) -> None:
    analysis = analyse(measured(tmp_path / "run", eight(), runtime="in-process"))
    (only,) = analysis.rows
    assert only.figures["output_throughput"]
    assert only.figures["ttft_p50"] is None
    assert "TTFT" not in render_table(analysis, width=100)


# -- columns, windows and goodput ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loads", "shown"),
    [
        ([ClosedLoop(concurrency=2)], ("concurrency", "input_tokens")),
        ([OpenLoop(rate=2)], ("rate", "input_tokens")),
        ([OpenLoop(rate=2), ClosedLoop(concurrency=8)], ("concurrency", "rate", "input_tokens")),
        ([OpenLoop(rate=2, lengths="8+8, 9+9")], ("rate", "lengths")),
        ([TraceReplay(trace="t.jsonl")], ("trace", "time_scale")),
    ],
)
def test_a_column_is_shown_that_says_how_heavy_the_load_is(tmp_path: Path, loads: list[Load], shown: tuple[str, ...]) -> None:
    cells = [Cell(Deployment("fake", "m", "none", "m"), load) for load in loads]
    run = Run.create(tmp_path / "r", RunRecord("demo", "2026-01-01T00:00:00+00:00", {}, "0", tuple(c.id for c in cells), {}, "0"), "")
    for cell in cells:
        run.add_cell(CellRecord(cell.id, cell.launch_id, cell.deployment, cell.load, 0, "skipped"))
    analysis = analyse(run)
    assert tuple(c for c in analysis.columns if c in LOAD_COLUMNS) == shown
    assert all(row.labels.get("concurrency", "") == "" for row in analysis.rows if row.load.open_loop)


def test_goodput_is_a_figure_only_where_an_slo_is_set(tmp_path: Path) -> None:
    plain = analyse(measured(tmp_path / "plain", eight()))
    assert plain.slo is None
    assert "goodput" not in plain.rows[0].figures
    run = measured(tmp_path / "with", eight(), slo={"ttft_s": 0.1, "tpot_s": 0.06, "e2e_s": None, "share": 0.9})
    analysis = analyse(run)
    assert analysis.slo == Slo(ttft_s=0.1, tpot_s=0.06, share=0.9)
    figures = analysis.rows[0].figures
    assert figures["slo_attainment"] and figures["slo_attainment"].value == 1  # noqa: PT018
    assert figures["goodput"] and figures["request_throughput"]  # noqa: PT018
    assert figures["goodput"].value == figures["request_throughput"].value
    assert analysis.sentence.startswith("fake reaches 3.48 req/s within the SLO")
    assert metric_of("goodput") is not None


def test_a_cell_says_its_window_and_who_counted(tmp_path: Path) -> None:
    (only,) = analyse(measured(tmp_path / "run", eight())).rows[0].cells
    assert only.window is not None
    assert (only.window.state, only.window.head_s, only.tokens) == ("too short to tell", 0, "server usage")


def test_names_of_many_deployments_take_no_time() -> None:
    many = [Deployment("vllm", "m", "fp8", "m", max_concurrency=i + 1) for i in range(3_000)]
    began = time.process_time()
    assert deployment_names(many)[7] == "vllm max_concurrency=8"
    assert time.process_time() - began < 1.5


def test_names_are_as_short_as_they_can_be() -> None:
    vllm, own = Deployment("vllm", "m", "fp8", "m"), Deployment("transformers", "m", "fp8", "m")
    two = replace(vllm, parallelism=Parallelism(tp=2), options={"cpu_threads": "0|1"})
    backends = [replace(own, options={"experts_implementation": each}) for each in ("eager", "grouped_mm")]
    names = ["vllm tp=1", "vllm tp=2", "transformers eager", "transformers grouped_mm"]
    assert deployment_names([vllm, two, *backends]) == names
    assert deployment_names([vllm, replace(vllm, runtime="docker")]) == ["vllm", "vllm docker"]
    assert deployment_names([vllm, replace(vllm, precision="bf16"), own]) == ["vllm fp8", "vllm bf16", "transformers fp8"], "not to hide it"
    assert deployment_names([vllm, replace(own, label="tuned", precision="q4")]) == ["vllm fp8", "tuned"]
    cache = [replace(vllm, options={"prefix_caching": on}) for on in (True, False)]
    assert deployment_names(cache) == ["vllm prefix_caching=True", "vllm prefix_caching=False"]
