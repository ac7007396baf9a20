"""One file adds a metric to every output; names, units and lists of withheld metrics follow from the declarations."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.analysis.rows import result_of
from enginebench.cli import bench
from enginebench.metrics import figures, registry
from enginebench.metrics.context import Context, Floats
from enginebench.metrics.registry import DISPLAY_UNITS, Need, Trait, find, metric, metric_of, metrics, names_with, unit_of
from enginebench.metrics.slo import LIMITS
from enginebench.records.cell import Delivery
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples
from enginebench.report import render_table, to_csv, to_json, to_markdown
from enginebench.report.html import render_html

ROOT = Path(__file__).parents[3]
SECOND_TOKEN = '''
"""How long the second token takes."""

import numpy as np

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.registry import Need, Shown, Trait, metric


@metric(
    "time to second token", header="second token", scope="request", unit="s", better="lower",
    traits={Trait.LATENCY}, needs=(Need.EVENTS,), shown=(Shown(),),
)
def ttst(c: Context) -> Floats:
    """Time to second token: arrival of the second output event - sent; undefined below 2 events."""
    s = c.samples
    out = np.full(len(s), np.nan)
    rows = np.flatnonzero(s.ok & s.inside & (s.events > 1))
    out[rows] = (s.event_ns[s.offsets[:-1][rows] + 1] - s.sent_ns[rows]) / 1e9
    return out
'''


@pytest.fixture
def second_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file with a new metric beside the others; nothing else is changed."""
    (tmp_path / "second_token.py").write_text(SECOND_TOKEN, encoding="utf-8")
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(tmp_path)])
    monkeypatch.setattr(registry, "_declared", dict(registry._declared))
    registry.discover.cache_clear()
    yield
    sys.modules.pop(f"{figures.__name__}.second_token", None)
    registry.discover.cache_clear()


def generated_metrics_page() -> str:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.page("metrics.md"))


@pytest.mark.usefixtures("second_token")
def test_a_new_metric_is_one_file(synthetic_run: Run) -> None:
    analysis = analyse(synthetic_run)
    found = analysis.rows[0].figures["ttst_p50"]
    first = analysis.rows[0].figures["ttft_p50"]
    assert found
    assert first
    assert found.value > first.value
    for text in (render_table(analysis, width=250, color=False), to_markdown(analysis), render_html(synthetic_run, analysis)):
        assert "second token p50" in text
    row = json.loads(to_json(analysis))["rows"][0]
    assert row["figures"]["ttst_p50"]["unit"] == "s"
    assert row["cells"][0]["figures"]["ttst_p50"] > 0
    assert {"ttst_p50", "ttst_p90"} <= {line["figure"] for line in csv.DictReader(io.StringIO(to_csv(analysis)))}
    page = render_html(synthetic_run, analysis)
    assert "<dt>time to second token</dt><dd>Time to second token: arrival of the second output event" in page
    assert "| time to second token | `ttst` | s | request | lower | Time to second token: arrival of" in generated_metrics_page()


@pytest.mark.usefixtures("second_token")
def test_a_new_metric_can_be_compared_and_limited(synthetic_run: Run) -> None:
    path = str(synthetic_run.path)
    compared = CliRunner().invoke(bench, ["compare", path, path, "--all", "--fail-if", "ttst.p50 > +5%"])
    assert "second token p50 ms" in compared.output
    assert "ttst.p50 > +5%: " in compared.output


@pytest.mark.usefixtures("second_token")
def test_a_new_latency_is_withheld_with_the_others(synthetic_run: Run, synthetic_analysis: Analysis) -> None:
    record = synthetic_analysis.rows[0].cells[0].record
    samples = synthetic_run.samples(record.id)
    assert samples is not None
    batch = result_of(replace(record, deployment=replace(record.deployment, runtime="in-process")), samples)
    queued = result_of(replace(record, delivery=Delivery(saturated="the queue grew")), samples)
    for cell in (batch, queued):
        assert cell.withheld["ttst"] == cell.withheld["ttft"]
        assert cell.figures["ttst_p50"] is None
        assert cell.figures["output_throughput"] is not None
    assert result_of(record, samples).figures["ttst_p50"] is not None


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="'ttft' is declared twice"):

        @metric("mine", scope="cell", unit="s", better=None)
        def ttft(c: Context) -> Floats:
            """Another TTFT."""
            return registry.one(len(c.samples))


def test_a_limit_of_the_slo_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="does not have the limit 'pause'"):

        @metric("pause", scope="cell", unit="s", better="lower", slo_limit="pause")
        def pause(c: Context) -> Floats:
            """Not a limit."""
            return registry.one(0)


def test_every_metric_is_declared_in_full() -> None:
    for name, its in metrics().items():
        assert its.name == name
        assert len(its.formula) > 20, name
        assert not its.definition.endswith(" "), name
        assert its.unit in {*DISPLAY_UNITS, "tok", "per token", "tok/s", "req/s", "W", "J/tok"}, name
        assert (its.scope == "cost") == (Need.PRICES in its.needs), name
    assert [its.slo_limit for its in metrics().values() if its.slo_limit] == list(LIMITS)


def test_scopes_and_definitions_give_the_order() -> None:
    names = list(metrics())
    assert names[:3] == ["ttft", "ttft_due", "ttfa"]
    assert names.index("itl") < names.index("output_throughput") < names.index("goodput") < names.index("mean_power")
    assert names[-1] == "joules_per_token"


@pytest.mark.parametrize(
    ("figure", "name", "unit"),
    [
        ("ttft_p50", "ttft", "s"),
        ("itl_p99", "itl", "s"),
        ("goodput", "goodput", "req/s"),
        ("cost_per_token", "cost_per_token", "money/Mtok"),
    ],
)
def test_a_figure_belongs_to_a_metric(figure: str, name: str, unit: str) -> None:
    found = metric_of(figure)
    assert found is not None
    assert (found.name, unit_of(figure)) == (name, unit)


@pytest.mark.parametrize("figure", ["ttft", "ttft_p95", "goodput_p50", "nothing", ""])
def test_what_is_no_figure_belongs_to_none(figure: str) -> None:
    assert find(figure) is None
    assert unit_of(figure) == ""


def test_metrics_are_withheld_by_trait() -> None:
    assert set(names_with(Trait.PACE)) == {"tpot", "itl", "longest_gap", "user_throughput"}
    assert set(names_with(Trait.LATENCY)) == {"ttft", "ttft_due", "ttfa", "e2e", "e2e_due", "goodput", "slo_attainment"}
    assert set(names_with(Trait.LATENCY, Trait.ONLINE)) == {
        *names_with(Trait.LATENCY), "itl", "longest_gap", "reader_wait", "schedule_delay"
    }  # fmt: skip
    assert set(names_with(Trait.DEVICE)) == {"mean_power", "energy_per_token", "gpu_memory", "joules_per_token"}


def test_a_metric_is_computed_once_for_a_context() -> None:
    context = Context(Samples.collect([]))
    tpot = metrics()["tpot"]
    assert tpot(context) is tpot(context)
