"""Headings that are findings: on result sets with a known truth, what they claim is so, and chance makes no claim."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest
from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.conclusion import Statement
from enginebench.analysis.figure_grids import figure_grids
from enginebench.analysis.rows import CellResult
from enginebench.domain import Load
from enginebench.metrics.registry import find
from enginebench.records.run_folder import Run
from enginebench.report.findings import grid_finding, leader_finding, times
from enginebench.report.html import render_html
from enginebench.report.section import Context
from enginebench.report.sections import all_sections

from ..analysis.result_sets import GRID, Truth, base, probed, rows, run_record  # noqa: TID252  # tests/ is no package
from ..analysis.result_sets import times as faster  # noqa: TID252  # tests/ is no package
from ..analysis.test_conclusions import RATES3, SLO, TINY, small  # noqa: TID252  # tests/ is no package

DERIVED: Mapping[str, Callable[[float, Load], float]] = {
    "output_throughput": lambda v, _: v,
    "user_throughput": lambda v, load: v / load.level,
    "ttft_p50": lambda v, load: load.level / v,
    "tpot_p50": lambda v, load: load.level / v,
    "cost_per_token": lambda v, _: 1 / v,
    "share_of_ceiling": lambda v, load: v / (20 * base(load)),
}
"""Figure -> from the throughput; the same deployment is the best in all of them."""
HEAVIEST = GRID[-1]
TRUTHS: Mapping[str, Truth] = {
    "everywhere": {"a": faster(1.1), "b": faster(1)},
    "up to 1k": {"sglang": faster(lambda load: 1.06 if small(load) else 1.0), "vllm": faster(1), "llamacpp": faster(0.3)},
    "one corner": {"a": faster(lambda load: 1 / 1.06 if load == HEAVIEST else 1.06), "b": faster(1)},
    "crossing": {
        "a": faster(lambda load: 1.3 if load.level == 1 else 0.9), "b": faster(lambda load: 1.2 if load.level == 8 else 1.0),
        "c": faster(lambda load: 1.25 if load.level == 64 else 0.95),
    },
    "equal": {"a": faster(1), "b": faster(1.005), "c": faster(0.8)},
    "alone": {"a": faster(1)},
}  # fmt: skip


def analysis_of(
    truth: Truth, *, noise: float = TINY, restarts: int = 4, seed: int = 0, change: Callable[..., Any] | None = None
) -> Analysis:
    def derived(name: str, load: Load, restart: int, its: CellResult) -> CellResult | None:
        value = its.figures["output_throughput"] or 0.0
        made = replace(its, figures={figure: make(value, load) for figure, make in DERIVED.items()})
        return made if change is None else change(name, load, restart, made)

    return Analysis(run_record(), tuple(rows(truth, noise=noise, restarts=restarts, seed=seed, change=derived)), {}, ())


def context(analysis: Analysis) -> Context:
    return Context(cast("Run", None), analysis)  # findings need no samples


def finding(section: str, analysis: Analysis) -> str:
    return next(each for each in all_sections() if each.id == section).finding(context(analysis))


def places(its: Statement, found: tuple[Row, ...]) -> list[Load]:
    return [load for load in dict.fromkeys(row.load for row in found) if (load.shape_text, load.level_text) in its.regimes]


@pytest.mark.parametrize("figure", [name for name in DERIVED if name != "share_of_ceiling"])
@pytest.mark.parametrize("name", TRUTHS)
def test_who_is_said_to_be_best_in_any_figure_is(name: str, figure: str) -> None:
    truth, analysis = TRUTHS[name], analysis_of(TRUTHS[name])
    (grid,) = figure_grids(analysis.rows, figure)
    assert sum(its.of for its in grid.statements) == len(GRID)
    for its in grid.statements:
        for load in places(its, analysis.rows):
            best = max(truth, key=lambda each: truth[each](load))
            if its.outcome in ("leads", "probably leads", "alone"):
                assert its.leaders == (best,), load
                assert all(truth[best](load) > 1.02 * truth[each](load) for each in truth if each != best)
            elif its.outcome == "equal":
                assert {each for each in truth if truth[each](load) * 1.03 > truth[best](load)} == set(its.leaders)
    heading, first = leader_finding(figure, analysis), grid.statements[0]
    assert first.leaders[0] in heading
    if first.outcome == "leads":
        word = "lowest" if (found := find(figure)) and found[0].better == "lower" else "highest"
        assert heading.startswith(f"{first.leaders[0]} has the {word} ")
        assert (" above " if word == "highest" else " below ") in heading
        assert "ahead" not in heading


@pytest.mark.parametrize("name", TRUTHS)
def test_the_heading_of_the_grid_counts_the_loads_that_each_leads(name: str) -> None:
    truth = TRUTHS[name]
    heading = grid_finding(context(analysis_of(truth)))
    wins: dict[str, int] = {}
    for load in GRID:
        first, *others = sorted(truth, key=lambda each: -truth[each](load))
        if others and truth[first](load) > 1.03 * truth[others[0]](load):
            wins[first] = wins.get(first, 0) + 1
    for leader, count in wins.items():
        assert f"{leader} leads at {f'all {count} loads' if count == len(GRID) else count}" in heading
    equal = len(GRID) - sum(wins.values())
    if equal > 0 and len(truth) > 1:
        assert f"the first are equal at {f'all {equal} loads' if equal == len(GRID) else equal}" in heading.lower()


def ends(text: str) -> tuple[float, float]:
    low, _, high = text.partition("-")
    return float(low.replace(",", "")), float((high or low).replace(",", ""))


@pytest.mark.parametrize("name", TRUTHS)
def test_how_much_output_grows_and_what_longer_prompts_cost_is_right(name: str) -> None:
    truth, analysis = TRUTHS[name], analysis_of(TRUTHS[name])
    found = re.fullmatch(r"From 1 stream to 64 streams, output rises (\S+) times", heading := finding("throughput", analysis))
    assert found is not None, heading
    grown = [its(each) / its(one) for its in truth.values() for one in GRID[::3] for each in GRID if _same_context(one, each, 64)]
    assert ends(found[1]) == pytest.approx((min(grown), max(grown)), rel=0.06), "to two digits"
    heading = finding("context", analysis)
    found = re.fullmatch(
        r"From 1,024 to 16,384 prompt tokens, TTFT p50 rises (\S+) times .*, output falls to (\S+) % \(at 64 streams\)", heading
    )
    assert found is not None, heading
    kept = [100 * its(GRID[8]) / its(GRID[2]) for its in truth.values()]
    assert ends(found[2]) == pytest.approx((min(kept), max(kept)), rel=0.06)
    slower = [its(GRID[0]) / its(GRID[6]) for its in truth.values()]
    assert ends(found[1]) == pytest.approx((min(slower), max(slower)), rel=0.06)


def _same_context(one: Load, each: Load, level: int) -> bool:
    return one.input_tokens == each.input_tokens and each.level == level


def test_the_heading_of_the_frontier_names_the_fastest_for_one_user_and_the_most_for_all() -> None:
    assert finding("frontier", analysis_of(TRUTHS["everywhere"])) == "a is the fastest for one user and gives the most for all"
    assert finding("frontier", analysis_of(TRUTHS["crossing"])) == "Fastest for one user: a; most for all users: c"
    assert finding("frontier", analysis_of(TRUTHS["equal"])) == "Fastest for one user: a and b, equal; most for all users: a and b, equal"
    corner = finding("frontier", analysis_of(TRUTHS["one corner"]))
    assert corner == "Fastest for one user: a; most for all users: it depends on the context"


def test_cost_and_share_of_the_bound() -> None:
    assert finding("cost", analysis_of(TRUTHS["everywhere"])).startswith("a has the lowest")

    def unpriced(_name: str, _load: Load, _restart: int, its: CellResult) -> CellResult:
        return replace(its, figures={name: value for name, value in its.figures.items() if name != "cost_per_token"})

    heading = finding("cost", analysis_of(TRUTHS["everywhere"], change=unpriced))
    assert re.fullmatch(r"At most 5\.\d % of the bound is reached, by a at .*", heading), heading


def test_who_meets_the_slo_is_counted() -> None:
    truth = {"a": {1.0: 1.0, 8.0: 1.0, 32.0: 0.2}, "b": {1.0: 1.0, 8.0: 0.4, 32.0: 0.3}}
    made = probed({n: its.__getitem__ for n, its in truth.items()}, RATES3, slo=SLO, exact=True, restarts=4)
    found = replace(Analysis(run_record(), tuple(made), {}, ()), slo=SLO)
    assert finding("within", found) == "The SLO is met by a at 2 of 3 loads and b at 1 of 3 loads"
    assert grid_finding(context(found)) == "Of 3 loads, a leads at 1, the first are equal at 1 and none meets the SLO at 1"
    every = probed({"a": lambda _: 1.0}, RATES3, slo=SLO, exact=True)
    assert finding("within", replace(found, rows=tuple(every))) == "Every deployment meets the SLO at every load that was tried"


def test_chance_makes_no_claim_in_a_heading() -> None:
    """Of 40 runs of equal deployments in noise of 8 %; nine tests at 3 % each would make one in every fourth."""
    claims: dict[str, int] = {"ttft": 0, "tpot": 0, "cost": 0, "grid": 0}
    for seed in range(40):
        analysis = analysis_of({"a": faster(1), "b": faster(1), "c": faster(1)}, noise=0.08, seed=seed)
        for section in claims:
            claims[section] += bool(re.search(r" has the (?:low|high)est | leads ", finding(section, analysis)))
    assert max(claims.values()) <= 2, claims


@pytest.mark.parametrize("restarts", [1, 2])
def test_with_too_few_restarts_it_is_only_probable(restarts: int) -> None:
    analysis = analysis_of({"a": faster(1.5), "b": faster(1)}, restarts=restarts)
    assert finding("ttft", analysis).startswith("a probably has the lowest TTFT p50 at every load")
    assert grid_finding(context(analysis)) == "a is probably ahead at all 9 loads"
    assert finding("frontier", analysis) == "probably a is the fastest for one user and gives the most for all"


def test_the_words_for_factors() -> None:
    assert times([4.12, 5.2]) == "rises 4.1-5.2 times"
    assert times([0.4, 0.45]) == "falls to 40-45 %"
    assert times([0.8, 1.4]) == "becomes 0.8-1.4 times as large"
    assert times([0.99, 1.01]) == "stays the same within 3 %"


def test_every_section_with_a_figure_has_a_finding_with_its_name_above(synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    page = render_html(synthetic_run, synthetic_analysis)
    found = re.findall(r'<section id="([^"]+)">\s*(<p class="kicker">.*?</p>\s*)?<h2>(.*?)</h2>(.*?)</section>', page, re.DOTALL)
    assert len(found) > 14
    for name, kicker, heading, inside in found:
        if "<figure" in inside or name in ("grid", "cost", "trust", "fairness", "table", "parity"):
            assert kicker, name
            assert len(heading) < 330, name
