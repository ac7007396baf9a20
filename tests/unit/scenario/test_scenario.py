"""A scenario file is either expanded exactly, or refused with one message that names file, line, key and what to write instead."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.scenario import Scenario, load_scenario
from enginebench.scenario.plan import plan
from hypothesis import given, settings
from hypothesis import strategies as st

REGISTRY = discover()

GOOD = """
name: demo
models:
  moe: {random_weights: {layers: 2}}
deployments:
  - engine: llamacpp
    model: moe
    precision: [f16, q8_0]
    options: {threads: [1, 2], extra: ["-sm", "none"]}
  - {engine: fake, model: any, precision: none}
loads:
  - concurrency: [1, 4]
    input_tokens: 100
    output_tokens: 20
repeats: 2
"""


def load(tmp_path: Path, text: str) -> Scenario:
    file = tmp_path / "s.yaml"
    file.write_text(textwrap.dedent(text))
    return load_scenario(file, REGISTRY)


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(UserError) as error:
        load(tmp_path, text)
    return str(error.value).replace(f"{tmp_path}/", "")


def test_every_list_is_an_axis(tmp_path: Path) -> None:
    scenario = load(tmp_path, GOOD)
    assert [(d.engine, d.precision, d.options) for d in scenario.deployments] == [
        ("llamacpp", "f16", {"threads": 1, "extra": ["-sm", "none"]}),
        ("llamacpp", "f16", {"threads": 2, "extra": ["-sm", "none"]}),
        ("llamacpp", "q8_0", {"threads": 1, "extra": ["-sm", "none"]}),
        ("llamacpp", "q8_0", {"threads": 2, "extra": ["-sm", "none"]}),
        ("fake", "none", {}),
    ]
    assert [(load.concurrency, load.requests, load.warmup_requests) for load in scenario.loads[0]] == [(1, 16, 1), (4, 16, 4)]
    assert {(d.max_context, d.max_concurrency) for d in scenario.deployments} == {(120, 4)}


def test_repeats_interleave_the_deployments_in_alternating_order(tmp_path: Path) -> None:
    found = plan(load(tmp_path, GOOD), REGISTRY)
    order = [(deployment.engine, deployment.precision, cells[0].repeat, len(cells)) for deployment, cells in found.launches()]
    assert [repeat for *_, repeat, _ in order] == [0] * 5 + [1] * 5
    assert [d[:2] for d in order[:5]] == [d[:2] for d in order[5:]][::-1]
    assert all(cells == 2 for *_, cells in order)
    assert len({cell.id for cell in found.cells}) == len(found.cells) == 20


def test_only_selects_by_value(tmp_path: Path) -> None:
    found = plan(load(tmp_path, GOOD), REGISTRY)
    assert len(found.only({"engine": frozenset({"llamacpp"}), "concurrency": frozenset({"4"})}).cells) == 8
    assert not found.only({"engine": frozenset({"vllm"})}).cells


def test_a_load_can_be_meant_for_some_deployments_only(tmp_path: Path) -> None:
    scenario = load(
        tmp_path,
        GOOD.replace("loads:", "loads:\n  - {only: {engine: fake}, input_tokens: 900}").replace(
            "  - conc", "  - only: {engine: [llamacpp]}\n    conc"
        ),
    )
    assert [[item.input_tokens for item in loads] for loads in scenario.loads] == [[100, 100]] * 4 + [[900]]
    assert [deployment.max_context for deployment in scenario.deployments] == [120] * 4 + [964]
    assert "loads[0].only.engin" in complaint(tmp_path, GOOD.replace("  - conc", "  - only: {engin: fake}\n    conc"))
    assert "no deployment has the engine 'vllm'" in complaint(tmp_path, GOOD.replace("  - conc", "  - only: {engine: vllm}\n    conc"))


def test_what_an_engine_cannot_express_is_skipped_with_the_reason(tmp_path: Path) -> None:
    found = plan(load(tmp_path, GOOD.replace("    options:", "    ep: 2\n    options:")), REGISTRY)
    assert len(found.skipped) == 16
    assert "no expert parallelism" in next(iter(found.skipped.values()))


WRONG = {
    "unknown key": ("loads:", "lods:", "s.yaml:11: lods: is not a known key\n  did you mean 'loads'?"),
    "unknown key inside": (
        "concurrency:",
        "concurency:",
        "s.yaml:12: loads[0].concurency: is not a known key\n  did you mean 'concurrency'?",
    ),
    "type": ("[1, 4]", "four", "s.yaml:12: loads[0].concurrency: must be a whole number, got 'four'"),
    "type in a list": ("[1, 4]", "[1, 1.5]", "s.yaml:12: loads[0].concurrency[1]: must be a whole number, got 1.5"),
    "negative": ("[1, 4]", "-1", "s.yaml:12: loads[0].concurrency: must be at least 0, got -1"),
    "empty sweep": ("[1, 4]", "[]", "s.yaml:12: loads[0].concurrency: is an empty list"),
    "engine": (
        "engine: llamacpp",
        "engine: lamacpp",
        "s.yaml:6: deployments[0].engine: there is no engine 'lamacpp'\n  did you mean 'llamacpp'?",
    ),
    "precision": (
        "[f16, q8_0]",
        "[f16, fp8]",
        "s.yaml:8: deployments[0].precision[1]: llama.cpp has no precision 'fp8'",
    ),
    "option": (
        "threads: [1, 2]",
        "thread: 2",
        "s.yaml:9: deployments[0].options.thread: is not an option of llama.cpp\n  did you mean 'threads'?",
    ),
    "option type": (
        "threads: [1, 2]",
        "threads: [1, many]",
        "s.yaml:9: deployments[0].options.threads: must be a whole number, got 'many'",
    ),
    "model": ("model: moe", "model: mow", "s.yaml:7: deployments[0].model: there is no model 'mow' under `models`\n  did you mean 'moe'?"),
    "runtime": (
        "    model: moe",
        "    model: moe\n    runtime: proces",
        "deployments[0].runtime: cannot be 'proces'\n  did you mean 'process'?",
    ),
    "no source": ("{random_weights: {layers: 2}}", "{}", "s.yaml:4: models.moe: needs `checkpoint`, `checkpoints` or `random_weights`"),
    "missing file": (
        "{random_weights: {layers: 2}}",
        "{checkpoints: {f16: ./nowhere.gguf, q8_0: ./nowhere.gguf}}",
        "s.yaml:4: models.moe.checkpoints.f16: ",
    ),
    "random weights in no such form": (
        "[f16, q8_0]",
        "[f16, q4_k_s]",
        "s.yaml:8: deployments[0].precision[1]: random weights cannot be written as gguf in 'q4_k_s'",
    ),
    "random geometry": (
        "{layers: 2}",
        "{hidden: 100}",
        "s.yaml:4: models.moe.random_weights.hidden: invalid random model: hidden must be a multiple of 32",
    ),
    "only": (
        "  - concurrency",
        "  - only: {precision: q8}\n    concurrency",
        "s.yaml:12: loads[0].only.precision: no deployment has the precision 'q8'\n  did you mean 'q8_0'?",
    ),
    "no load": (
        "  - concurrency",
        "  - only: {precision: q8_0}\n    concurrency",
        "s.yaml:6: deployments[0]: nothing is sent to llamacpp moe f16 process",
    ),
    "absurd number": ("[1, 4]", "99999999999999999999", "s.yaml:12: loads[0].concurrency: must be at most 65,536"),
    "endless number": ("[1, 4]", "9" * 5000, "s.yaml:12: number too long (5000 characters)"),
    "small context": (
        "    options:",
        "    max_context: [4096, 119]\n    options:",
        "s.yaml:9: deployments[0].max_context[1]: 119 tokens are",
    ),
    "too many cells": ("repeats: 2", "repeats: 60000", "the sweep has 600,000 cells, more than 200,000"),
    "sexagesimal": ("[1, 4]", "1:30", "must be a whole number, got '1:30'"),
    "a tag": ("repeats: 2", "repeats: !!timestamp 2020-99-99", "s.yaml:15: '2020-99-99' has the tag"),
    "brackets": ("repeats: 2", "repeats: " + "[" * 200_000, "s.yaml:15: is nested too deeply"),
    "name": ("name: demo", "name: a/b", "s.yaml:2: name: must match"),
    "twice": ("repeats: 2", "repeats: 2\nrepeats: 3", "s.yaml:16: repeats: duplicate key"),
    "not yaml": ("name: demo", "name: [demo", "s.yaml:3: invalid YAML: "),
}


@pytest.mark.parametrize(("old", "new", "message"), [pytest.param(*case, id=name) for name, case in WRONG.items()])
def test_bad_input_is_one_message_at_its_place(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    assert message in complaint(tmp_path, GOOD.replace(old, new))


SWEPT = ", or a list of them to sweep"
SECONDS = f"60 (a number of seconds above 0, up to 1,000,000{SWEPT})"


@pytest.mark.parametrize(
    ("written", "place", "advice"),
    [
        ("    rate: fast", "loads[0].rate", f"a number above 0, up to 1,000,000{SWEPT}"),
        ("    rate: true", "loads[0].rate", f"a number above 0, up to 1,000,000{SWEPT}"),
        ("    rate: 0", "loads[0].rate", f"a number above 0, up to 1,000,000{SWEPT}"),
        ("    concurrency: many", "loads[0].concurrency", f"a whole number from 0 to 65,536{SWEPT}"),
        ("    requests: [a]", "loads[0].requests[0]", "a whole number from 0 to 10,000,000"),
        ("    duration_s: soon", "loads[0].duration_s", f"duration_s: {SECONDS}"),
        ("    turns: 0", "loads[0].turns", f"a whole number from 1 to 1,000{SWEPT}"),
        ("    input_tokens: short", "loads[0].input_tokens", "a number, 'uniform(64,256)', "),
        ("    input_tokens: 0", "loads[0].input_tokens", "input_tokens: uniform(64,256) (a whole number from 1 to 10,000,000, or text"),
        ("    prompts: 7", "loads[0].prompts", f"prompts: sharegpt:chats.json (text{SWEPT})"),
        ("    find: {from: 2}", "loads[0].find.over", "rate or concurrency"),
        ("    find: 3", "loads[0].find", "find: {goal: max_goodput, over: rate, from: 1, to: 64} (a mapping with keys of goal, over, "),
        ("slo: {ttft_ms: quick}", "slo.ttft_ms", "ttft_ms: 500 (a number of milliseconds above 0, up to 10,000,000)"),
        ("slo: {share: 3}", "slo.share", "a number above 0, up to 1"),
        ("parity: often", "parity", "a mapping with keys of prompts, input_tokens, output_tokens"),
        ("hardware: 3", "hardware", "hardware: 4xh100 (text)"),
        ("  - {engine: fake, model: any, precision: none, tp: two}", "deployments[1].tp", f"a whole number from 1 to 65,536{SWEPT}"),
        ("  - {engine: llamacpp, model: m, precision: f16, options: {threads: many}}", "deployments[1].options.threads", "a whole number"),
        ("  n: {checkpoints: {f16: 3}}", "models.n.checkpoints.f16", "text, or a mapping (key: value)"),
    ],
)
def test_a_value_of_the_wrong_type_is_told_what_its_field_takes(tmp_path: Path, written: str, place: str, advice: str) -> None:
    """Through `bench plan`, from a file: one message, the place, and what to write there."""
    sections = [
        "name: t",
        "models:",
        "  m: {random_weights: {layers: 1}}",
        "deployments:",
        "  - {engine: fake, model: any, precision: none}",
    ]
    at = {"  n": 3, "  -": 5}.get(written[:3], 7)
    lines = [*sections, "loads:", "  - output_tokens: 20"]
    file = tmp_path / "s.yaml"
    file.write_text("\n".join([*lines[:at], written, *lines[at:]]) + "\n")
    result = CliRunner().invoke(bench, ["plan", str(file)])
    assert isinstance(result.exception, UserError)
    assert f"{file}:{at + 1}: {place}: " in str(result.exception)
    assert f"\n  write {advice}" in str(result.exception)
    assert "more problem" not in str(result.exception)


def test_attach_needs_a_url_and_only_attach_takes_one(tmp_path: Path) -> None:
    attached = "name: a\ndeployments:\n  - {engine: openai, model: any, runtime: attach}\nloads: [{}]\n"
    assert "needs the server's `url`" in complaint(tmp_path, attached)
    assert "must" not in load(tmp_path, attached.replace("attach}", "attach, url: 'http://127.0.0.1:1/'}")).deployments[0].url
    for url in ("http://h:99999", "http://user:hunter2@h", "http://h/?key=hunter2", "http://[h"):
        said = complaint(tmp_path, attached.replace("attach}", f"attach, url: '{url}'}}"))
        assert "s.yaml:3: deployments[0].url" in said
        assert "hunter2" not in said
    assert load(tmp_path, attached.replace("attach}", "attach, url: 'http://h:1/x/v1/'}")).deployments[0].url == "http://h:1/x"
    assert "only goes with `runtime: attach`" in complaint(tmp_path, GOOD.replace("precision: none}", "precision: none, url: 'http://x'}"))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"- a\n- b", b"42", b"a: *nowhere", b"a: &a [*a]"])
def test_files_that_are_no_scenario(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "s.yaml"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"s\.yaml"):
        load_scenario(file, REGISTRY)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="file not found"):
        load_scenario(tmp_path / "nowhere.yaml", REGISTRY)


mutations = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.sampled_from(["name", "models", "deployments", "loads", "repeats", "parity", "extra"]), mutations)
def test_nothing_but_a_user_error_comes_of_a_wrong_value(tmp_path_factory: pytest.TempPathFactory, key: str, value: object) -> None:
    import yaml

    data = yaml.safe_load(GOOD) | {key: value}
    file = tmp_path_factory.mktemp("s") / "s.yaml"
    file.write_text(yaml.safe_dump(data, allow_unicode=True))
    try:
        plan(load_scenario(file, REGISTRY), REGISTRY)
    except UserError as error:
        assert str(error).startswith(str(file))


def test_numbers_are_decimal_and_a_merged_key_can_be_overridden(tmp_path: Path) -> None:
    text = (
        GOOD.replace("[1, 4]", "010")
        .replace("  - {engine: fake", "  - &base {engine: fake")
        .replace("precision: none}", "precision: none}\n  - {<<: *base, label: again}")
    )
    scenario = load(tmp_path, text)
    assert scenario.loads[0][0].concurrency == 10
    assert [d.label for d in scenario.deployments[-2:]] == [None, "again"]


def test_a_server_may_take_fewer_requests_than_are_sent(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD.replace("    options:", "    max_concurrency: 1\n    options:")).deployments[0].max_concurrency == 1


def test_transformers_takes_one_temperature_per_start(tmp_path: Path) -> None:
    text = (
        "name: t\nmodels: {m: {random_weights: {layers: 1}}}\ndeployments:\n"
        "  - {engine: transformers, model: m, precision: f32}\nloads: [{temperature: [0, 0.7]}]\n"
    )
    found = plan(load(tmp_path, text), REGISTRY)
    assert len(found.skipped) == 2
    assert "0.0, 0.7" in next(iter(found.skipped.values()))
    assert not plan(load(tmp_path, text.replace("f32}", "f32, runtime: in-process}")), REGISTRY).skipped
