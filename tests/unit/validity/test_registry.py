"""The registry: one function declares all that any output shows of a check, and a new file is seen everywhere without another edit."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner
from enginebench.analysis.analysis import analyse
from enginebench.cli import bench
from enginebench.domain import Cell, ClosedLoop, Deployment, Sample
from enginebench.machine.folders import checkout
from enginebench.records.cell import CellRecord, CellTraits, ClientFacts, EngineCounters
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.records.window import Window
from enginebench.report import render_table
from enginebench.report.export import to_json, to_markdown
from enginebench.report.html import render_html
from enginebench.validity import Context, all_checks, checks, judge, worst
from enginebench.validity.check import Finding, Threshold, check

EXPORTED = {
    "burst_delivery", "cache_hits", "client_bound", "clock_step", "context_shift", "counts_disagree", "cpu_stolen", "cpu_throttled",
    "crowded_machine", "disk_wait", "ended_early", "failed_requests", "few_events", "few_requests", "foreign_load", "gpu_shared",
    "gpu_throttled", "kv_full", "length_mismatch", "no_counts", "not_steady", "option_not_honoured", "oversaturated",
    "precision_fallback", "preempted", "prompt_mismatch", "prompt_truncated", "queued", "random_routing", "rate_not_achieved",
    "short_window", "timings_disagree", "unproven_server", "wrong_model",
}  # fmt: skip
"""Ids in exports that people have stored."""

MS, S = 1_000_000, 1_000_000_000


# -- the checks there are ------------------------------------------------------------------------------------------------


def test_exported_ids_stay() -> None:
    assert {each.id for each in all_checks()} >= EXPORTED


def test_every_threshold_is_stated_by_a_check_of_its_module() -> None:
    for topic in {each.topic for each in all_checks()}:
        stated = {name for each in all_checks() if each.topic == topic for name in each.thresholds}
        constants = vars(sys.modules[f"{checks.__name__}.{topic}"]).items()
        assert {name.lower() for name, value in constants if isinstance(value, Threshold)} == stated


def test_texts_fit_into_a_footnote() -> None:
    for each in all_checks():
        assert each.explanation
        assert each.when
        for text in (each.meaning, each.advice, *each.when.values()):
            assert text == " ".join(text.split())
            assert not text.endswith((".", ";", ","))
            assert not re.search(r"\{[A-Z]", text), "a threshold without its value"
        assert "(" not in each.advice, "a note puts it into parentheses"


def test_a_threshold_is_a_number_that_prints_with_its_unit() -> None:
    assert Threshold(0.5, "s") > 0.4
    assert [str(Threshold(0.05, "share")), str(Threshold(0.5, "s")), str(Threshold(1, "tokens")), str(Threshold(4))] == [
        "5 %", "0.5 s", "1 token", "4",
    ]  # fmt: skip
    assert [str(Threshold(0.995, "share")), str(Threshold(12.3, "share")), str(Threshold(1, "ms"))] == ["99.5 %", "1,230 %", "1 ms"]


def test_a_condition_that_names_no_threshold_of_the_module_is_refused() -> None:
    def stranger(cell: Context) -> Iterator[Finding]:
        yield from ()

    with pytest.raises(KeyError, match="NOT_HERE"):
        check(meaning="m", when={"suspect": "over {NOT_HERE}"}, advice="a")(stranger)


def test_the_worst_verdict_counts_and_nothing_is_not_run() -> None:
    assert worst(["valid", "suspect", "scoped"]) == "suspect"
    assert worst(["not run", "valid"]) == "valid"
    assert worst([]) == "not run"


# -- passed, or not checkable --------------------------------------------------------------------------------------------


def record(**changes: object) -> CellRecord:
    cell = Cell(Deployment("fake", "m", "none", "m"), ClosedLoop(concurrency=1, input_tokens=10, output_tokens=20, requests=8))
    known = {"identity": "proven", "client": ClientFacts({"lag_p99_ms": 0.1, "cpu_fraction": 0.2}), **changes}
    return CellRecord(cell.id, cell.launch_id, cell.deployment, cell.load, 0, "ok", **known)


def samples() -> Samples:
    made = []
    for i in range(8):
        sent = (10 + i) * S
        events = array("q", [sent + 50 * MS + j * 10 * MS for j in range(20)])
        counts = array("i", [1] * 20)
        made.append(Sample(i, 10, 20, sent, sent, sent, events[-1], events, counts, counts, input_tokens=10, output_tokens=20))
    return Samples.collect(made)


WINDOW = Window(10 * S, 18 * S, "steady", "")


def test_a_check_without_its_evidence_is_not_checkable_and_has_not_passed() -> None:
    found = judge(Context(samples(), record(), WINDOW))
    assert (found.verdict, found.reasons) == ("valid", ())
    assert found.not_checkable == {
        "cache_hits": "counts of cached prompt tokens",
        "preempted": "engine counter `preemptions`",
        "queued": "readings of engine counter `waiting` (at least 3)",
        "kv_full": "readings of engine counter `kv_use`",
        "timings_disagree": "times that the engine reports for its requests",
        "gpu_throttled": "telemetry of the GPUs that the cell ran on",
        "gpu_shared": "telemetry of the GPUs that the cell ran on",
        "cpu_throttled": "telemetry of container quotas or CPU heat",
        "cpu_stolen": "telemetry of stolen CPU time",
        "foreign_load": "CPU time of the engine, whose processes are unknown",
        "disk_wait": "telemetry of disk reads or of time that disks were waited for",
        "clock_step": "readings of the wall clock",
        "wrong_model": "configuration that the engine reports",
        "precision_fallback": "configuration that the engine reports",
        "option_not_honoured": "configuration that the engine reports",
        "sampling_not_sent": "configuration that the engine reports",
        "context_shift": "context length that the engine reports",
    }
    counted = judge(Context(samples(), record(counters=EngineCounters({"preemptions": 0.0, "cached_tokens": 0.0})), WINDOW))
    assert not {"preempted", "cache_hits"} & set(counted.not_checkable), "it was looked at, and passed"


def test_figures_without_raw_samples_leave_most_checks_open_and_some_answered() -> None:
    found = judge(Context(Samples.collect([]), record(traits=CellTraits(random_weights=True)), WINDOW))
    assert found.verdict == "scoped"
    assert found.not_checkable["ended_early"] == found.not_checkable["failed_requests"] == "raw samples"
    assert found.not_checkable["burst_delivery"] == "streamed output events"
    assert "unproven_server" not in found.not_checkable


# -- a stranger adds one file --------------------------------------------------------------------------------------------

STRANGER = '''"""Is it a lucky day?"""

from collections.abc import Iterator

from enginebench.metrics.registry import Trait
from enginebench.validity.check import Finding, Threshold, check
from enginebench.validity.context import RAW_SAMPLES, Context

MOST = Threshold(7, "requests")


@check(
    meaning="the stars were against it",
    when={"suspect": "the load has over {MOST}"},
    advice="lower `requests`, or ask an astrologer",
    needs=(RAW_SAMPLES,),
    withholds=(Trait.PACE,),
)
def unlucky(cell: Context) -> Iterator[Finding]:
    """Seven is as far as luck goes."""
    if len(cell.samples) > MOST:
        yield Finding("suspect", f"{len(cell.samples)} requests under a bad star", withholds=True)
'''


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file more in the folder of the checks."""
    folder = tmp_path / "checks"
    folder.mkdir()
    (folder / "luck.py").write_text(STRANGER)
    monkeypatch.setattr(checks, "__path__", [*checks.__path__, str(folder)])
    all_checks.cache_clear()
    yield
    monkeypatch.undo()
    all_checks.cache_clear()
    sys.modules.pop(f"{checks.__name__}.luck", None)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    cell = record()
    about = RunRecord("luck", "2026-01-02T03:00:00+00:00", {"name": "luck"}, "0123456789ab", (cell.id,), {}, "0.1.0")
    made = Run.create(tmp_path / "run", about, "name: luck\n")
    made.add_cell(cell, samples())
    return made


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", (checkout() or Path()) / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.usefixtures("stranger")
def test_a_new_file_is_a_check_in_every_output(run: Run) -> None:
    note = "8 requests under a bad star: the stars were against it (lower `requests`, or ask an astrologer)"
    analysis = analyse(run)
    (row,) = analysis.rows
    assert row.verdict == "suspect"
    assert row.figures["tpot_p50"] is None
    table = render_table(analysis, width=160, color=False)
    assert f"] {note}" in table
    assert "TPOT p50: the stars were against it" in table
    assert note in to_markdown(analysis).replace("\\", "")
    page = render_html(run, analysis)
    assert note.replace("`", "") in page
    assert "<dt>unlucky</dt><dd>suspect if the load has over 7 requests." in page
    (cell,) = json.loads(to_json(analysis))["rows"][0]["cells"]
    assert {
        "check": "unlucky",
        "severity": "suspect",
        "detail": "8 requests under a bad star",
        "meaning": "the stars were against it",
        "advice": "lower `requests`, or ask an astrologer",
    } in cell["reasons"]
    docs = generator().page("validity.md")
    assert (
        "## Luck\n\nIs it a lucky day?\n\n### `unlucky`\n\nSeven is as far as luck goes.\n\n- **suspect** if the load has over 7 requests"
        in docs
    )
    shown = CliRunner().invoke(bench, ["checks"]).output
    assert "unlucky              the stars were against it\n  suspect            the load has over 7 requests\n" in shown


@pytest.mark.usefixtures("stranger")
def test_a_faulty_check_ends_nothing_and_does_not_pass(tmp_path: Path) -> None:
    (tmp_path / "checks" / "luck.py").write_text(
        STRANGER.replace("    if len(cell.samples) > MOST:", "    if len(cell.samples) / 0 > MOST:")
    )
    found = judge(Context(samples(), record(), WINDOW))
    assert (found.verdict, [reason.detail for reason in found.reasons]) == (
        "suspect",
        ["the check itself failed (ZeroDivisionError: division by zero)"],
    )


@pytest.mark.usefixtures("stranger")
def test_an_id_that_is_taken_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checks" / "luck.py").write_text(STRANGER.replace("def unlucky", "def short_window"))
    with pytest.raises(ValueError, match=r"two checks have the id short_window: in load\.py and in luck\.py"):
        all_checks()


# -- bench checks --------------------------------------------------------------------------------------------------------


def test_bench_checks_lists_every_check_or_those_that_are_named() -> None:
    shown = CliRunner().invoke(bench, ["checks"]).output
    assert all(f"{each.id} " in shown for each in all_checks())
    one = CliRunner().invoke(bench, ["checks", "short_window"]).output
    assert one.splitlines()[1] == "  suspect            the measured window is shorter than 0.5 s"
    data = json.loads(CliRunner().invoke(bench, ["checks", "--json"]).output)
    assert [each["id"] for each in data] == [each.id for each in all_checks()]
    (window,) = (each for each in data if each["id"] == "short_window")
    assert window["thresholds"] == {"shortest": {"value": 0.5, "unit": "s"}}
    assert window["when"] == {"suspect": "the measured window is shorter than 0.5 s"}


def test_bench_checks_refuses_what_it_does_not_know() -> None:
    outcome = CliRunner().invoke(bench, ["checks", "short_windows"])
    assert str(outcome.exception).startswith("unknown check 'short_windows'\n  did you mean 'short_window'?")
