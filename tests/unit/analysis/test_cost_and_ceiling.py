"""A row's share of its ceiling and its costs: by hand, in every output, and not at all where they are not known."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.analysis.analysis import Analysis, Row, analyse
from enginebench.analysis.caveats import contradictions
from enginebench.analysis.rows import fold, result_of
from enginebench.cli import bench
from enginebench.domain import JSON, OpenLoop
from enginebench.errors import UserError
from enginebench.metrics.context import Context, RunContext
from enginebench.metrics.costs import DevicePrice, Prices, price_list
from enginebench.metrics.statistics import Estimate
from enginebench.physics.deployment_limits import MachineLimits
from enginebench.physics.detect import BANDWIDTH, machine_of_run
from enginebench.records.cell import EngineCounters
from enginebench.records.run_folder import Run
from enginebench.report import render_table, to_csv, to_json, to_markdown
from enginebench.report.columns import column, shown, why_missing
from enginebench.report.html import render_html

MODEL = "random:qwen3moe?layers=2&hidden=256&heads=4&kv_heads=2&head_dim=64&experts=2&top_k=2&expert_intermediate=256"
FACTS: dict[str, JSON] = {"gpus": [], "memory_bytes": 64e9, BANDWIDTH: 10e9}
PRICES = Prices(devices={"cpu": DevicePrice(hour=0.5, card=1000, watts=100)})


SHARE, THROUGHPUT = "share_of_ceiling", "output_throughput"


@pytest.fixture
def context(synthetic_run: Run) -> RunContext:
    """The synthetic run as if it had run on a processor whose memory bandwidth is known."""
    return RunContext(replace(synthetic_run.record, machine=FACTS), synthetic_run.launches())


def again(row: Row, run: Run, context: RunContext, **deployment: str) -> Row:
    """The row computed again in another context, as if its deployment were another."""
    records = [replace(cell.record, deployment=replace(cell.record.deployment, **deployment)) for cell in row.cells]
    results = [result_of(record, samples, context) for record in records if (samples := run.samples(record.id)) is not None]
    return fold(results, row.labels, row.name)


def on_cpu(row: Row, run: Run, context: RunContext, **deployment: str) -> Row:
    """As if the model were a small one whose size is known."""
    return again(row, run, context, **{"engine": "llamacpp", "model": "small", "precision": "bf16", "checkpoint": MODEL, **deployment})


def value(row: Row, figure: str) -> float:
    found = row.figures[figure]
    assert found is not None
    return found.value


def test_a_share_is_the_throughput_over_the_ceiling_of_that_load(
    synthetic_analysis: Analysis, synthetic_run: Run, context: RunContext
) -> None:
    row = on_cpu(synthetic_analysis.rows[0], synthetic_run, context)
    machine = machine_of_run(FACTS, None, 2)
    assert machine is not None
    ceiling = MachineLimits(machine).of(row.deployment).ceiling((128.0, 32.0), row.load.concurrency)
    assert value(row, SHARE) == pytest.approx(value(row, THROUGHPUT) / ceiling)
    assert len(row.figures[SHARE].values) == 3, "one for each restart"


def test_every_cell_has_its_cost_and_its_share(synthetic_analysis: Analysis, synthetic_run: Run, context: RunContext) -> None:
    row = on_cpu(synthetic_analysis.rows[0], synthetic_run, replace(context, prices=PRICES))
    for name in (SHARE, "cost_per_token", "throughput_per_money", "bandwidth_per_money", "joules_per_token"):
        assert row.figures[name].values == tuple(cell.figures[name] for cell in row.cells), name
    exported = json.loads(to_json(replace(synthetic_analysis, rows=(row,))))["rows"][0]["cells"][0]["figures"]
    assert exported[SHARE] == row.cells[0].figures[SHARE]
    assert exported["cost_per_token"] == row.cells[0].figures["cost_per_token"]


def test_the_numbers_of_a_request_are_what_the_server_counted(synthetic_analysis: Analysis, synthetic_run: Run) -> None:
    record = synthetic_analysis.rows[0].cells[0].record
    samples = synthetic_run.samples(record.id)
    assert samples is not None
    window = synthetic_analysis.rows[0].cells[0].window
    assert Context(samples, record, window).request_tokens == (128.0, 32.0)
    assert Context(replace(samples, output_tokens=samples.output_tokens * 0 + 20), record).request_tokens == (128.0, 20.0)
    uncounted = replace(samples, input_tokens=samples.input_tokens * 0 - 1, output_tokens=samples.output_tokens * 0 + 20)
    assert Context(uncounted, record).request_tokens == (128.0, 20.0), "else what was asked for"
    opened = replace(record, load=OpenLoop(rate=2.0), counters=EngineCounters())
    assert Context(samples, opened, window).streams is None


def test_a_share_is_missing_where_the_machine_or_the_model_is_not_known(
    synthetic_analysis: Analysis, synthetic_run: Run, context: RunContext
) -> None:
    first = synthetic_analysis.rows[0]
    assert first.figures[SHARE] is None
    assert again(first, synthetic_run, context).figures[SHARE] is None, "a model of no catalogue"
    assert on_cpu(first, synthetic_run, context, runtime="attach").figures[SHARE] is None
    assert on_cpu(first, synthetic_run, RunContext()).figures[SHARE] is None
    nobody = tuple(row for row in synthetic_analysis.rows if row.deployment.model == first.deployment.model)
    assert SHARE not in {its.figure for its in shown(replace(synthetic_analysis, rows=nobody))}
    assert SHARE in {its.figure for its in shown(synthetic_analysis)}, "its other model is in the catalogue, and so are its GPUs"


def test_costs_by_hand(synthetic_analysis: Analysis, synthetic_run: Run, context: RunContext) -> None:
    row = on_cpu(synthetic_analysis.rows[0], synthetic_run, replace(context, prices=PRICES))
    pace = value(row, THROUGHPUT)
    assert value(row, "cost_per_token") == pytest.approx(0.5 / (pace * 3600) * 1e6)
    assert value(row, "throughput_per_money") == pytest.approx(pace / 1000)
    assert value(row, "bandwidth_per_money") == pytest.approx(10 / 1000)
    assert value(row, "joules_per_token") == pytest.approx(100 / pace), "nobody measured, so the stated 100 W"
    low, high = row.figures["cost_per_token"].low, row.figures["cost_per_token"].high
    assert low is not None
    assert high is not None
    assert low <= value(row, "cost_per_token") <= high, "the dearest restart is the slowest"


def test_a_price_of_everything_needs_no_machine(synthetic_analysis: Analysis, synthetic_run: Run) -> None:
    anything = RunContext(prices=Prices(devices={"*": DevicePrice(hour=1.0)}))
    found = again(synthetic_analysis.rows[0], synthetic_run, anything)
    assert value(found, "cost_per_token") == pytest.approx(2 * 1.0 / (value(found, THROUGHPUT) * 3600) * 1e6), "it ran on two devices"


def test_prices_for_something_else_are_said_to_be_that(synthetic_run: Run) -> None:
    found = analyse(synthetic_run, price_list(given=["mi300x.hour=1"]))
    assert "no price applies to the hardware of this run (h100-sxm-80gb): give one for it, or one for * (any device)" in found.caveats
    priced = analyse(synthetic_run, price_list(given=["h100.hour=1"]))
    assert not any("no price" in remark for remark in priced.caveats)


def test_prices_are_known_by_any_name_of_a_device() -> None:
    assert set(price_list(given=["h100.hour=2", "cpu.hour=1", "hour=1"]).devices) == {
        "h100-sxm-80gb", "cpu", "*"
    }  # fmt: skip
    with pytest.raises(UserError, match="unknown device 'h1000'"):
        price_list(given=["h1000.hour=1"])


def test_more_than_is_possible_is_called_a_contradiction(synthetic_analysis: Analysis) -> None:
    row = synthetic_analysis.rows[0]
    fast, sound = (replace(row, figures={**row.figures, SHARE: Estimate(share, (share,))}) for share in (1.3, 0.4))
    (said,) = contradictions([fast, sound])
    assert "reaches 130% of the ceiling with 1 stream" in said
    assert "either the measurement is wrong" in said
    assert said in replace(synthetic_analysis, rows=(fast,)).caveats


@pytest.fixture
def rich(synthetic_analysis: Analysis, synthetic_run: Run, context: RunContext) -> Analysis:
    """The synthetic run whose first row has shares and costs in euros."""
    prices = replace(PRICES, currency="EUR")
    first = on_cpu(synthetic_analysis.rows[0], synthetic_run, replace(context, prices=prices))
    return replace(synthetic_analysis, rows=(first, *synthetic_analysis.rows[1:]), prices=prices)


def test_every_output_shows_them(rich: Analysis, synthetic_run: Run) -> None:
    labels = {its.heading for its in shown(rich)}
    assert {"of ceiling %", "cost EUR/M tok", "speed per price tok/s/EUR", "bandwidth per price GB/s/EUR", "energy J/tok"} <= labels
    table, page = render_table(rich, width=250, color=False), render_html(synthetic_run, rich)
    for text in (table, to_markdown(rich), page):
        assert "of ceiling" in text
        assert "EUR/M tok" in text
    assert "the seconds for which a request keeps memory" in page, "the formula stands beside the name"
    line = next(line for line in csv.DictReader(io.StringIO(to_csv(rich))) if line["figure"] == SHARE)
    assert line["unit"] == "1"
    assert float(line["value"]) == pytest.approx(value(rich.rows[0], SHARE))
    figures = json.loads(to_json(rich))["rows"][0]["figures"]
    assert figures["cost_per_token"]["unit"] == "money/Mtok"
    assert "of ceiling: the model's size, its placement or the machine's limits are unknown" in table


def test_a_missing_figure_says_which_of_the_two_is_not_known(rich: Analysis) -> None:
    row = rich.rows[1]
    assert "limits are unknown" in str(why_missing(row, column(SHARE)))
    assert "price or the power" in str(why_missing(row, column("cost_per_token")))


def test_prices_on_the_command_line(synthetic_run: Run, tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("currency: EUR\ndevices: {'*': {hour: 2.0}}\n", encoding="utf-8")
    found = CliRunner().invoke(bench, ["report", str(synthetic_run.path), "--prices", str(file), "--md"])
    assert "cost EUR/M tok" in found.output
    wrong = CliRunner().invoke(bench, ["report", str(synthetic_run.path), "--price", "h1000.hour=2"])
    assert isinstance(wrong.exception, UserError)
    assert "h100" in str(wrong.exception)


def test_a_run_of_today_has_the_same_figures_without_prices(synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    priced = analyse(synthetic_run, Prices(devices={"*": DevicePrice(hour=1.0)}))
    for with_price, without in zip(priced.rows, synthetic_analysis.rows, strict=True):
        assert {name: with_price.figures[name] for name in without.figures} == dict(without.figures)
    assert priced.sentence == synthetic_analysis.sentence


def test_an_attached_server_is_not_priced_as_the_client_s_own_device(synthetic_analysis: Analysis, synthetic_run: Run) -> None:
    """The client has four H100s; the server is elsewhere, and only a stated `hardware` says what it runs on."""
    gpus: list[JSON] = [{"name": "NVIDIA H100 80GB HBM3"}] * 4
    prices, first = price_list(given=["h100.hour=2", "h200.hour=4"]), synthetic_analysis.rows[0]
    record = replace(synthetic_run.record, machine={"gpus": gpus})
    unknown = RunContext(record, synthetic_run.launches(), prices=prices)
    assert again(first, synthetic_run, unknown, runtime="process").figures["cost_per_token"] is not None
    attached = again(first, synthetic_run, unknown, runtime="attach")
    assert (attached.figures["cost_per_token"], attached.figures[SHARE]) == (None, None)
    stated = replace(unknown, record=replace(record, scenario={**record.scenario, "hardware": "8xh200"}))
    found = again(first, synthetic_run, stated, runtime="attach")
    assert value(found, "cost_per_token") == pytest.approx(8 * 4 / (value(found, THROUGHPUT) * 3600) * 1e6)
