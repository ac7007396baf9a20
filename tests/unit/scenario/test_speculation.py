"""`speculation` of a scenario becomes plain deployments: swept, its draft resolved, and refused with file, line and what to write."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from enginebench.domain import Speculation
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.machine.folders import checkout
from enginebench.scenario import Scenario, load_scenario
from enginebench.scenario.plan import plan

REGISTRY = discover()
HEAD = """
name: s
models:
  moe: {random_weights: {layers: 2}}
  small: {random_weights: {architecture: llama, experts: 1, top_k: 1, layers: 1}}
"""
TAIL = "loads: [{input_tokens: 16, output_tokens: 8, requests: 4}]\n"


def load(tmp_path: Path, deployments: str) -> Scenario:
    file = tmp_path / "s.yaml"
    file.write_text(HEAD + "deployments:\n" + textwrap.indent(deployments, "  ") + TAIL)
    return load_scenario(file, REGISTRY)


def asked(scenario: Scenario) -> list[Speculation | None]:
    return [each.speculation for each in scenario.deployments]


def test_every_list_is_an_axis_and_none_is_without(tmp_path: Path) -> None:
    text = "- {engine: llamacpp, model: moe, precision: f16, speculation: [none, {method: ngram, tokens: [2, 4], acceptance: 0.5}, mtp]}\n"
    assert asked(load(tmp_path, text)) == [
        None,
        Speculation("ngram", 2, match=3, acceptance=0.5),
        Speculation("ngram", 4, match=3, acceptance=0.5),
        Speculation("mtp", 4),
    ]


def test_a_draft_is_a_model_of_the_scenario_in_the_engine_s_format(tmp_path: Path) -> None:
    (one,) = asked(load(tmp_path, "- {engine: llamacpp, model: moe, precision: q8_0, speculation: {method: draft, draft: small}}\n"))
    assert one is not None
    assert (one.draft_precision, (one.draft or "").startswith("random:llama?")) == ("q8_0", True)


@pytest.mark.parametrize(
    ("speculation", "said"),
    [
        ("{method: draft}", "s.yaml:10: deployments[0].speculation: needs `draft`, a model that proposes"),
        ("{method: ngram, draft: small}", "`draft` goes with method draft"),
        ("{method: mtp, match: 2}", "`match` goes with method ngram"),
        ("{method: medusa}", "s.yaml:10: deployments[0].speculation.method: cannot be 'medusa'"),
        ("{method: ngram, tokens: 0}", "deployments[0].speculation.tokens: must be at least 1, got 0"),
        ("{method: ngram, acceptance: 1.5}", "deployments[0].speculation.acceptance: must be at most 1.0, got 1.5"),
        ("{method: ngram, luck: 1}", "luck"),
        ("{method: draft, draft: nowhere.gguf}", "checkpoint 'nowhere.gguf' not found"),
        ("often", "must be none, or a mapping such as {method: ngram, tokens: 4}"),
    ],
)
def test_one_sentence_with_the_line(tmp_path: Path, speculation: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        load(tmp_path, f"- engine: llamacpp\n  model: moe\n  precision: f16\n  speculation: {speculation}\n")
    text = str(error.value)
    assert said in text.replace(f"{tmp_path}/", ""), text
    assert "s.yaml" in text


def test_an_attached_server_has_its_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="an attached server was started with a speculation of its own"):
        load(tmp_path, "- {engine: openai, model: m, runtime: attach, url: 'http://127.0.0.1:1', speculation: ngram}\n")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{engine: fake, model: any, precision: none, speculation: ngram}", "fake engine has no speculative decoding here"),
        ("{engine: mlx, model: moe, precision: bf16, speculation: ngram}", "MLX has no speculation by ngram here; it has draft"),
        (
            "{engine: exllamav3, model: moe, precision: f16, speculation: {method: mtp, acceptance: 0.7}}",
            "cannot force the acceptance of mtp",
        ),
    ],
)
def test_what_an_engine_cannot_do_is_skipped_with_a_sentence(tmp_path: Path, entry: str, said: str) -> None:
    planned = plan(load(tmp_path, f"- {entry}\n"), REGISTRY)
    assert len(planned.skipped) == len(planned.cells) == 1
    assert said in next(iter(planned.skipped.values()))


def test_a_warm_load_needs_something_to_share(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("name: s\ndeployments: [{engine: fake, model: any, precision: none}]\nloads: [{prefix_cache: warm}]\n")
    with pytest.raises(UserError, match="nothing is shared that could be sent before"):
        load_scenario(file, REGISTRY)


def test_the_scenarios_of_the_page(tmp_path: Path) -> None:
    """docs/speculation.md: 4 ways of speculation, a cold and a warm cache with and without the option, 0 to 2 adapters."""
    blocks = re.findall(
        r"^```yaml\n(.*?)^```", (checkout() or Path()).joinpath("docs/speculation.md").read_text(), re.MULTILINE | re.DOTALL
    )
    for name in ("german.gguf", "legal.gguf"):
        (tmp_path / name).touch()
    cells = []
    for text in blocks:
        (tmp_path / "s.yaml").write_text(text)
        planned = plan(load_scenario(tmp_path / "s.yaml", REGISTRY), REGISTRY)
        assert not planned.skipped
        cells.append(len(planned.cells))
    assert cells == [4, 4, 3]
