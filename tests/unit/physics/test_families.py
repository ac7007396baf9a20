"""Every mixture that transformers knows is counted exactly from its config.json, and what is not understood is named, not guessed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics import Role, fit, read_machine, weigh
from enginebench.physics.config import from_config
from enginebench.physics.geometry import Attention, Recurrence, Selection
from enginebench.physics.roofline import decode
from enginebench.physics.setting import Setting

_FILES = ("family_totals.jsonl", "family_totals_mlx.jsonl")
BUILT = [json.loads(line) for name in _FILES for line in Path(__file__).with_name(name).read_text().splitlines()]
"""Configs of transformers 5.24 and of mlx-lm 0.32 with changed sizes, and the weights that these build from them
(tests/real/test_model_totals.py)."""

QWEN_NEXT: dict[str, Any] = {
    "model_type": "qwen3_next", "num_hidden_layers": 48, "hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2,
    "head_dim": 256, "intermediate_size": 5120, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512, "num_experts": 512,
    "num_experts_per_tok": 10, "full_attention_interval": 4, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_num_key_heads": 16, "linear_num_value_heads": 32, "linear_value_head_dim": 128, "vocab_size": 151936,
    "tie_word_embeddings": False, "max_position_embeddings": 262144,
}  # fmt: skip
DEEPSEEK: dict[str, Any] = {
    "model_type": "deepseek_v32", "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 4, "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "intermediate_size": 96, "moe_intermediate_size": 32,
    "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "first_k_dense_replace": 1, "index_head_dim": 8,
    "index_n_heads": 2, "index_topk": 100, "vocab_size": 500, "max_position_embeddings": 4096,
}  # fmt: skip


@pytest.mark.parametrize("built", BUILT, ids=lambda built: f"{built['config']['model_type']}-{built['total']}")
def test_the_weights_of_every_family_are_those_that_transformers_builds(built: dict[str, Any]) -> None:
    model = from_config("built", built["config"])
    assert model.params == built["total"]
    assert model.notes == ()


def test_at_least_fifty_families_of_mixtures() -> None:
    mixtures = {each["config"]["model_type"] for each in BUILT if from_config("built", each["config"]).experts}
    assert len(mixtures) >= 48


# -- what a layer keeps and reads ------------------------------------------------------------------------------------------------


def test_a_state_instead_of_a_cache() -> None:
    model = from_config("next", {**QWEN_NEXT, "mamba_ssm_dtype": "float32"})
    first, fourth = model.layers[0].attention, model.layers[3].attention
    assert isinstance(first, Recurrence)
    assert isinstance(fourth, Attention)
    assert (first.kind, first.state) == ("gated delta rule", 32 * 128 * 128)
    convolved = 3 * (2 * 16 * 128 + 32 * 128)
    assert model.state_bytes == 36 * (4 * 32 * 128 * 128 + 2 * convolved)  # 77.3 MB a sequence, whatever its length
    assert model.cache_elements(1000) == 12 * 1000 * 2 * 2 * 256  # only every fourth layer has keys and values


def test_memory_charges_the_state_of_every_sequence() -> None:
    weights = weigh(from_config("next", QWEN_NEXT), "fp8")
    machine = read_machine("1xh200")

    def cache(context: int, concurrency: int) -> float:
        return fit(weights, machine, Parallelism(), context=context, concurrency=concurrency).budget.cache

    state = weights.model.state_bytes
    assert state > 30e6
    assert cache(1, 64) == pytest.approx(64 * (state + 2 * 12 * 1024))
    assert cache(32768, 64) - cache(1, 64) == pytest.approx(64 * 32767 * 2 * 12 * 1024)
    assert fit(weights, machine, Parallelism(), context=1, concurrency=64, kv_bits=8).budget.cache > 64 * state  # fp8 keys, 16-bit state


def test_a_step_reads_the_state_once_per_sequence() -> None:
    setting = Setting(weigh(from_config("next", QWEN_NEXT), "fp8"), read_machine("1xh200"))
    one, two = decode(setting, 1, 1).bytes["KV cache"], decode(setting, 2, 1).bytes["KV cache"]
    assert two == pytest.approx(2 * one)
    assert one > setting.weights.model.state_bytes


def test_recurrent_layers_divide_by_their_heads() -> None:
    weights = weigh(from_config("next", QWEN_NEXT), "bf16")
    one = fit(weights, read_machine("8xh200"), Parallelism(), context=1, concurrency=1).budget
    two = fit(weights, read_machine("8xh200"), Parallelism(tp=2), context=1, concurrency=1).budget
    assert two.weights[Role.RECURRENT] == one.weights[Role.RECURRENT] / 2
    assert two.cache == pytest.approx(one.cache / 2)
    with pytest.raises(UserError, match="heads"):
        fit(weights, read_machine("32xh200"), Parallelism(tp=32), context=1, concurrency=1)


def test_sparse_attention_keeps_all_tokens_and_reads_the_best() -> None:
    attention = from_config("sparse", DEEPSEEK).layers[0].attention
    assert isinstance(attention, Attention)
    assert attention.selection == Selection(100, 2, 8)
    assert attention.cached(1000) == 1000 * (16 + 8 + 8)  # latent, rotated key, and the indexer's key
    assert attention.attended(1000) == 100
    assert attention.read(1000, 1, 16, prompt=False) == 2 * (100 * 24 + 1000 * 8 + 24)
    assert attention.attended(50) == 50


def test_layers_may_share_a_latent_and_pool_the_keys_of_the_indexer() -> None:
    shared = {"kv_source_layers": [0, 0], "no_rope_layers": [1, 0], "model_type": "mistral_large4_text", "q_lora_rank": None}
    own, borrowed = (layer.attention for layer in from_config("large", {**DEEPSEEK, **shared}).layers)
    assert isinstance(own, Attention)
    assert isinstance(borrowed, Attention)
    assert own.cached(1000) == 1000 * (16 + 8 + 8)
    assert borrowed.cached(1000) == 1000 * 8  # its indexer has keys of its own
    assert (own.rope_dim, borrowed.rope_dim, borrowed.key_dim) == (8, 0, own.key_dim)
    pooled = {"model_type": "glm5_next_text", "layer_types": ["indexed_attention"] * 2, "index_kpool": 16, "qk_rope_head_dim": 0}
    attention = from_config("glm", {**DEEPSEEK, **pooled}).layers[0].attention
    assert isinstance(attention, Attention)
    assert attention.cached(1600) == 1600 * 16 + 100 * 8
    assert attention.attended(1600) == 100


def test_a_block_may_be_a_mixer_or_an_mlp_alone() -> None:
    built = next(each for each in BUILT if each["config"]["model_type"] == "nemotron_h")
    layers = from_config("nemotron", built["config"]).layers
    kinds = {(layer.attention is not None, layer.experts is not None or layer.dense > 0) for layer in layers}
    assert kinds == {(True, False), (False, True)}
    weights = weigh(from_config("nemotron", {**built["config"], "num_key_value_heads": 2}), "bf16")
    assert fit(weights, read_machine("2xh100"), Parallelism(tp=2), context=512, concurrency=2).fits


def test_identities_of_longcat_are_chosen_but_not_counted() -> None:
    built = next(each for each in BUILT if each["config"]["model_type"] == "longcat_flash")
    plain, with_identities = (from_config("longcat", {**built["config"], "zero_expert_num": n}) for n in (0, 8))
    assert plain.experts is not None
    assert with_identities.experts is not None
    per_layer = 8 * (plain.hidden + 1)  # the router's rows and biases
    assert with_identities.params - plain.params == per_layer * plain.moe_layers
    count = plain.experts.count
    assert with_identities.experts.top_k == max(1, round(plain.experts.top_k * count / (count + 8)))
    assert len(plain.layers) == 2 * plain.moe_layers  # every block has two attentions and MLPs


# -- what is not understood ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantum_experts": 4}, "'quantum_experts', which may change the number of weights and is not understood"),
        ({"num_memory_layers": 3, "memory_width": 512}, "'num_memory_layers', 'memory_width'"),
        ({"layer_types": ["linear_attention", "wavelet_mixer"] * 24}, "a layer of unknown kind 'wavelet_mixer' in layer_types"),
        ({"layer_types": ["full_attention"] * 3}, "describes 3 of its 48 layers"),
        ({"mlp_layer_types": ["dense", "liquid"] * 24}, "a layer of unknown kind 'liquid' in mlp_layer_types"),
        ({"hidden_size": "wide"}, "hidden_size: 'wide', which is not understood"),
        ({"num_experts_per_tok": None}, "lacks num_experts_per_tok"),
        ({"linear_num_key_heads": None}, "lacks linear_num_key_heads"),
        ({"model_type": "brand_new", "hidden_act": "gelu"}, "hidden_act 'gelu' does not say whether its MLPs have a gate"),
        ({"model_type": "brand_new", "twiddles": 3}, "'twiddles'"),
        ({"model_type": "zamba2"}, "model type 'zamba2' is not supported: layers share weights"),
    ],
)
def test_what_is_not_understood_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        from_config("odd", {**QWEN_NEXT, **change})


def test_fields_without_a_size_are_no_reason_to_refuse() -> None:
    harmless = {
        "rope_theta": 1e7, "rope_scaling": {"type": "yarn"}, "router_aux_loss_coef": 0.001, "bos_token_id": 1, "use_cache": True,
        "unsloth_fixed": True,
        "initializer_range": 0.02, "transformers_version": "4.57", "attention_dropout": 0.1, "norm_topk_prob": True,
        "quantization_config": {"x": 1},
        "auto_map": {"AutoConfig": "x"}, "num_nextn_predict_layers": 1, "task_specific_params": {"size": 3}, "max_window_layers": 28,
        "frobs": 3,
        "a_new_layer_thing": None, "extra_experts": 0, "new_attention_trick": False,
    }  # fmt: skip
    assert from_config("next", {**QWEN_NEXT, **harmless}).params == from_config("next", QWEN_NEXT).params


def test_a_new_model_type_is_read_by_its_fields_and_says_so() -> None:
    fields = {
        "model_type": "brand_new", "n_layers": 4, "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "head_dim": 16, "moe_num_experts": 8,
        "moe_k": 2,
        "moe_ffn_hidden_size": 32, "ffn_hidden_size": 96, "n_dense_layers": 1, "num_shared_expert": 1, "vocab_size": 100,
        "max_seq_len": 512,
    }  # fmt: skip
    model = from_config("new", fields)
    (note,) = model.notes
    assert "'brand_new' is new" in note
    attention, norms = 64 * 16 * (4 + 2 + 2) + 64 * 64, 2 * 64
    experts = 9 * 3 * 64 * 32 + 8 * 64
    assert model.params == 4 * (attention + norms) + 3 * 64 * 96 + 3 * experts + 2 * 100 * 64 + 64
    assert weigh(model, "bf16").notes == model.notes


def test_the_text_part_of_a_multimodal_config() -> None:
    for key in ("text_config", "llm_config", "language_config"):
        outer = {"model_type": "some_vl", "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27}, key: QWEN_NEXT}
        assert from_config("vl", outer).params == from_config("text", QWEN_NEXT).params
    thinker = {"model_type": "omni", "thinker_config": {"text_config": QWEN_NEXT}, "talker_config": {"hidden_size": 3}}
    assert from_config("omni", thinker).params == from_config("text", QWEN_NEXT).params
