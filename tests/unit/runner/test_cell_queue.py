"""What a run lists while a search goes on, and what a report makes of loads that are no closed loops; engines play no part."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import plotly.graph_objects as go
import pytest
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.domain import Cell, ClosedLoop, Deployment, Load, OpenLoop, Sample, Search, TraceReplay, plain_object
from enginebench.domain.search import FOLLOWERS
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.metrics.slo import Slo
from enginebench.records.cell import CellRecord, Delivery
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.report import render_table, to_csv, to_json, to_markdown
from enginebench.report.blocks import Plots
from enginebench.report.html import render_html
from enginebench.report.section import Context
from enginebench.report.sections import all_sections
from enginebench.report.sections.highest_load import search_groups
from enginebench.runner.cell_queue import CellQueue
from enginebench.runner.folder import open_run_for
from enginebench.runner.instruments import Instruments
from enginebench.runner.sweep import Sweep
from enginebench.scenario import Scenario, load_at
from enginebench.scenario.plan import Plan

DEPLOYMENT = Deployment("fake", "any", "none", "none")
SLO = Slo(ttft_s=0.1, share=0.9)
MS = 1_000_000


def samples(load: Load, ttft_ms: float, *, counted: bool = True) -> Samples:
    """40 requests, 50 ms apart, each with a first token after ttft_ms and four more 10 ms apart; counted: whether tokens were."""
    made = []
    for i in range(40):
        sent = (1_000 + 50 * i) * MS
        first = sent + int(ttft_ms * MS)
        sample = Sample(i, 16, 5, due_ns=sent - (i % 5) * MS, sent_ns=sent, headers_ns=sent + MS, end_ns=first + 41 * MS, status_code=200)
        sample.event_ns.extend(first + 10 * k * MS for k in range(5))
        sample.event_tokens.extend([1 if counted else -1] * 5)
        sample.event_chars.extend([4] * 5)
        sample.input_tokens, sample.output_tokens, sample.cached_tokens = 16, 5 if counted else None, 0
        made.append(sample)
    return Samples.collect(made)


def measured(run: Run, cell: Cell, ttft_ms: float, *, counted: bool = True) -> tuple[CellRecord, Samples]:
    """A stored cell."""
    record = replace(CellRecord.of(cell, "ok"), delivery=Delivery((0, 1)), identity="proven")
    found = samples(cell.load, ttft_ms, counted=counted)
    run.add_cell(record, found)
    return record, found


def planned(*fixed: Load, search: Search | Sequence[Search] = (), slo: Slo = SLO, repeats: int = 1) -> Plan:
    searches = (search,) if isinstance(search, Search) else tuple(search)
    each = [Cell(DEPLOYMENT, load, i) for i in range(repeats) for load in (*fixed, *(s.base for s in searches))]
    firsts = {Cell(DEPLOYMENT, s.base, i).id: s for i in range(repeats) for s in searches}
    return Plan(Scenario("demo", (DEPLOYMENT,), (fixed,), (searches,), slo, repeats), tuple(each), searches=firsts)


def over_rate(start: float = 1.0, stop: float = 64.0, **others: int) -> Search:
    base = OpenLoop(**{"concurrency": 0, "rate": float(start), "requests": 64, "warmup_requests": 4} | others)
    return Search(base, "rate", float(start), float(stop), 0.1)


@pytest.fixture
def begin(tmp_path: Path) -> Callable[[Plan], Run]:
    def open_new(plan: Plan) -> Run:
        with open_run_for(plan, tmp_path, {}, fresh=True, retry_failed=False, say=print) as run:
            return run

    return open_new


def go_through(agenda: CellQueue, run: Run, limit: float, *, counted: bool = True) -> list[float]:
    """Measure what is on the agenda, with a server that is quick enough up to `limit`; the levels in order."""
    levels = []
    while agenda.cells:
        cell = agenda.cells[0]
        levels.append(cell.load.level)
        agenda.end(*measured(run, cell, 50 if cell.load.level <= limit else 200, counted=counted))
    return levels


def test_the_run_always_lists_what_is_missing(begin: Callable[[Plan], Run]) -> None:
    plan = planned(ClosedLoop(concurrency=4), search=over_rate())
    run = begin(plan)
    assert run.record.cells == tuple(cell.id for cell in plan.cells)
    agenda = CellQueue(plan, run, plan.cells)
    missing = []
    while agenda.cells:
        missing.append(sum(not run.has(cell) for cell in run.record.cells))
        cell = agenda.cells[0]
        agenda.end(*measured(run, cell, 50 if cell.load.level <= 5 else 200))
    assert missing[0] == 2
    assert set(missing[1:]) == {1}
    again = Run(run.path)
    assert again.finished
    assert again.record.searches == plan.searches
    (probes,) = again.record.probes.values()
    assert list(probes.values()) == sorted(probes.values()) == [1, 2, 4, 4.76, 5.19, 5.66, 8]
    assert [cell.load.level for cell in again.cells()] == [4, 1, 2, 4, 4.76, 5.19, 5.66, 8]


def test_a_search_goes_on_where_it_was(begin: Callable[[Plan], Run]) -> None:
    plan = planned(search=over_rate())
    run = begin(plan)
    whole = go_through(CellQueue(plan, run, plan.cells), run, 5)
    for done in range(len(whole)):
        cut = begin(plan)
        first = CellQueue(plan, cut, plan.cells)
        for _ in range(done):
            cell = first.cells[0]
            first.end(*measured(cut, cell, 50 if cell.load.level <= 5 else 200))
        resumed = Run(cut.path)
        assert go_through(CellQueue(plan, resumed, plan.cells), resumed, 5) == whole[done:]
        assert resumed.record.cells == run.record.cells


def test_a_probe_that_the_sweep_measures_too_is_measured_once(begin: Callable[[Plan], Run]) -> None:
    search = over_rate()
    plan = planned(load_at(search, 4), load_at(search, 2), search=search)
    run = begin(plan)
    levels = go_through(CellQueue(plan, run, plan.cells), run, 5)
    assert sorted(levels) == [1, 2, 4, 4.76, 5.19, 5.66, 8]
    assert len(set(run.record.cells)) == len(run.record.cells)


@pytest.mark.parametrize("limit", [1.5, 3, 5, 9, 100])
def test_searches_that_overlap_each_find_their_answer(begin: Callable[[Plan], Run], limit: float) -> None:
    wide, narrow = replace(over_rate(1, 8), precision=1.0), over_rate(4, 16)
    plan = planned(search=[wide, narrow])
    run = begin(plan)
    levels = go_through(CellQueue(plan, run, plan.cells), run, limit)
    assert len(levels) == len(set(levels)), "a probe that both need is measured once"
    alone: list[list[float]] = []
    for search in (wide, narrow):
        own = begin(planned(search=search))
        go_through(CellQueue(planned(search=search), own, planned(search=search).cells), own, limit)
        alone += [list(probes.values()) for probes in own.record.probes.values()]
    assert [list(probes.values()) for probes in run.record.probes.values()] == alone
    assert Run(run.path).finished


def test_a_run_that_goes_on_takes_the_limits_that_the_scenario_has_now(tmp_path: Path) -> None:
    stored = {}
    for slo in (SLO, Slo(e2e_s=3)):
        with open_run_for(planned(ClosedLoop(), slo=slo), tmp_path, {}, fresh=False, retry_failed=False, say=print) as run:
            stored[run.path] = Run(run.path).record.slo
    assert list(stored.values()) == [plain_object(Slo(e2e_s=3))]


def test_an_error_with_advice_is_stored_as_one_line(begin: Callable[[Plan], Run], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise UserError("147 are wanted", key="requests", advice="ask for fewer")

    monkeypatch.setattr("enginebench.runner.sweep.open_engine", refuse)
    plan = planned(ClosedLoop())
    run = begin(plan)
    with Instruments() as instruments:
        Sweep(plan, run, discover(), lambda _: (), lambda _: None, instruments).go()
    (record,) = run.cells()
    assert (record.status, record.reason) == ("failed", "requests: 147 are wanted; ask for fewer")
    assert [launch.ended for launch in run.launches().values()] == [record.reason]


# -- reports -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(begin: Callable[[Plan], Run]) -> tuple[Run, Analysis]:
    """Closed and open loops, a trace and a search in one run."""
    opened = [OpenLoop(rate=rate, duration_s=2, requests=0) for rate in (2, 8)]
    traced = TraceReplay(trace="azure.csv", requests=0, time_scale=0.5)
    plan = planned(ClosedLoop(concurrency=1), ClosedLoop(concurrency=4), *opened, traced, search=over_rate())
    run = begin(plan)
    go_through(CellQueue(plan, run, plan.cells), run, 5)
    return run, analyse(run)


def test_loads_of_different_kinds_never_share_a_plot(mixed: tuple[Run, Analysis]) -> None:
    run, analysis = mixed
    context = Context(run, analysis)
    blocks = {section.id: list(section.blocks(context)) for section in all_sections() if section.applies(analysis)}
    made = {id_: block for id_, its in blocks.items() for block in its if isinstance(block, Plots)}
    axes = [panel.layout["xaxis"]["title"]["text"] for panel in made["ttft"].panels]
    assert list(dict.fromkeys(axes)) == ["streams (concurrency)", "requests/s offered", "replay speed (1: as recorded)"]
    assert len(axes) == 6, "the median and a percentile of each"
    assert [trace["x"] for trace in made["ttft"].panels[0].traces if trace.get("name")] == [[1, 4]]
    assert "goodput" in made
    assert made["distribution-ttft"].choices[:2] == ("1 stream", "4 streams")
    assert "2 req/s" in made["distribution-ttft"].choices
    for panel in (panel for block in made.values() for panel in block.panels):
        go.Figure({"data": list(panel.traces), "layout": dict(panel.layout)})


def test_every_output_names_the_load(mixed: tuple[Run, Analysis]) -> None:
    run, analysis = mixed
    for text in (render_table(analysis, width=160), to_markdown(analysis), to_csv(analysis), render_html(run, analysis)):
        for load in ("1 stream", "4 streams", "2 req/s", "azure.csv x2"):
            assert load in text
    table = render_table(analysis, width=160)
    assert "goodput" in table
    assert "within SLO" in table
    assert "TTFT sched." in table, "requests were sent up to 4 ms late"
    head = next(line for line in table.splitlines() if line.startswith("deployment"))
    assert " load " in head
    assert "streams" not in head


def test_the_answer_of_a_search_is_said_everywhere(mixed: tuple[Run, Analysis]) -> None:
    run, analysis = mixed
    ((found,),) = (group.results for group in search_groups(analysis))
    its = found.capacity
    assert its.holds == 4.76
    assert its.level is not None
    assert 4.76 <= its.level < 5.19, "between the level that met the SLO and the one that did not"
    assert found.endings == ("found",)
    assert its.goodput is not None
    for said in (render_table(analysis, width=160), to_markdown(analysis).replace("\\", "")):
        text = " ".join(said.split())
        assert f"fake: {its.text} (measured to hold 4.76 req/s" in text
        assert "TTFT 100 ms for 90 % of requests" in text
        assert f"fake holds {its.text}" in text, "the headline"
        assert "5.19 req/s within" not in text
        assert "8 req/s within" not in text, "a level that failed is not named"
    page = render_html(run, analysis)
    assert 'id="highest-load"' in page
    assert its.text in page
    document = json.loads(to_json(analysis))
    assert document["slo"] == plain_object(SLO)
    assert document["findings"][0]["searches"] == [{"over": "rate", "start": 1.0, "stop": 64.0, "precision": 0.1, "follows": []}]


def answered(begin: Callable[[Plan], Run], plan: Plan, limit: float = 5, *, counted: bool = True) -> tuple[Analysis, list[float]]:
    run = begin(plan)
    cells = [[cell for cell in plan.cells if cell.repeat == i] for i in range(plan.scenario.repeats)]
    levels = [level for its in cells for level in go_through(CellQueue(plan, run, its), run, limit, counted=counted)]
    return analyse(Run(run.path)), levels


def test_searches_of_one_load_give_one_result(begin: Callable[[Plan], Run]) -> None:
    """How much is sent and where a search begins do not change the limit; a limit on what is in flight and the content do."""
    searches = [over_rate(), over_rate(requests=90), over_rate(warmup_requests=9), over_rate(concurrency=8), over_rate(2), over_rate(2, 32)]
    searches[-1] = replace(searches[-1], base=replace(searches[-1].base, seed=1))
    analysis, _ = answered(begin, planned(search=searches, repeats=2))
    groups = search_groups(analysis)
    assert len(groups) == len({group.title for group in groups}) == 3
    assert [len(result.endings) for group in groups for result in group.results] == [8, 2, 2]
    assert all(result.capacity.restarts == 2 for group in groups for result in group.results)
    assert any(group.title.endswith("concurrency 8") for group in groups)


def test_requests_that_follow_the_level_do_not_tell_repeats_apart(begin: Callable[[Plan], Run]) -> None:
    search = replace(over_rate(), follows=FOLLOWERS)
    plan = planned(search=replace(search, base=load_at(search, 1)), repeats=2)
    run = begin(plan)
    for i in range(2):
        go_through(CellQueue(plan, run, [cell for cell in plan.cells if cell.repeat == i]), run, 5)
    run.drop(plan.cells[1].id)  # its first probe; the second repeat is known by another level
    ((found,),) = (group.results for group in search_groups(analyse(Run(run.path))))
    assert found.endings == ("found", "unfinished")


def test_where_nobody_counts_tokens_a_limit_on_them_is_neither_kept_nor_missed(begin: Callable[[Plan], Run]) -> None:
    plan = planned(search=over_rate(), slo=Slo(tpot_s=1))
    analysis, levels = answered(begin, plan, counted=False)
    ((found,),) = (group.results for group in search_groups(analysis))
    assert levels == [1], "there is no use in going on"
    assert (found.endings, found.capacity.level) == (("unknown",), None)
    assert "unknown whether the SLO was met; tokens were not counted" in found.sentence
    assert "no level met the SLO" not in found.sentence
    kept, levels = answered(begin, plan)
    assert levels[-1] == 64
    assert search_groups(kept)[0].results[0].endings == ("top",)


@pytest.mark.parametrize(("share", "doubted"), [(0.9, False), (0.92, False), (0.95, True), (1.0, False)])
def test_an_answer_from_too_few_requests_says_so(begin: Callable[[Plan], Run], share: float, doubted: bool) -> None:
    analysis, _ = answered(begin, planned(search=over_rate(), slo=Slo(ttft_s=0.1, share=share)))
    ((found,),) = (group.results for group in search_groups(analysis))
    assert any("a share of 95 % needs 60" in doubt for doubt in found.capacity.doubts) == doubted
    assert any("was judged by" in doubt for doubt in found.capacity.doubts) == doubted


def test_a_page_shows_where_it_was_measured(mixed: tuple[Run, Analysis]) -> None:
    run, analysis = mixed
    page = render_html(run, analysis)
    window = analysis.rows[0].cells[0].window
    assert window is not None
    assert window.state in page
    assert "server usage" in page
    document = json.loads(to_json(analysis))
    assert document["rows"][0]["cells"][0]["window"]["state"] == window.state
