"""`quality` from the scenario to the ranking, against a real server on a real socket: a faster deployment whose quality is broken loses."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import pytest
from enginebench.analysis.analysis import analyse
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.records.run_folder import open_run
from enginebench.report.export import to_json
from enginebench.report.table import render_table

from .bench import Bench

SCENARIO = """
name: judged
models: {{m: {{checkpoint: weights}}}}
deployments:
  - {{engine: fake, model: m, precision: none, label: exact, options: {{itl_ms: 4}}}}
  - {{engine: fake, model: m, precision: none, label: cheap, options: {{itl_ms: 1, loss: {loss}}}}}
loads: [{{concurrency: 2, input_tokens: 16, output_tokens: 8, requests: 8}}]
quality:
  perplexity: {{windows: 4, window: 32, max_increase: 2%}}
  reference: exact
  divergence: {{top: 4, places: 4, prompts: 2, output_tokens: 8}}
  under_load: true
"""


def run(bench: Bench, loss: str, code: int = 0) -> Path:
    write_hf_folder(RandomMoE(layers=1, hidden=32, heads=2, kv_heads=1, head_dim=32, experts=2, top_k=1), "f16", bench.folder / "weights")
    (bench.folder / "s.yaml").write_text(SCENARIO.format(loss=loss))
    done = bench("run", "s.yaml", "--no-html")
    assert done.returncode == code, done.stderr + done.stdout
    return bench.run_folder()


def of_fake(ids: tuple[int, ...], first: int) -> float:
    """Nats of a window by the fake engine's own rule."""
    return sum(2 + zlib.crc32(b"%d %d" % pair) % 4000 / 1000 for pair in zip(ids[first - 1 :], ids[first:], strict=False))


def test_a_faster_deployment_that_breaks_the_rule_is_not_ranked(bench: Bench) -> None:
    stored = open_run(run(bench, "0.05"))
    found = analyse(stored)
    exact, cheap = found.quality
    assert (exact.verdict, cheap.verdict, cheap.reference) == ("reference", "breaks", "exact")
    assert cheap.increase is not None
    assert cheap.increase.value == pytest.approx(math.expm1(0.05), rel=1e-4)
    assert cheap.divergence is not None
    assert cheap.divergence.kl.value > 0
    assert {row.name for row in found.rows if row.excluded} == {"cheap"}
    assert "cheap leads" not in found.sentence
    table = render_table(found, width=150, color=False)
    assert "quality: cheap is not ranked: perplexity" in table
    assert "perplexity" in table.splitlines()[2]
    told = json.loads(to_json(found))["quality"]
    assert [each["verdict"] for each in told] == ["reference", "breaks"]
    records = [launch.quality for launch in stored.launches().values() if launch.quality is not None]
    assert all(record.under_load is not None and "1 streams of" in record.under_load.beside for record in records)
    assert {len(record.continuations) for record in records} == {2}


def test_the_perplexity_is_that_of_the_engines_own_rule(bench: Bench) -> None:
    from enginebench.checkpoints import read_vocabulary
    from enginebench.domain.quality import PerplexityCheck
    from enginebench.runner.quality.windows import windows_of

    stored = open_run(run(bench, "0.001"))
    windows = windows_of(PerplexityCheck(windows=4, window=32), read_vocabulary(bench.folder / "weights"), bench.folder)
    expected = [of_fake(ids, windows.first) for ids in windows.ids]
    found = next(its.quality for its in stored.launches().values() if its.deployment.label == "exact")
    assert found is not None
    assert found.perplexity is not None
    assert found.perplexity.rule == windows.rule
    assert found.perplexity.nats == pytest.approx(expected, abs=1e-4)
    exact, cheap = analyse(stored).quality
    assert cheap.verdict == "within"
    assert exact.perplexity is not None
    assert exact.perplexity.value == pytest.approx(math.exp(sum(expected) / (4 * 15)), rel=1e-6)


def test_a_deployment_that_returns_no_numbers_is_not_ranked(bench: Bench) -> None:
    found = analyse(open_run(run(bench, "-1")))
    assert found.quality[1].why == "60 scored tokens have a log-probability that is no finite number, or above 0"
    assert {row.name for row in found.rows if row.excluded} == {"cheap"}


def test_a_finished_run_catches_up_on_the_quality_that_is_asked_for_afterwards(bench: Bench) -> None:
    """Without measuring any cell again; then on what the scenario asks for in addition; then it is complete."""
    text = SCENARIO.format(loss="0.05").replace("precision: none,", "precision: none, max_context: 64,")
    without, _, quality = text.partition("quality:")
    write_hf_folder(RandomMoE(layers=1, hidden=32, heads=2, kv_heads=1, head_dim=32, experts=2, top_k=1), "f16", bench.folder / "weights")
    (bench.folder / "s.yaml").write_text(without)
    assert bench("run", "s.yaml", "--no-html").returncode == 0
    cells = {file: file.read_bytes() for file in (bench.run_folder() / "cells").iterdir()}
    assert analyse(open_run(bench.run_folder())).quality == ()
    (bench.folder / "s.yaml").write_text(
        without + "quality:\n  perplexity: {windows: 4, window: 32, max_increase: 2%}\n  reference: exact\n"
    )
    done = bench("run", "s.yaml", "--no-html")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 cells are stored; the quality is not all measured" in done.stderr
    found = analyse(open_run(bench.run_folder()))
    assert {file: file.read_bytes() for file in (bench.run_folder() / "cells").iterdir()} == cells
    assert [its.verdict for its in found.quality] == ["reference", "breaks"]
    assert all(row.figures["perplexity"] is not None for row in found.rows)
    assert found.quality[1].divergence is None
    (bench.folder / "s.yaml").write_text(without + "quality:" + quality)
    assert bench("run", "s.yaml", "--no-html").returncode == 0
    stored = open_run(bench.run_folder())
    assert analyse(stored).quality[1].divergence is not None
    assert len(stored.launches()) == 6
    assert bench("run", "s.yaml", "--no-html").returncode == 0
    assert len(list((bench.folder / "results").iterdir())) == 2, "a complete run is not resumed"
