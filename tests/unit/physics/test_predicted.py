"""The committed measurements on a processor: nothing beats the ceiling, relative speeds are met, and the page says what the data say."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from enginebench.machine.folders import checkout

ROOT = checkout() or Path()
DATA = ROOT / "benchmarks" / "ceiling_measured.jsonl"


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.delitem(sys.modules, "ceiling", raising=False)
    import predicted

    found: ModuleType = predicted
    return found


def test_nothing_that_was_measured_is_above_the_ceiling(benchmark: ModuleType) -> None:
    measured = benchmark.read(DATA)
    assert len(measured.rows) == 45
    for case, batch in measured.rows:
        assert batch / measured.step_s(case, batch) < benchmark.ceiling(measured, case, batch).tokens_per_s


def test_relative_speeds_are_predicted_within_a_quarter(benchmark: ModuleType) -> None:
    found = list(benchmark.ratios(benchmark.read(DATA)))
    assert {kind for kind, *_ in found} == {"mixture / dense", "batch 8 / batch 1", "precision"}
    assert len(found) == 29
    for _, words, real, guess, _ in found:
        assert abs(guess / real - 1) <= benchmark.WITHIN, words


def test_the_calibration_reproduces_its_own_points_and_no_others(benchmark: ModuleType) -> None:
    measured = benchmark.read(DATA)
    for point in measured.rows:
        exact = benchmark.predicted(measured, *point) == pytest.approx(measured.step_s(*point), rel=1e-9)
        assert exact == benchmark.calibrates(point), point


def test_the_best_pass_counts(benchmark: ModuleType, tmp_path: Path) -> None:
    line = '{"shape": "dense", "precision": "q8_0", "turn": 0, "bytes_s": %s, "fp32": 1e11, "batch": 1, "step_s": %s}\n'
    (tmp_path / "measured.jsonl").write_text(line % (1e10, 0.3) + line % (2e10, 0.2) + line % (1.5e10, 0.25))
    measured = benchmark.read(tmp_path / "measured.jsonl")
    assert measured.step_s(("dense", "q8_0"), 1) == 0.2
    assert measured.bandwidth == 2e10


def test_page_and_picture_are_current(benchmark: ModuleType) -> None:
    measured = benchmark.read(DATA)
    assert benchmark.tables(measured) in (ROOT / "docs" / "physics-on-cpu.md").read_text()
    assert benchmark.picture(measured) == (ROOT / "docs" / "physics-on-cpu.svg").read_text()
