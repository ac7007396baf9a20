"""The sections of a report: their order, and that a new file is a section in every output without another edit."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from enginebench.analysis.analysis import Analysis
from enginebench.records.run_folder import Run
from enginebench.report import render_table, sections, to_json, to_markdown
from enginebench.report.html import render_html
from enginebench.report.section import raw_samples, searches, time_series
from enginebench.report.sections import ORDER, all_sections

SLOWEST = '''
"""The section with the slowest request of each deployment."""

from enginebench.report.blocks import Paragraph, Table
from enginebench.report.section import Section, Summary, raw_samples


def slowest(analysis):
    found = {row.name: row.figures.get("ttft_p99") for row in analysis.rows}
    return [(name, f"{1e3 * its.value:.0f} ms") for name, its in found.items() if its]


SECTION = Section(
    id="slowest",
    title="Slowest requests",
    label="Slowest",
    needs=(raw_samples,),
    blocks=lambda context: [Paragraph("The tail <b>matters</b>."), Table(("deployment", "TTFT p99"), tuple(slowest(context.analysis)))],
    summaries=lambda analysis: [Summary("slowest requests", tuple(map(": ".join, slowest(analysis))))],
    notes=lambda analysis: ["slowest: by p99"],
    data=lambda analysis: {"slowest": dict(slowest(analysis))},
)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A further folder for sections."""
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path)])
    before = set(sys.modules)
    all_sections.cache_clear()
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith(sections.__name__):
            del sys.modules[name]
    all_sections.cache_clear()


def anchors(page: str) -> list[str]:
    return re.findall(r'<section id="([^"]+)">', page)


def test_the_order_names_existing_sections() -> None:
    assert {section.id for section in all_sections()} == set(ORDER) - {"*"}
    assert [section.id for section in all_sections()] == [id_ for id_ in ORDER if id_ != "*"]


def test_a_new_section_is_one_file(folder: Path, synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    (folder / "slowest.py").write_text(SLOWEST, encoding="utf-8")
    page = render_html(synthetic_run, synthetic_analysis)
    ids = anchors(page)
    assert ids[ids.index("slowest") - 1 : ids.index("slowest") + 2] == ["parity", "slowest", "machine"]
    contents = re.findall(r'<a href="#([^"]+)">([^<]+)</a> ', page)
    assert contents[contents.index(("slowest", "Slowest")) - 1] == ("parity", "Parity")
    assert "<h2>Slowest requests</h2>" in page
    assert "The tail &lt;b&gt;matters&lt;/b&gt;." in page
    found = json.loads(to_json(synthetic_analysis))["slowest"]
    value = found["llamacpp f16"]
    assert re.search(rf'<th scope="row">llamacpp f16</th>\s*<td>{value}</td>', page)
    for text in (render_table(synthetic_analysis, width=120, color=False), to_markdown(synthetic_analysis)):
        assert "slowest requests" in text
        assert f"llamacpp f16: {value}" in text
        assert "slowest: by p99" in text


def test_a_section_without_its_needs_is_left_out(folder: Path, synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    (folder / "slowest.py").write_text(SLOWEST, encoding="utf-8")
    nothing = dataclasses.replace(synthetic_analysis, rows=())
    assert not raw_samples(nothing)
    assert "slowest" not in anchors(render_html(synthetic_run, nothing))
    for text in (render_table(nothing, width=120, color=False), to_markdown(nothing)):
        assert "slowest" not in text
    assert json.loads(to_json(nothing))["slowest"] == {}, "programs find every key in every run"


def test_a_section_without_blocks_is_left_out(folder: Path, synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    text = SLOWEST.replace("blocks=lambda context: [", "blocks=lambda context: [] and [")
    (folder / "slowest.py").write_text(text, encoding="utf-8")
    assert "slowest" not in anchors(render_html(synthetic_run, synthetic_analysis))


def test_two_sections_cannot_share_an_id_or_a_key(folder: Path, synthetic_analysis: Analysis) -> None:
    (folder / "slowest.py").write_text(SLOWEST.replace('{"slowest":', '{"rows":'), encoding="utf-8")
    with pytest.raises(ValueError, match="the key 'rows' is already in the JSON document"):
        to_json(synthetic_analysis)
    (folder / "zz_again.py").write_text(SLOWEST, encoding="utf-8")
    all_sections.cache_clear()
    with pytest.raises(ValueError, match=r"two sections have the id 'slowest'; the second one is in zz_again\.py"):
        all_sections()


def test_needs_follow_from_what_was_stored(synthetic_analysis: Analysis) -> None:
    assert raw_samples(synthetic_analysis)
    assert not searches(synthetic_analysis)
    assert time_series(synthetic_analysis)
    rows = (dataclasses.replace(synthetic_analysis.rows[0], cells=()),)
    bare = dataclasses.replace(synthetic_analysis, rows=rows)
    assert not raw_samples(bare)
    assert not time_series(bare)
