"""What counts of experts say: laws of the figures, files that come back as they were, and the readers of what engines write."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from click.testing import CliRunner
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.gguf_file import write_gguf
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.cli import bench
from enginebench.errors import UserError
from enginebench.physics.routing import (
    Choices,
    Routing,
    distinct_per_step,
    entropy,
    hottest_share,
    of_inputs,
    rank_imbalance,
    routing_of,
    uniform_distinct,
)
from enginebench.physics.routing_curve import coverages, marks
from enginebench.physics.routing_files import read, save
from enginebench.physics.routing_summary import routing_summary
from enginebench.runner import routing as routing_pass
from enginebench.runner.routing_inputs import Asked
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

EXPERTS, TOP_K = 16, 4

counts = arrays.arrays(np.int64, (3, EXPERTS), elements=st.integers(0, 10**6)).filter(lambda c: bool((c.sum(axis=1) > 0).all()))


def choices(*, sequences: int = 24, tokens: int = 6, layers: int = 2, seed: int = 0) -> Choices:
    """Uniform routing: every token takes TOP_K different experts; the first half of a sequence is its prompt."""
    random = np.random.default_rng(seed)
    ranked = random.random((sequences * tokens, layers, EXPERTS)).argsort(axis=2)[:, :, :TOP_K]
    owners = np.repeat(np.arange(sequences, dtype=np.int32), tokens)
    return Choices(ranked.astype(np.int16), owners, np.tile(np.arange(tokens) >= tokens // 2, sequences))


@given(counts)
def test_shares_entropy_and_balance_stay_within_their_bounds(counted: np.ndarray) -> None:
    for hottest in (1, 2, EXPERTS):
        share = hottest_share(counted, hottest)
        assert ((share >= hottest / EXPERTS - 1e-12) & (share <= 1 + 1e-12)).all()
    assert ((entropy(counted) >= -1e-12) & (entropy(counted) <= 1 + 1e-12)).all()
    for ranks in (1, 2, EXPERTS):
        imbalance = rank_imbalance(counted, ranks)
        assert ((imbalance >= 1 - 1e-12) & (imbalance <= ranks + 1e-9)).all()


def test_even_routing_is_even_and_one_expert_is_as_uneven_as_can_be() -> None:
    even, one = np.full((1, EXPERTS), 7), np.eye(1, EXPERTS, dtype=np.int64) * 7
    assert (hottest_share(even, 2)[0], entropy(even)[0], rank_imbalance(even, 4)[0]) == pytest.approx((2 / EXPERTS, 1, 1))
    assert (hottest_share(one, 2)[0], entropy(one)[0], rank_imbalance(one, 4)[0]) == pytest.approx((1, 0, 4))


def test_a_layer_that_no_token_reached_has_no_figures_to_divide() -> None:
    nothing = np.zeros((1, EXPERTS), np.int64)
    assert (hottest_share(nothing, 2)[0], entropy(nothing)[0], rank_imbalance(nothing, 2)[0]) == (0, 0, 0)


def test_blocks_of_experts_are_consecutive_on_ranks() -> None:
    counted = np.array([[3, 1, 0, 0]])
    assert rank_imbalance(counted, 2)[0] == 2.0
    assert rank_imbalance(counted[:, [0, 2, 1, 3]], 2)[0] == 1.5
    with pytest.raises(UserError, match="cannot be divided equally among 3 ranks"):
        rank_imbalance(counted, 3)


@given(st.integers(1, 256), st.integers(1, 8), st.integers(1, 512))
def test_uniform_routing_touches_k_experts_with_one_token_and_never_more_than_there_are(experts: int, top_k: int, batch: int) -> None:
    top_k = min(top_k, experts)
    assert uniform_distinct(experts, top_k, 1) == pytest.approx(top_k)
    assert uniform_distinct(experts, top_k, batch) <= experts + 1e-9
    assert uniform_distinct(experts, top_k, batch + 1) >= uniform_distinct(experts, top_k, batch) - 1e-9


def test_scouts_64_tokens_read_nearly_all_of_16_experts() -> None:
    assert uniform_distinct(16, 1, 64) == pytest.approx(15.7, abs=0.05)


def test_uniform_choices_touch_what_the_formula_says() -> None:
    drawn = choices(sequences=64, tokens=20)
    for batch in (1, 2, 8, 32):
        found = distinct_per_step(drawn, batch)
        assert found is not None
        assert found == pytest.approx(uniform_distinct(EXPERTS, TOP_K, batch), rel=0.03)


def test_a_step_needs_as_many_sequences_and_takes_only_what_was_decoded() -> None:
    drawn = choices(sequences=4)
    assert distinct_per_step(drawn, 5) is None
    same = drawn.experts.copy()
    same[drawn.decoded] = [0, 1, 2, 3]
    found = distinct_per_step(Choices(same, drawn.sequence, drawn.decoded), 4)
    assert found is not None
    assert found.tolist() == [4.0, 4.0]


def test_counts_are_the_choices_counted_without_padding() -> None:
    drawn = choices()
    padded = Choices(np.concatenate([drawn.experts, np.full_like(drawn.experts[..., :1], -1)], axis=2), drawn.sequence, drawn.decoded)
    counted = routing_of("m", "s", range(2), EXPERTS, drawn).counts
    assert counted.sum() == drawn.experts.size
    assert np.array_equal(routing_of("m", "s", range(2), EXPERTS, padded).counts, counted)
    with pytest.raises(ValueError, match="of 4"):
        routing_of("m", "s", range(2), 4, drawn)


def skewed(*, tokens: int = 400, sequences: int = 8, seed: int = 1) -> Routing:
    """Three kinds of input: 'text' and 'code' each prefer three of 16 experts (70 % of the choices, the others evenly), 'random' none."""
    random = np.random.default_rng(seed)
    parts = []
    for hot in ([0, 1, 2], [2, 3, 4], []):
        chances = np.full(EXPERTS, 0.3 / 13 if hot else 1 / 16)
        chances[hot] = 0.7 / 3
        parts.append(random.choice(EXPERTS, (tokens, 2, 1), p=chances / chances.sum()))
    experts = np.concatenate(parts).astype(np.int16)
    owners = np.repeat(np.arange(3 * sequences, dtype=np.int32), tokens // sequences)
    place = np.repeat(np.arange(3, dtype=np.int8), tokens)
    chosen = Choices(experts, owners, np.ones(len(experts), bool), place)
    return routing_of("m", "s", (0, 1), EXPERTS, chosen, inputs=("text", "code", "random"))


def test_the_curve_of_each_kind_of_input_and_what_its_experts_cover_elsewhere() -> None:
    whole, text, code, random = coverages(skewed())
    assert (whole.input, text.input, code.input, random.input) == ("all", "text", "code", "random")
    assert text.mean[2] == pytest.approx(0.7, abs=0.04)
    assert text.mean[-1] == pytest.approx(1)
    assert random.mean[2] == pytest.approx(3 / 16, abs=0.05)
    assert text.elsewhere["code"][2] == pytest.approx(0.7 / 3 + 2 * 0.3 / 13, abs=0.05)
    assert len(text.layers) == 2
    assert len(text.layers[0]) == EXPERTS
    low, high = text.range(3)
    assert low <= text.mean[2] <= high


def test_experts_that_were_picked_on_other_sequences_do_not_look_skewed_by_chance() -> None:
    few = coverages(routing_of("m", "s", range(2), EXPERTS, choices(sequences=4, tokens=4)))[0]
    assert few.mean[1] > 1.25 * 2 / EXPERTS  # even routing, 16 tokens: the two hottest of the sample look hot
    assert few.unseen is not None
    assert few.unseen[1] < few.mean[1]


@given(counts)
def test_a_curve_rises_to_one_and_lies_above_even_routing(counted: np.ndarray) -> None:
    (curve,) = coverages(Routing("m", "s", (0, 1, 2), counted))
    assert curve.unseen is None
    shares = np.array(curve.mean)
    assert (np.diff(shares) >= -1e-12).all()
    assert shares[-1] == pytest.approx(1)
    assert (shares >= np.arange(1, EXPERTS + 1) / EXPERTS - 1e-9).all()


def test_the_rows_of_the_table_hold_an_eighth_a_quarter_and_a_half() -> None:
    assert marks(16) == [1, 2, 3, 4, 6, 8, 12]
    assert {16, 32, 64} <= set(marks(128))
    assert marks(1) == []


def test_one_kind_of_input_alone() -> None:
    routing = skewed()
    code = of_inputs(routing, ["code"])
    assert code.counts.sum() == routing.counts.sum() // 3
    assert code.inputs == ("code",)
    assert of_inputs(of_inputs(routing, ["random", "code"]), ["code"]).counts.tolist() == code.counts.tolist()
    with pytest.raises(UserError, match="no routing of prose was counted"):
        of_inputs(routing, ["prose"])


@settings(max_examples=20)
@given(counts, st.booleans())
def test_a_file_gives_back_what_was_saved(tmp_path_factory: pytest.TempPathFactory, counted: np.ndarray, single: bool) -> None:
    file = tmp_path_factory.mktemp("routing") / "m.npz"
    routing = routing_of("m", "s", (3, 5), EXPERTS, choices()) if single else Routing("m", "s", (0, 1, 2), counted)
    save(routing, file)
    back = read(file)
    assert (back.model, back.source, back.layers, back.top_k) == (routing.model, routing.source, routing.layers, routing.top_k)
    assert np.array_equal(back.counts, routing.counts)


def test_a_file_keeps_the_kinds_of_input_and_the_checkpoint(tmp_path: Path) -> None:
    routing = replace(skewed(), content="0f" * 32, names=("llama4-scout",))
    save(routing, tmp_path / "m.npz")
    back = read(tmp_path / "m.npz")
    assert (back.inputs, back.content, back.names) == (routing.inputs, routing.content, routing.names)
    assert [each.mean for each in coverages(back)] == [each.mean for each in coverages(routing)]


def test_an_imatrix_has_counts_of_every_expert(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "i.gguf", "imatrix")
    for layer in (0, 1):
        for part, factor in (("gate", 1), ("up", 1), ("down", 1)):
            name = f"blk.{layer}.ffn_{part}_exps.weight"
            writer.add_tensor(f"{name}.in_sum2", np.ones((EXPERTS, 32), np.float32))
            writer.add_tensor(f"{name}.counts", np.arange(EXPERTS, dtype=np.float32)[:, None] * (layer + 1) * factor)
    writer.add_tensor("blk.0.attn_q.weight.counts", np.ones((1, 1), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = read(tmp_path / "i.gguf")
    assert found.layers == (0, 1)
    assert found.counts.tolist() == [list(range(EXPERTS)), [2 * n for n in range(EXPERTS)]]
    assert routing_summary(found, ranks=[2], batches=[1]).steps == ()


def test_routed_experts_of_answers(tmp_path: Path) -> None:
    drawn = choices(sequences=1).experts.astype(np.uint8)
    np.save(tmp_path / "a.npy", drawn)
    text = io.BytesIO()
    np.save(text, drawn)
    answer = {"choices": [{"text": "x", "routed_experts": base64.b64encode(text.getvalue()).decode()}]}
    (tmp_path / "a.json").write_text(json.dumps([answer, answer]))
    one, two = read(tmp_path / "a.npy"), read(tmp_path / "a.json")
    assert np.array_equal(2 * one.counts, two.counts)
    assert one.top_k == TOP_K
    assert two.choices is not None
    assert distinct_per_step(two.choices, 1) is None  # a server does not say which tokens it decoded


EMPTY = {"a.json": b"{}", "b.json": b"[", "a.npz": b"PK", "b.npz": b"PK\x03\x04cut", "a.gguf": b"x", "a.npy": b"", "a.txt": b""}


@pytest.mark.parametrize(("name", "content"), EMPTY.items())
def test_a_file_without_counts_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read(tmp_path / name)
    assert name in str(error.value)


WORKER = """
import json, sys, numpy as np
job = json.loads(sys.stdin.readline())
if job["dtype"] == "float16":
    print(json.dumps({"error": "no such type here"})); sys.exit(1)
tokens = len(job["prompts"]) * job["output_tokens"]
told = np.array(json.dumps({"model": job["name"], "source": "a stand-in", "experts": 4}))
np.savez(job["out"], told=told, counts=np.zeros((0, 0)), layers=np.arange(1), choices=np.zeros((tokens, 1, 1), np.int16),
         sequence=np.repeat(np.arange(len(job["prompts"])), job["output_tokens"]), decoded=np.ones(tokens, bool))
"""


def test_a_pass_sends_prompts_of_one_length_and_reads_the_choices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = RandomMoE(layers=1, hidden=64, heads=2, kv_heads=1, experts=4, top_k=1, expert_intermediate=32)
    write_hf_folder(model, "f32", tmp_path / "m")
    monkeypatch.setattr(routing_pass, "WORKERS", tmp_path)
    (tmp_path / "standin_routing.py").write_text(WORKER)
    asked = Asked(("text", "code"), requests=3, input_tokens=10, output_tokens=4)
    assert routing_pass.engines() == ["standin"]
    counted = routing_pass.count("tiny", str(tmp_path / "m"), "f32", "standin", Path(sys.executable), asked)
    assert counted.counts.tolist() == [[24, 0, 0, 0]]
    assert counted.source == "a stand-in; f32, 3 x 10 + 4 tokens each of text, code"
    assert of_inputs(counted, ["code"]).counts.tolist() == [[12, 0, 0, 0]]
    with pytest.raises(UserError, match="no such type here"):
        routing_pass.count("tiny", str(tmp_path / "m"), "f16", "standin", Path(sys.executable), asked)


def test_the_command_reads_files_and_says_what_even_would_be(tmp_path: Path) -> None:
    save(routing_of("olmoe-like", "made up", (1, 2), EXPERTS, choices()), tmp_path / "m.npz")
    done = CliRunner().invoke(bench, ["routing", str(tmp_path / "m.npz"), "--ep", "4", "--ep", "3", "--batch", "8"])
    assert done.exit_code == 0, done.output
    assert "olmoe-like: 16 experts, top-4, 2 layers with experts" in done.output
    assert "(even: 12.5%)" in done.output
    assert "     4   25.0%  " in done.output
    assert "layer" in CliRunner().invoke(bench, ["routing", str(tmp_path / "m.npz"), "--layers", "--html", str(tmp_path / "c.html")]).output
    assert "unseen half" in (tmp_path / "c.html").read_text()
    assert "EP=4" in done.output
    assert "EP=3" not in done.output
    assert "batch   8" in done.output
    asked = CliRunner().invoke(bench, ["routing", str(tmp_path / "m.npz"), "--json"])
    assert json.loads(asked.output)[0]["per_layer"]["entropy"]


def test_an_engine_whose_routers_cannot_be_asked(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench, ["routing", "random:qwen3moe", "--engine", "fake"])
    assert isinstance(done.exception, UserError)
    assert "expert choices cannot be counted with fake" in str(done.exception)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("random:qwen3moe", "--inputs", "prose"), r"inputs: unknown kind of input 'prose'\n.*known: text, code, random, or a data set"),
        (("random:qwen3moe", "--inputs", "text,text"), "must be different"),
        (("random:qwen3moe", "--inputs", ","), "at least one"),
        (("random:qwen3moe", "--model", "llama4-scot"), r"no model 'llama4-scot' in the catalogue\n.*llama4-scout"),
        (("model.gguf", "--engine", "transformers"), r"transformers reads safetensors, and .*model.gguf is gguf\n.*--engine llamacpp"),
        (("folder", "--engine", "llamacpp"), r"llamacpp reads gguf, and .*folder is safetensors\n.*--engine transformers"),
    ],
)
def test_what_cannot_be_counted_has_one_sentence_and_no_other_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_gguf(RandomMoE(layers=1), "q8_0", tmp_path / "model.gguf")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("{}")
    done = CliRunner().invoke(bench, ["routing", *words])
    assert isinstance(done.exception, UserError)
    assert re.search(message, str(done.exception)), str(done.exception)
    assert done.output == ""


def test_page_of_two_models_is_refused(tmp_path: Path) -> None:
    save(routing_of("m", "made up", (1, 2), EXPERTS, choices()), tmp_path / "m.npz")
    done = CliRunner().invoke(bench, ["routing", *[str(tmp_path / "m.npz")] * 2, "--html", str(tmp_path / "c.html")])
    assert isinstance(done.exception, UserError)
    assert "--html writes one model's curves, and 2 were counted" in str(done.exception)
