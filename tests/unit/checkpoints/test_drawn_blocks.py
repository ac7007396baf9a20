"""Quantised weights drawn as blocks: GGML's own reader finds the scale that was meant; layers may repeat; published vocabularies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import gguf
import numpy as np
import pytest
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.drawn_blocks import BLOCKS, FP4_RMS, deviation, draw
from enginebench.checkpoints.gguf_file import DRAWN_TYPES, write_gguf
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.checkpoints.locate import missing
from enginebench.checkpoints.stored_precision import stored_precisions
from enginebench.checkpoints.tokenizer import word_tokenizer
from enginebench.errors import UserError
from enginebench.physics.files import read_weights
from gguf import quants
from safetensors import safe_open

EXPERTS = "model.layers.5.mlp.experts."
SHAPE = {"layers": 8, "hidden": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "experts": 4, "top_k": 2, "expert_intermediate": 512}
WIDE = RandomMoE(**SHAPE)
OSS = RandomMoE("gpt_oss", **SHAPE, vocabulary=3000, distinct_layers=1)


def read(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def values(tensor: gguf.ReaderTensor) -> np.ndarray:
    return quants.dequantize(tensor.data, tensor.tensor_type).reshape(tuple(reversed(tensor.shape)))


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("name", ["blk.1.ffn_gate_exps.weight", "blk.1.ffn_down_exps.weight"])
def test_drawn_weights_have_the_scale_of_the_tensor(kind: str, name: str) -> None:
    """Dequantised by the reference implementation of the gguf package."""
    (tensor,) = [tensor for tensor in WIDE.tensors() if tensor.name == name]
    drawn = draw(tensor, kind, WIDE.raw)
    assert np.array_equal(drawn, draw(tensor, kind, WIDE.raw)), "a function of the seed"
    found = quants.dequantize(drawn, gguf.GGMLQuantizationType[kind.upper()]).reshape(tensor.shape)
    if tensor.writes_residual:
        assert not found[:, 0].any(), "residual lane 0"
        found = found[:, 1:]
    assert np.isfinite(found).all()
    within = math.sqrt(2) if kind == "mxfp4" else 1.02
    assert deviation(tensor) / within < found.std() < deviation(tensor) * within
    assert abs(found.mean()) < 0.05 * found.std()


def test_fp4_is_as_wide_as_ocp_says() -> None:
    numbers = [sign * v for sign in (1, -1) for v in (0, 0.5, 1, 1.5, 2, 3, 4, 6)]
    assert math.isclose(FP4_RMS, np.std(numbers))


@pytest.mark.parametrize("precision", DRAWN_TYPES)
def test_a_file_has_the_types_of_llama_cpp_and_the_size_that_physics_expects(precision: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(WIDE, precision, path)
    found = read(path)
    assert stored_precisions(path) == (precision,)
    kinds = {name: tensor.tensor_type.name for name, tensor in found.items()}
    assert kinds["blk.3.ffn_gate_exps.weight"] == {"mxfp4": "MXFP4", "q4_k_m": "Q4_K"}[precision]
    assert kinds["blk.3.attn_q.weight"] == {"mxfp4": "Q8_0", "q4_k_m": "Q4_K"}[precision]
    assert (kinds["blk.3.ffn_gate_inp.weight"], kinds["output.weight"]) == ("F32", "Q8_0")
    if precision == "q4_k_m":  # llama.cpp's use_more_bits for 8 layers: the first, the last, and every third from layer 1 + 2 on
        assert [layer for layer in range(8) if kinds[f"blk.{layer}.ffn_down_exps.weight"] == "Q6_K"] == [0, 3, 6, 7]
    predicted, real = read_weights(WIDE.reference(), precision, gguf=True), read_weights(str(path))
    assert real.bytes == pytest.approx(predicted.bytes, rel=0.04)


def test_layers_repeat_and_the_vocabulary_is_as_large_as_asked(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(OSS, "mxfp4", path)
    found = read(path)
    first, last = found["blk.0.ffn_up_exps.weight"].data, found["blk.7.ffn_up_exps.weight"].data
    assert np.array_equal(first, last)
    assert not np.array_equal(first, found["blk.7.ffn_gate_exps.weight"].data)
    known = len(word_tokenizer().tokens)
    head, embedding = values(found["output.weight"]), values(found["token_embd.weight"])
    assert head.shape == embedding.shape == (3000, 256)
    assert (head[known:, 0] < -60).all(), "never made"
    assert not head[known:, 1:].any()
    assert np.ptp(embedding[:, 0]) < 0.1, "the constant lane"
    tokens = gguf.GGUFReader(path).fields["tokenizer.ggml.tokens"].data
    assert len(tokens) == 3000


def test_repeated_layers_leave_the_weights_of_the_first_as_they_are() -> None:
    plain, repeated = RandomMoE(**SHAPE), RandomMoE(**SHAPE, distinct_layers=2, vocabulary=2048)
    by_name = {tensor.name: tensor for tensor in plain.tensors()}
    for name in ("blk.1.attn_q.weight", "blk.0.ffn_up_exps.weight"):
        assert np.array_equal(plain.weights(by_name[name]), repeated.weights(by_name[name]))
    assert np.array_equal(repeated.weights(by_name["blk.5.attn_q.weight"]), plain.weights(by_name["blk.1.attn_q.weight"]))
    big = {tensor.name: tensor for tensor in repeated.tensors()}
    for name in ("token_embd.weight", "output.weight"):
        assert np.array_equal(repeated.weights(big[name])[:1024], plain.weights(by_name[name]))


def test_gpt_oss_is_packed_as_its_published_folder_is(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    write_hf_folder(OSS, "mxfp4", folder)
    config = json.loads((folder / "config.json").read_text())
    assert (config["vocab_size"], config["quantization_config"]["quant_method"]) == (3000, "mxfp4")
    assert stored_precisions(folder) == ("mxfp4",)
    with safe_open(folder / "model.safetensors", framework="numpy") as file:
        names = [name for name in file.keys() if name.startswith(EXPERTS)]  # noqa: SIM118 - not a dict
        shapes = {name.removeprefix(EXPERTS): tuple(file.get_slice(name).get_shape()) for name in names}
        found = {name.removeprefix(EXPERTS): file.get_tensor(name) for name in names if file.get_slice(name).get_dtype() == "U8"}
    assert shapes == {
        "gate_up_proj_blocks": (4, 1024, 8, 16), "gate_up_proj_scales": (4, 1024, 8), "gate_up_proj_bias": (4, 1024),
        "down_proj_blocks": (4, 256, 16, 16), "down_proj_scales": (4, 256, 16), "down_proj_bias": (4, 256),
    }  # fmt: skip
    assert np.unique(found["down_proj_scales"]).size == 1
    assert not found["down_proj_blocks"][:, 0].any()
    assert found["gate_up_proj_blocks"].any()


@pytest.mark.parametrize(
    ("reference", "precision", "form", "message"),
    [
        ("random:gpt_oss?hidden=2880", "q4_k_m", "gguf", "attn_q.weight cannot be q4_k_m: rows of 2880 weights are no whole blocks of 256"),
        ("random:mixtral", "mxfp4", "safetensors", "mixtral has no mxfp4 as safetensors"),
        ("random:qwen3moe", "q4_k_s", "gguf", "random weights cannot be written as gguf in 'q4_k_s'"),
    ],
)
def test_what_cannot_be_written_is_refused_before_a_run(reference: str, precision: str, form: str, message: str, tmp_path: Path) -> None:
    assert message in (missing(reference, precision, form, tmp_path) or "")


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"vocabulary": 100}, "less than the 1024 tokens"),
        ({"distinct_layers": 9}, "more than layers (8)"),
        ({"distinct_layers": 0}, "must be positive"),
    ],
)
def test_bad_numbers_are_refused(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(UserError) as error:
        RandomMoE(**SHAPE, **numbers)
    assert message in str(error.value)
