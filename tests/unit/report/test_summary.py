"""The answer of a run in a terminal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.analysis.analysis import Analysis
from enginebench.report.summary import render_summary
from enginebench.report.summary_details import render_latencies, render_why

from .test_report import _same


@pytest.fixture
def golden() -> Path:
    return Path(__file__).resolve().parents[2] / "golden"


def test_the_answer_is_as_expected(synthetic_analysis: Analysis, golden: Path) -> None:
    _same(golden / "summary.txt", render_summary(synthetic_analysis, Path("results/synthetic"), width=80))
    _same(golden / "why.txt", render_why(synthetic_analysis, width=80))
    _same(golden / "latencies.txt", render_latencies(synthetic_analysis, width=80))


def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(synthetic_analysis: Analysis) -> None:
    text = render_summary(synthetic_analysis, Path("results/synthetic"), width=80)
    assert max(map(len, text.splitlines())) <= 80
    names = {row.name for row in synthetic_analysis.rows}
    assert all(name in text for name in names), "a name is never broken inside a word"
    assert "ANSWER  " in text
    assert "TRUST   " in text


def test_control_characters_do_not_reach_the_terminal(synthetic_analysis: Analysis) -> None:
    rows = tuple(replace(row, name=f"{row.name}\x1b[31m") for row in synthetic_analysis.rows)
    hostile = replace(synthetic_analysis, rows=rows)
    for text in (render_summary(hostile), render_why(hostile), render_latencies(hostile)):
        assert "\x1b" not in text


def test_a_run_without_figures_says_so(synthetic_analysis: Analysis) -> None:
    failed = tuple(row for row in synthetic_analysis.rows if row.status != "ok")
    text = render_summary(replace(synthetic_analysis, rows=failed), width=80)
    assert "Nothing" in text
    assert "TPOT" not in text
