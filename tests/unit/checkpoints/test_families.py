"""Every family of random models: one definition, the same weights in both formats, and numbers that belong to it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_args

import gguf
import numpy as np
import pytest
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.families import FAMILIES, Geometry
from enginebench.checkpoints.families.base import halves_from_pairs
from enginebench.checkpoints.gguf_file import write_gguf
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.errors import UserError
from enginebench.scenario.schema import RandomWeights
from safetensors.numpy import load_file

SMALL: dict[str, RandomMoE] = {
    name: RandomMoE(name, layers=2, hidden=64, heads=2, kv_heads=kv_heads, experts=experts, top_k=top_k, expert_intermediate=32)
    for name, kv_heads, experts, top_k in (
        ("qwen3moe", 1, 4, 2),
        ("mixtral", 1, 4, 2),
        ("olmoe", 2, 4, 2),
        ("deepseek_v3", 2, 8, 2),
        ("llama4", 1, 4, 1),
        ("gpt_oss", 1, 4, 2),
        ("llama", 1, 1, 1),
    )
}
EACH = pytest.mark.parametrize("model", SMALL.values(), ids=SMALL)


def test_a_scenario_can_name_every_family_and_every_number() -> None:
    assert set(SMALL) == set(FAMILIES) == set(get_args(RandomWeights.model_fields["architecture"].annotation))
    assert set(RandomWeights.model_fields) == {field.name for field in dataclasses.fields(Geometry)}


@EACH
def test_a_reference_holds_every_number_of_the_family_and_no_other(model: RandomMoE) -> None:
    assert RandomMoE.from_reference(model.reference()) == model
    own = set(model.family.choices(model))
    assert all(f"{name}=" in model.reference() for name in own)
    foreign = {field.name for field in dataclasses.fields(Geometry) if field.default is None} - own
    assert not any(f"{name}=" in model.reference() for name in foreign)


@EACH
def test_both_formats_hold_the_same_weights(model: RandomMoE, tmp_path: Path) -> None:
    """Every value of one is a value of the other, as often; which of them stands where is proved by the engines' agreement."""
    write_gguf(model, "f32", tmp_path / "m.gguf")
    write_hf_folder(model, "f32", tmp_path / "m")
    ours = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    theirs = load_file(tmp_path / "m" / "model.safetensors")
    assert sum(array.size for array in theirs.values()) == sum(t.n_elements for t in ours.values()) == model.parameters
    everything = [np.sort(np.concatenate([np.asarray(array).ravel() for array in arrays])) for arrays in (
        [tensor.data for tensor in ours.values()], theirs.values(),
    )]  # fmt: skip
    assert np.array_equal(*everything)


@EACH
def test_every_value_is_exact_in_half_precision_and_lane_0_stays_constant(model: RandomMoE) -> None:
    for tensor in model.tensors():
        values = model.weights(tensor)
        assert np.array_equal(values, values.astype(np.float16).astype(np.float32)), tensor.name
        assert not (values.view(np.uint32) & 0xFFFF).any(), f"{tensor.name} is not bfloat16"
        if tensor.writes_residual:
            assert not (values[..., 0] if tensor.vector else values[..., 0, :]).any(), tensor.name
            assert values.any()


@EACH
def test_biases_norms_and_routers_stay_in_full_precision(model: RandomMoE, tmp_path: Path) -> None:
    write_gguf(model, "q8_0", tmp_path / "m.gguf")
    kinds = {tensor.name: tensor.tensor_type for tensor in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    full = {name for name, kind in kinds.items() if kind == gguf.GGMLQuantizationType.F32}
    assert full == {name for name in kinds if "norm" in name or name.endswith(".bias") or "ffn_gate_inp" in name or "sinks" in name}


def test_the_architecture_of_the_files_is_the_familys(tmp_path: Path) -> None:
    for name, model in SMALL.items():
        write_hf_folder(model, "f32", tmp_path / name)
        write_gguf(model, "f32", tmp_path / f"{name}.gguf")
        config = json.loads((tmp_path / name / "config.json").read_text())
        stored = gguf.GGUFReader(tmp_path / f"{name}.gguf").fields["general.architecture"].contents()
        assert (config["architectures"], config["model_type"], stored) == ([model.family.hf_class], model.family.hf_type, model.family.gguf)


def test_rows_for_rotation_by_pairs_are_sorted_into_halves() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert halves_from_pairs(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_gate_and_up_alternate_in_gpt_oss(tmp_path: Path) -> None:
    model = SMALL["gpt_oss"]
    write_hf_folder(model, "f32", tmp_path / "m")
    theirs = load_file(tmp_path / "m" / "model.safetensors")
    block = model.block(1)
    gate, up = (model.weights(block[f"ffn_{part}_exps.weight"]) for part in ("gate", "up"))
    stored = theirs["model.layers.1.mlp.experts.gate_up_proj"]
    assert np.array_equal(stored[..., ::2].swapaxes(1, 2), gate)
    assert np.array_equal(stored[..., 1::2].swapaxes(1, 2), up)
    bias = theirs["model.layers.1.mlp.experts.gate_up_proj_bias"]
    assert np.array_equal(bias[:, 1::2], model.weights(block["ffn_up_exps.bias"]))


def test_deepseeks_keys_and_values_are_one_matrix_of_each_head(tmp_path: Path) -> None:
    model = SMALL["deepseek_v3"]
    write_hf_folder(model, "f32", tmp_path / "m")
    block, d = model.block(0), model.head_dim
    whole = load_file(tmp_path / "m" / "model.safetensors")["model.layers.0.self_attn.kv_b_proj.weight"].reshape(2, 2 * d, -1)
    assert np.array_equal(whole[:, :d].swapaxes(1, 2), model.weights(block["attn_k_b.weight"]))
    assert np.array_equal(whole[:, d:], model.weights(block["attn_v_b.weight"]))
    assert "model.layers.0.mlp.gate_proj.weight" in load_file(tmp_path / "m" / "model.safetensors")  # the first layer is dense


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("random:llama?experts=8", "llama is dense: write experts 1 and top_k 1"),
        ("random:olmoe?kv_heads=2", "olmoe needs kv_heads equal to heads: write kv_heads 4, not 2"),
        ("random:olmoe?kv_heads=4&head_dim=64", "4 x 64 is not 128"),
        ("random:deepseek_v3?kv_heads=2", "write kv_heads 4"),
        ("random:deepseek_v3?kv_heads=4&expert_groups=3", "expert_groups (3) must divide experts (16)"),
        ("random:deepseek_v3?kv_heads=4&top_k_groups=5", "top_k_groups (5) is more than expert_groups (4)"),
        ("random:deepseek_v3?kv_heads=4&top_k=9", "top_k (9) is more than the 8 experts of 2 groups"),
        ("random:deepseek_v3?kv_heads=4&dense_layers=2", "dense_layers (2) must be less than layers (2)"),
        ("random:deepseek_v3?kv_heads=4&q_lora_rank=33", "q_lora_rank must be a multiple of 32"),
        ("random:llama4?context=9000", "one attention chunk of 8192"),
        ("random:mixtral?sliding_window=64", "mixtral has no sliding_window"),
    ],
)
def test_what_a_family_cannot_be_built_with(reference: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        RandomMoE.from_reference(reference)
    assert message in str(error.value)
