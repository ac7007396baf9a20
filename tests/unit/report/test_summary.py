"""The answer of a run in a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.analysis.analysis import Analysis
from enginebench.report.summary import render_summary
from enginebench.report.summary_details import render_latencies, render_why

from ..analysis.result_sets import probed, run_record  # noqa: TID252  # tests/ is no package
from ..analysis.test_conclusions import RATES, SLO  # noqa: TID252  # tests/ is no package
from .test_report import _same


@pytest.fixture
def golden() -> Path:
    return Path(__file__).resolve().parents[2] / "golden"


def test_the_answer_is_as_expected(synthetic_analysis: Analysis, golden: Path) -> None:
    _same(golden / "summary.txt", render_summary(synthetic_analysis, Path("results/synthetic"), width=80))
    _same(golden / "why.txt", render_why(synthetic_analysis, width=80))
    _same(golden / "latencies.txt", render_latencies(synthetic_analysis, width=80))


def test_the_loads_that_are_held_are_few_lines_that_are_whole() -> None:
    """40 lines of 'at least 256 streams, the highe' for a run in which every deployment holds every load."""
    names = [f"engine-{i}" for i in range(12)]

    def said(attained: Callable[[float], float]) -> str:
        made = probed(dict.fromkeys(names, attained), RATES, slo=SLO, exact=True, restarts=4)
        return render_summary(Analysis(run_record(), tuple(made), {}, (), slo=SLO), width=80)

    all_hold = said(lambda _: 1.0)
    assert "every deployment holds every load that was tried within the SLO (TTFT 0.5 s" in " ".join(
        all_hold.replace("500 ms", "0.5 s").split()
    )
    assert "highest load within" not in all_hold
    some = said(lambda rate: 1.0 if rate < 3 else 0.2)
    block = some[some.index("highest load within the SLO") :].partition("\n\n")[0].splitlines()
    assert len(block) == 10
    assert block[-1] == "  and 4 more: bench report --json"
    assert all(re.search(r"\d+(\.\d+)? req/s \[.*\]$", line) for line in block[1:-1]), block
    never = said(lambda _: 0.2)
    assert never.count("no level that was tried") == 8
    assert max(map(len, (all_hold + some + never).splitlines())) <= 80


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
