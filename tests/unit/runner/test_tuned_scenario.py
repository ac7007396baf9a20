"""The scenario that follows from a tuning: what was tuned as it was and as it is best, everything else as it was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from enginebench.analysis.tuning import Tuned
from enginebench.engines.registry import discover
from enginebench.metrics.statistics import Change
from enginebench.runner.tuning.scenario import tuned_scenario
from enginebench.scenario import load_scenario

TEXT = """
name: demo
deployments:
  - {engine: fake, model: any, precision: none, label: plain, options: {close: false}}
  - {engine: fake, model: [any, other], precision: none, tp: [1, 2], options: {itl_ms: [2, 4], tokens_per_event: 2}}
  - {engine: fake, model: third, precision: none, label: left}
loads: [{concurrency: 2, input_tokens: 16, output_tokens: 8, requests: 4}]
repeats: 4
quality: {perplexity: {windows: 4, window: 16}, reference: plain}
"""


def written(folder: Path, *verdicts: str) -> dict[str, dict[str, object]]:
    """label -> entry of the scenario made of a tuning with these verdicts for the first deployments."""
    (folder / "s.yaml").write_text(TEXT)
    scenario = load_scenario(folder / "s.yaml", discover())
    gain = Change("higher", falls=False, p=0.029, relative=0.2, low=0.1, high=0.3, coverage=0.97)
    found = [
        Tuned(base, {"itl_ms": 1.0, "tp": 2}, None, None, gain, verdict, 9, 20, 0, 60.0, ())
        for base, verdict in zip(scenario.deployments, verdicts, strict=False)
    ]
    text = tuned_scenario(TEXT, "2026-01-01-demo-tune", found)
    (folder / "tuned.yaml").write_text(text)
    again = load_scenario(folder / "tuned.yaml", discover())
    assert (again.name, again.repeats, again.quality) == ("demo-tuned", 4, scenario.quality)
    return {str(entry.get("label")): entry for entry in yaml.safe_load(text)["deployments"]}


def test_a_tuned_server_stands_beside_its_default(tmp_path: Path) -> None:
    found = written(tmp_path, "better")
    assert list(found) == ["plain", "plain tuned", "None", "left"]
    assert found["plain"]["options"] == {"close": False}
    assert (found["plain tuned"]["options"], found["plain tuned"]["tp"]) == ({"close": False, "itl_ms": 1.0}, 2)
    assert (tmp_path / "tuned.yaml").read_text().startswith("# Written by `bench tune`, 2026-01-01-demo-tune")
    assert "# plain: better (+20.0 % [+10.0 to +30.0], p = 0.029)" in (tmp_path / "tuned.yaml").read_text()


@pytest.mark.parametrize("verdict", ["equal", "worse", "not finished"])
def test_what_is_no_better_is_not_measured_again(tmp_path: Path, verdict: str) -> None:
    assert list(written(tmp_path, verdict)) == ["plain", "None", "left"]


def test_an_entry_with_lists_becomes_one_for_each_of_its_deployments(tmp_path: Path) -> None:
    found = written(tmp_path, "equal", *["better"] * 8)
    assert len(found) == 1 + 2 * 8 + 1
    values = [entry for label, entry in found.items() if label.endswith("default")]
    assert {(its["model"], its["tp"], its["options"]["itl_ms"]) for its in values} == {
        (model, tp, itl) for model in ("any", "other") for tp in (1, 2) for itl in (2, 4)
    }
