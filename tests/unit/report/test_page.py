"""The page: its size, its answer, its static figures, its packed library, and what it shows of the conclusion."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import re
import xml.etree.ElementTree as ET

import pytest
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.analysis.conclusion import Regime
from enginebench.domain import ClosedLoop
from enginebench.machine.folders import resource_dir
from enginebench.metrics.slo import Slo
from enginebench.records.run_folder import Run
from enginebench.report.answer import answer
from enginebench.report.axes import make_axis
from enginebench.report.blocks import Cell, Panel, Table, fit_class
from enginebench.report.chart_marks import label_rows, shortened, strokes
from enginebench.report.html import render_html
from enginebench.report.packed import Packed, pack, packed_plotly
from enginebench.report.sections.grid import grid_views
from enginebench.report.static_chart import static_chart
from enginebench.report.styles import HUES, styles
from hypothesis import given
from hypothesis import strategies as st

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def page(synthetic_run: Run, synthetic_analysis: Analysis) -> str:
    return render_html(synthetic_run, synthetic_analysis)


def unpacked_bytes(its: Packed) -> bytes:
    """What the page's script does."""
    blocks = [its.text[i : i + its.block + 1] for i in range(0, len(its.text), its.block + 1)]
    codes = [ord(c) ^ ord(block[0]) for block in blocks for c in block[1:]]
    bits = "".join(f"{code:07b}" for code in codes)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8))


def unpacked(its: Packed) -> str:
    return gzip.decompress(unpacked_bytes(its)).decode()


# -- size and library --------------------------------------------------------------------------------------------------------


def test_the_page_is_under_2_2_mb(page: str) -> None:
    assert len(page.encode()) < 2_200_000


@given(st.text())
def test_what_is_packed_can_be_unpacked_and_holds_no_markup(text: str) -> None:
    its = pack(text)
    assert unpacked(its) == text
    assert not re.search(r"<!--|</?script|[\0\r]", its.text, re.IGNORECASE)
    assert its.text.isascii()


@pytest.mark.parametrize("wanted", ["a</script><!-- \r\0b!", "".join(map(chr, range(128))) * 3], ids=["markup", "every character"])
def test_characters_that_html_changes_are_never_written(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    """Also where a block has all 128 characters, so that no key is left for it: the blocks are then shorter."""
    bits = "".join(f"{ord(c):07b}" for c in wanted)
    data = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8))
    monkeypatch.setattr("enginebench.report.packed.gzip.compress", lambda *_, **__: data)
    its = pack("")
    assert not re.search(r"<!--|</?script|[\0\r]", its.text, re.IGNORECASE)
    assert its.block == (120 if wanted.startswith("a<") else 40)
    assert unpacked_bytes(its) == data


def test_the_library_is_that_of_the_package_and_allowed_by_its_hash(page: str) -> None:
    from plotly.offline import get_plotlyjs

    library, hash_ = packed_plotly()
    assert unpacked(library) == get_plotlyjs()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy is not None
    assert f"'sha256-{hash_}'".replace("'", "&#39;") in policy[1]
    assert "unsafe-inline" not in policy[1].partition("style-src")[0]


def test_every_figure_is_a_static_svg_with_a_link(page: str) -> None:
    figures = re.findall(r'<figure id="([^"]+)"(.*?)</figure>', page, re.DOTALL)
    assert len(figures) > 60
    for anchor, inside in figures:
        assert '<svg class="ch' in inside, anchor
        assert f'<a href="#{anchor}">' in inside, anchor
    assert len({anchor for anchor, _ in figures}) == len(figures)
    assert 'role="img" aria-label="' in page


# -- static charts -----------------------------------------------------------------------------------------------------------

LINE = {"name": "vllm &lt;b&gt;", "meta": {"slot": 3}, "mode": "lines+markers", "marker": {"symbol": ["circle", "circle-open"]},
        "line": {"dash": "dash"}, "x": [1, 2, 4], "y": [10, None, 1000]}  # fmt: skip


def drawn(*traces: dict[str, object], **layout: object) -> ET.Element:
    panel = Panel("p", traces, {"xaxis": {"title": {"text": "x<y"}}, "yaxis": {}, **layout})
    return ET.fromstring(static_chart(panel, 'a "title"', 500).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1))  # noqa: S314


def test_a_line_is_drawn_in_the_hue_of_its_deployment_and_labelled_at_its_end() -> None:
    svg = drawn(LINE, yaxis={"type": "log"})
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert "vllm <b>" in texts
    assert "x<y" in texts
    assert {"10", "100", "1,000"} <= set(texts)
    groups = [group.get("class") for group in svg.iter(f"{SVG}g")]
    assert groups.count("s3") == 1
    assert [text.text for text in svg.iter(f"{SVG}text") if text.get("class") == "lb s3"] == ["vllm <b>"]
    line = next(path for path in svg.iter(f"{SVG}path") if path.get("class") == "l")
    assert line.get("style") is None, "its dash is that of its deployment"
    own = drawn({**LINE, "meta": {"slot": 3, "dashed": True}})
    assert [path.get("style") for path in own.iter(f"{SVG}path") if path.get("class") == "l"] == ["stroke-dasharray:7 4"]
    assert str(line.get("d")).count("M") == 2, "a missing value interrupts the line"
    assert svg.get("aria-label") == 'a "title"'


def test_the_limit_of_the_slo_is_a_line() -> None:
    shape = {"type": "line", "y0": 500, "y1": 500, "label": {"text": "SLO 500 ms"}}
    svg = drawn({**LINE, "y": [10, 20, 30]}, shapes=[shape])
    limit = next(path for path in svg.iter(f"{SVG}path") if path.get("class") == "slo")
    assert 0 < float(re.findall(r"M\S+ (\S+?)H", str(limit.get("d")))[0]) < 300, "the axis reaches it"
    assert "SLO 500 ms" in [text.text for text in svg.iter(f"{SVG}text")]


@pytest.mark.parametrize("ys", [[None, None], [0, 0], [-1, 5], [1e-9, 1e9], [3, 3]])
@pytest.mark.parametrize("kind", ["log", "linear"])
def test_any_values_can_be_drawn(ys: list[float | None], kind: str) -> None:
    svg = drawn({**LINE, "name": "", "x": [1, 2], "y": ys}, yaxis={"type": kind})
    assert not re.search("nan|inf", ET.tostring(svg, "unicode"))


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9))
def test_a_path_goes_through_all_points_and_a_flat_curve_is_one_stroke(points: list[tuple[int, int]]) -> None:
    x, y = map(int, re.findall(r"-?\d+", strokes(points).partition("M")[2])[:2])
    corners, (turned,) = [(x, y)], re.findall(r"^M\S+ \d+(.*)$", strokes(points))
    for way, text in re.findall(r"([hvl])([^hvl]*)", turned):
        values = [int(value) for value in re.findall(r"-?\d+", text)]
        moves = (
            [(v, 0) for v in values]
            if way == "h"
            else [(0, v) for v in values]
            if way == "v"
            else list(zip(values[::2], values[1::2], strict=True))
        )
        for right, down in moves:
            x, y = x + right, y + down
            corners.append((x, y))
    assert corners[0] == points[0]
    assert corners[-1] == points[-1]
    assert {p for p in points if p not in corners} <= {p for a, b in itertools.pairwise(corners) for p in _between(a, b)}
    assert strokes([(0, 4), (5, 4), (9, 4), (12, 4)]) == "M0 4h12"


def _between(a: tuple[int, int], b: tuple[int, int]) -> set[tuple[int, int]]:
    """The places on a level or upright stroke."""
    xs, ys = sorted((a[0], b[0])), sorted((a[1], b[1]))
    return {(x, y) for x in range(xs[0], xs[1] + 1) for y in range(ys[0], ys[1] + 1)} if a[0] == b[0] or a[1] == b[1] else set()


@given(st.lists(st.floats(0, 300), max_size=12))
def test_labels_do_not_overlap(wanted: list[float]) -> None:
    rows = sorted(label_rows(wanted, 15, 20, 260))
    assert all(b - a >= 14.9 for a, b in itertools.pairwise(rows))


@given(st.floats(1e-6, 1e6), st.floats(1, 1e5))
def test_ticks_are_round_and_on_the_axis(low: float, factor: float) -> None:
    for kind in ("log", "linear"):
        axis = make_axis({"type": kind}, [low, low * factor])
        assert len(axis.ticks) <= 8
        assert all(-0.01 <= axis.at(value) <= 1.01 for value, _ in axis.ticks)


def test_names_are_cut_between_words() -> None:
    assert shortened("transformers grouped_mm", 30) == "transformers grouped_mm"
    assert shortened("transformers grouped_mm", 18) == "transformers…"


# -- styles ------------------------------------------------------------------------------------------------------------------


def test_one_hue_per_engine_and_one_dash_per_variant() -> None:
    found = styles([("vllm fp8", "vllm"), ("vllm bf16", "vllm"), ("sglang fp8", "sglang"), ("mine", "mine"), ("other", "other")])
    assert found["vllm fp8"].hue == found["vllm bf16"].hue == HUES["vllm"]
    assert found["vllm fp8"].dash == found["sglang fp8"].dash != found["vllm bf16"].dash
    assert found["vllm fp8"].symbol != found["vllm bf16"].symbol
    assert len({its.hue for its in found.values()}) == 4, "an unknown engine takes a free hue"
    assert [its.slot for its in found.values()] == [0, 1, 2, 3, 4]


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("engine", HUES)
def test_hues_have_a_contrast_of_5_with_both_pages(engine: str) -> None:
    light, dark = (_luminance(hue) for hue in HUES[engine])
    assert 1.05 / (light + 0.05) >= 5
    assert (dark + 0.05) / (_luminance("#15171a") + 0.05) >= 5


def test_text_has_a_contrast_of_4_5_on_page_and_panel() -> None:
    css = resource_dir("reports/templates").joinpath("chart.css").read_text()
    schemes = [dict(re.findall(r"--(page|panel|ink|muted): (#[0-9a-f]{6})", block)) for block in css.split(":root {")[1:3]]
    assert [len(scheme) for scheme in schemes] == [4, 4]
    for scheme in schemes:
        for ground in ("page", "panel"):
            for text in ("ink", "muted"):
                light, dark = sorted((_luminance(scheme[text]), _luminance(scheme[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)


# -- answer and grid -----------------------------------------------------------------------------------------------------------


def test_the_answer_has_a_row_for_each_statement_and_the_choice(synthetic_analysis: Analysis, page: str) -> None:
    found, conclusion = answer(synthetic_analysis), synthetic_analysis.conclusion
    assert len(found.rows) == sum(len(grid.statements) for grid in conclusion.grids) + len(conclusion.choices)
    assert page.index("probably leads") < page.index('<section id="grid">')
    assert "trust: partly" in page
    assert {"Hardware", "Model", "Versions", "Run"} == set(found.facts)


def test_the_grid_shows_what_is_concluded(synthetic_analysis: Analysis) -> None:
    views = grid_views(synthetic_analysis, {row.name: 0 for row in synthetic_analysis.rows})
    for grid, view in zip(synthetic_analysis.conclusion.grids, views, strict=True):
        for context, line in zip(grid.scale.contexts, view.cells, strict=True):
            for level, cell in zip(grid.scale.levels, line, strict=True):
                regime = grid.at(context, level)
                assert isinstance(regime, Regime)
                assert cell is not None
                assert (cell.leaders, cell.suspect) == (regime.leaders, regime.suspect)


def test_the_slo_is_a_line_in_the_latencies_and_in_the_grid(synthetic_run: Run) -> None:
    analysis = dataclasses.replace(analyse(synthetic_run), slo=Slo(ttft_s=0.25))
    page = render_html(synthetic_run, analysis)
    assert "SLO 250 ms" in page
    assert "Only deployments that meet the SLO: TTFT 250 ms" in page


def test_contexts_are_compared_where_there_are_several(page: str) -> None:
    data = json.loads(re.findall(r'id="plots">(.*?)</script>', page, re.DOTALL)[0])
    curves = [panel for panel in data if panel["id"].startswith("context-")]
    assert curves
    assert curves[0]["layout"]["xaxis"]["ticktext"] == ["128", "1,024"]
    assert ClosedLoop.axis not in json.dumps(curves)


def test_the_highest_load_that_is_held_is_listed(synthetic_run: Run) -> None:
    analysis = dataclasses.replace(analyse(synthetic_run), slo=Slo(ttft_s=0.25))
    page = render_html(synthetic_run, analysis)
    grid = page[page.index('<section id="grid">') : page.index('<section id="frontier">')]
    for capacity in analysis.conclusion.capacities:
        assert capacity.text in grid


def test_valid_cells_of_a_large_run_are_counted(
    synthetic_run: Run, synthetic_analysis: Analysis, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    monkeypatch.setattr("enginebench.report.sections.provenance._MOST_CELLS", 100)
    small = render_html(synthetic_run, synthetic_analysis)
    assert "valid cells are not listed here" in small
    assert "suspect cells are not listed here" in small
    assert "cells are not listed here" not in page
    assert len(page) - len(small) > 30_000
    cells = [cell for row in synthetic_analysis.rows for cell in row.cells]
    assert all(cell.record.id in page for cell in cells)
    assert all(cell.record.id in small for cell in cells if not cell.ran or cell.verdict == "invalid")


# -- tables ------------------------------------------------------------------------------------------------------------------


def test_a_table_says_where_it_does_not_fit() -> None:
    assert fit_class([10, 5]) == ""
    assert fit_class([20, 20, 20]) == "f760"
    assert fit_class([12] * 8) == "f1040"
    assert fit_class([12] * 30) == "f0"
    assert Table(("a", "b"), (("x" * 90, "y" * 90),)).fit == "", "two columns wrap"
    assert Table(("a", "b", "c"), (("x" * 30, Cell("y" * 30), "z"),)).fit == "f760"
