"""Random checkpoints: one definition, the same weights in every format, and text that tokenises the same everywhere."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.gguf_file import DRAWN_TYPES, GGUF_TYPES, write_gguf
from enginebench.checkpoints.hf_folder import SAFETENSORS_PRECISIONS, write_hf_folder
from enginebench.checkpoints.locate import GGUF_PRECISIONS
from enginebench.checkpoints.tokenizer import word_tokenizer
from enginebench.checkpoints.words import WORDS
from enginebench.errors import UserError
from gguf import quants
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file
from tokenizers import Tokenizer

SMALL = RandomMoE(layers=1, hidden=64, heads=2, kv_heads=1, experts=4, top_k=2, expert_intermediate=32)

models = st.builds(
    RandomMoE,
    layers=st.integers(1, 64),
    hidden=st.integers(1, 128).map(lambda n: 32 * n),
    experts=st.integers(8, 256),
    top_k=st.integers(1, 8),
    context=st.integers(1, 10**6),
    seed=st.integers(0, 2**40),
)


def gguf_tensors(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


@given(models)
def test_a_reference_round_trips(model: RandomMoE) -> None:
    assert RandomMoE.from_reference(model.reference()) == model


def test_a_reference_may_leave_out_what_it_does_not_change() -> None:
    model = RandomMoE.from_reference("random:qwen3moe?experts=32")
    assert (model.experts, model.hidden) == (32, RandomMoE().hidden)
    assert "hidden=128" in model.reference()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("random:qwen3moe?expert=8", "did you mean 'experts'?"),
        ("random:qwen3moe?experts=many", "must be a whole number"),
        ("random:gpt5", "unknown architecture 'gpt5'"),
        ("random:qwen3moe?top_k=32", "top_k (32) is more than experts (16)"),
        ("random:qwen3moe?hidden=100", "multiple of 32"),
        ("random:qwen3moe?layers=0", "layers must be positive"),
    ],
)
def test_a_bad_reference_says_what_to_write(reference: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        RandomMoE.from_reference(reference)
    assert message in str(error.value)


def test_the_weights_of_a_reference_never_change() -> None:
    """Results name their weights by reference only, so this digest may change only together with a new reference."""
    digest = hashlib.sha256()
    for tensor in SMALL.tensors():
        digest.update(tensor.name.encode() + SMALL.weights(tensor).astype("<f4").tobytes())
    assert digest.hexdigest()[:16] == "e0ffdbe95209b603"


def test_every_weight_is_exact_in_half_precision() -> None:
    for tensor in SMALL.tensors():
        values = SMALL.weights(tensor)
        assert np.array_equal(values, values.astype(np.float16).astype(np.float32)), tensor.name
        assert not (values.view(np.uint32) & 0xFFFF).any(), f"{tensor.name} is not bfloat16"


def test_the_seed_changes_every_matrix() -> None:
    other = RandomMoE(**{**vars(SMALL), "seed": 1})
    for tensor in SMALL.tensors():
        assert tensor.gain is None or not np.array_equal(SMALL.weights(tensor), other.weights(tensor))


def test_gguf_and_safetensors_hold_the_same_bits(tmp_path: Path) -> None:
    write_gguf(SMALL, "f16", tmp_path / "m.gguf")
    write_hf_folder(SMALL, "f16", tmp_path / "m")
    ours, theirs = gguf_tensors(tmp_path / "m.gguf"), load_file(tmp_path / "m" / "model.safetensors")
    pairs = {
        "token_embd.weight": theirs["model.embed_tokens.weight"],
        "output.weight": theirs["lm_head.weight"],
        "blk.0.attn_k.weight": theirs["model.layers.0.self_attn.k_proj.weight"],
        "blk.0.ffn_gate_inp.weight": theirs["model.layers.0.mlp.gate.weight"],
    }
    for ours_name, name in (("ffn_gate_exps", "gate_proj"), ("ffn_up_exps", "up_proj"), ("ffn_down_exps", "down_proj")):
        experts = [theirs[f"model.layers.0.mlp.experts.{expert}.{name}.weight"] for expert in range(SMALL.experts)]
        pairs[f"blk.0.{ours_name}.weight"] = np.stack(experts)
    for name, values in pairs.items():
        assert values.dtype == np.float16
        assert np.array_equal(ours[name].data.astype(np.float16), values), name
    assert sum(array.size for array in theirs.values()) == sum(t.n_elements for t in ours.values()) == SMALL.parameters


@pytest.mark.parametrize("precision", GGUF_TYPES)
def test_every_gguf_precision_reads_back(precision: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(SMALL, precision, path)
    read = gguf_tensors(path)
    steps = {"q8_0": 127, "q5_0": 16, "q5_1": 16, "q4_0": 8, "q4_1": 7.5}
    for tensor in SMALL.tensors():
        stored, values = read[tensor.name], SMALL.weights(tensor)
        back = quants.dequantize(stored.data, stored.tensor_type).reshape(values.shape)
        blocks = np.abs(values.reshape(-1, 32)).max(axis=1, keepdims=True)
        if tensor.full_precision or precision not in steps:
            assert np.array_equal(back, values), tensor.name
        else:
            assert (np.abs(back - values).reshape(-1, 32) <= 1.01 * blocks / steps[precision]).all(), tensor.name


@pytest.mark.parametrize("precision", SAFETENSORS_PRECISIONS)
def test_a_folder_is_what_its_config_says(precision: str, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_hf_folder(SMALL, precision, folder)
    dtype, stored, width = SAFETENSORS_PRECISIONS[precision]
    config = json.loads((folder / "config.json").read_text())
    assert (config["dtype"], config["num_experts_per_tok"]) == (dtype, SMALL.top_k)
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {stored}  # noqa: SIM118 - not a dict
    assert (folder / "model.safetensors").stat().st_size > width * SMALL.parameters
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() == config["vocab_size"]


def test_no_forbidden_token_can_win() -> None:
    """Ends and unprintable tokens are pushed down through the one residual lane that no layer writes to."""
    weights = {tensor.name: SMALL.weights(tensor) for tensor in SMALL.tensors()}
    tokenizer, bias = word_tokenizer(), weights["output.weight"][:, 0]
    forbidden = {token for token, value in zip(tokenizer.tokens, bias, strict=True) if value < 0}
    assert tokenizer.control <= forbidden
    assert "Ċ" in forbidden
    assert "Ġthe" not in forbidden
    assert np.unique(weights["token_embd.weight"][:, 0]).size == 1
    assert not weights["blk.0.attn_output.weight"][0].any()
    assert not weights["blk.0.ffn_down_exps.weight"][:, 0].any()


def test_each_token_has_two_successors_and_none_leads_into_a_short_loop() -> None:
    weights = {tensor.name: SMALL.weights(tensor) for tensor in SMALL.tensors()}
    embedding, output = weights["token_embd.weight"], weights["output.weight"]
    allowed = np.flatnonzero(output[:, 0] == 0)
    half = SMALL.hidden // 2
    following = [
        allowed[(embedding[allowed][:, lanes] @ output[allowed][:, lanes].T).argmax(axis=1)]
        for lanes in (slice(1, half), slice(half, None))
    ]
    for successors in following:
        step, token, seen = dict(zip(allowed, successors, strict=True)), allowed[0], set()
        while token not in seen:
            seen.add(token)
            token = step[token]
        assert len(seen) == len(allowed)


@given(st.text())
def test_the_tokenizer_loses_no_text(text: str) -> None:
    tokenizer = word_tokenizer().tokenizer()
    assert tokenizer.decode(tokenizer.encode(text).ids) == text or any(control in text for control in word_tokenizer().control)


def test_every_known_word_is_one_token() -> None:
    tokenizer = word_tokenizer().tokenizer()
    assert all(len(tokenizer.encode(f" {word}").ids) == 1 for word in WORDS[:300])
    assert len(word_tokenizer().tokens) == len(set(word_tokenizer().tokens)) == 1024


def test_a_plan_knows_what_can_be_written() -> None:
    assert (*GGUF_TYPES, *DRAWN_TYPES) == GGUF_PRECISIONS
