"""The `quality` of a scenario: what it becomes, and one sentence at the line of what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from enginebench.domain.quality import DivergenceCheck, PerplexityCheck, QualityCheck, TaskCheck
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.scenario import Scenario, load_scenario
from enginebench.scenario.plan import plan

TEXT = """
name: demo
deployments:
  - {engine: fake, model: any, precision: none, label: base}
loads: [{input_tokens: 10, output_tokens: 10}]
"""


def load(tmp_path: Path, quality: str = "") -> Scenario:
    (tmp_path / "s.yaml").write_text(TEXT + quality)
    return load_scenario(tmp_path / "s.yaml", discover())


def test_it_is_off_by_default_and_then_changes_nothing(tmp_path: Path) -> None:
    assert load(tmp_path).quality is None
    assert load(tmp_path).deployments[0].max_context == 20


def test_the_rule_alone_is_enough_and_the_context_holds_a_window_and_one_token(tmp_path: Path) -> None:
    found = load(tmp_path, "quality: {perplexity: {max_increase: 2%}}")
    assert found.quality == QualityCheck(PerplexityCheck(max_increase=0.02))
    assert (found.quality.perplexity.first, found.quality.perplexity.last, found.quality.perplexity.step) == (257, 255, 512)
    assert found.deployments[0].max_context == 513
    assert plan(found, discover()).cells[0].deployment == found.deployments[0]


def test_everything_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("text")
    found = load(
        tmp_path,
        """
quality:
  perplexity: {text: t.txt, windows: 4, window: 64, stride: 32, scored: 32, max_increase: 0.01}
  reference: base
  divergence: {top: 5, places: 8, prompts: 2, output_tokens: 16}
  tasks: [arc_easy, {name: mine, limit: 10, folder: tasks}]
  under_load: true
""",
    ).quality
    assert found == QualityCheck(
        PerplexityCheck("t.txt", 4, 64, 32, 32, 0.01), "base", DivergenceCheck(5, 8, 2, 16),
        (TaskCheck("arc_easy"), TaskCheck("mine", 10, folder="tasks")), under_load=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("quality: {perplexity: {max_increase: much}}", "s.yaml:6: quality.perplexity.max_increase: 'much' is not a share"),
        ("quality: {perplexity: {max_increase: -2%}}", "write e.g. 2% or 0.02"),
        ("quality: {perplexity: {window: 64, scored: 64}}", "quality.perplexity.scored: 64 tokens cannot be scored in a window of 64"),
        ("quality: {perplexity: {window: 64, stride: 65}}", "quality.perplexity.stride: a stride of 65 leaves out tokens"),
        ("quality: {perplexity: {text: gone.txt}}", "quality.perplexity.text: there is no file 'gone.txt'"),
        ("quality: {reference: bas}", "quality.reference: no deployment has the label 'bas' did you mean 'base'?"),
        ("quality: {perplexity: {windows: 1, max_increase: 2%}}", "quality.perplexity.windows: 1 window has no interval"),
        ("quality: {perplexty: {}}", "quality.perplexty: is not a known key"),
        ("quality: {tasks: [{limit: 3}]}", "quality.tasks[0].name: is missing"),
        ("quality: yes", "quality: must be a mapping"),
    ],
)
def test_what_is_wrong_is_said_at_its_line(tmp_path: Path, written: str, expected: str) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, written)
    assert expected in " ".join(str(error.value).split())
