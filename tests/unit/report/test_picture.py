"""The picture of an answer: the README's is what the tool makes of the committed run, nothing is cut or runs out of it."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.analysis.analysis import Analysis
from enginebench.records.run_folder import Run
from enginebench.report.picture import WIDTH, balanced, render_picture, text_width, wrapped
from enginebench.report.run import open_run
from enginebench.report.summary import render_summary
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[3]
RUN = ROOT / "results" / "published" / "2026-11-30-quickstart"
PICTURE = ROOT / "reports" / "published" / "2026-11-30-quickstart.svg"
SVG = "{http://www.w3.org/2000/svg}"


def test_the_picture_of_the_readme_is_what_the_tool_makes_of_the_committed_run() -> None:
    """After a change: bench report results/published/2026-11-30-quickstart --svg reports/published/2026-11-30-quickstart.svg"""
    assert PICTURE.read_text() == open_run(RUN).report("svg")
    readme = (ROOT / "README.md").read_text()
    image = readme.index(str(PICTURE.relative_to(ROOT)))
    assert readme.index("# enginebench") < image < readme.index("```text") < readme.index("make quickstart"), "picture, summary, commands"


def test_the_summary_of_the_readme_is_that_of_the_committed_run(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    shown = readme.partition("```text\n")[2].partition("```")[0]
    made = render_summary(open_run(RUN).analysis, tmp_path / "results", width=80)  # no report lies there
    assert shown.partition("\nreport ")[0] == made.partition("\nrun ")[0]


def test_it_says_what_is_concluded_and_nothing_runs_out(synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    svg = ET.fromstring(text := render_picture(synthetic_run, synthetic_analysis))  # noqa: S314
    assert len(text) < 40_000
    words = " ".join(str(each.text) for each in svg.iter(f"{SVG}text"))
    for model, sentence in synthetic_analysis.conclusion.by_model.items():
        assert model in words
        assert sentence.partition(":")[0][:30] in words
    assert f"trust: {synthetic_analysis.conclusion.trust.level}" in words
    height = float(str(svg.get("height")))
    for each in svg.findall(f"{SVG}text"):
        assert float(str(each.get("y"))) < height
        css = str(each.get("class"))
        px = {"a1": 22, "a2": 18}.get(css, 13)
        assert float(str(each.get("x"))) + text_width(str(each.text), px) <= WIDTH, each.text
    for rect in svg.iter(f"{SVG}rect"):
        assert float(rect.get("x", 0)) + float(str(rect.get("width"))) <= WIDTH


def test_it_follows_the_colour_scheme_and_loads_nothing() -> None:
    text = PICTURE.read_text()
    assert "prefers-color-scheme:dark" in text
    assert "<script" not in text
    assert not re.search(r"(?:href|src|url\()", text)
    assert "Answer" not in text


def test_text_from_outside_is_escaped(synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    hostile = replace(synthetic_analysis, run=replace(synthetic_analysis.run, name="<script>\x1b[31m</style>"))
    text = render_picture(synthetic_run, hostile)
    assert "<script" not in text
    assert "\x1b" not in text
    assert text.count("</style>") == 1


@given(st.text("abc mW.1", max_size=300), st.integers(60, 900))
def test_lines_fit_and_no_word_is_lost(text: str, width: int) -> None:
    lines = balanced(text, width, 13)
    assert " ".join(lines).split() == text.split()
    assert len(lines) == len(wrapped(text, width, 13))
    assert all(text_width(line, 13) <= width or " " not in line for line in lines)


@pytest.mark.parametrize("name", ["2026-11-30-cpu_all_engines", "2026-11-30-quickstart"])
def test_every_published_run_has_a_picture_without_a_broken_word(name: str) -> None:
    svg = ET.fromstring(open_run(ROOT / "results" / "published" / name).report("svg"))  # noqa: S314
    assert not [each.text for each in svg.iter(f"{SVG}text") if "nan" in str(each.text)]
