"""A config.json with a wrong value gives one sentence that names the field, never a traceback or a senseless number of weights."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.errors import UserError
from enginebench.physics.config import from_config

HERE = Path(__file__).parent
FILES = ("family_totals.jsonl", "family_totals_mlx.jsonl", "fetched_configs.jsonl")
CONFIGS = [json.loads(line)["config"] for name in FILES for line in (HERE / name).read_text().splitlines()]
BY_TYPE = {str(config.get("model_type")): config for config in CONFIGS}
WRONG: list[Any] = [None, 0, -1, "x", "", [], {}, [1], ["x"], [[]], True, False, 1.5, {"a": 1}]
MIXTRAL = {
    "model_type": "mixtral", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 1000, "max_position_embeddings": 4096,
}  # fmt: skip


def places(config: dict[str, Any]) -> list[tuple[str, ...]]:
    found = [(key,) for key in config]
    return found + [(key, inner) for key, value in config.items() if isinstance(value, dict) for inner in value]


@pytest.mark.parametrize("kind", sorted(BY_TYPE))
def test_any_wrong_value_is_a_user_error_or_harmless(kind: str) -> None:
    chosen = random.Random(kind)
    for path in places(BY_TYPE[kind]):
        for value in chosen.sample(WRONG, 3):
            config = copy.deepcopy(BY_TYPE[kind])
            part = config if len(path) == 1 else config[path[0]]
            part[path[-1]] = value
            try:
                total = from_config("x", config).params
            except UserError as error:
                assert "\n" not in str(error).split("  ")[0].strip()
            else:
                assert isinstance(total, int), (path, value)
                assert total > 0, (path, value)


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size", "max_position_embeddings"])
@pytest.mark.parametrize("value", [0, -1, "64", 64.5, [64], {}, True])
def test_command_line_says_it_in_one_sentence(key: str, value: Any, tmp_path: Path) -> None:
    if key == "num_attention_heads" and value == [64]:
        value = [64, "x"]
    (tmp_path / "config.json").write_text(json.dumps({**MIXTRAL, key: value}))
    done = CliRunner().invoke(bench, ["fit", str(tmp_path / "config.json"), "--hardware", "h100"], standalone_mode=False)
    assert isinstance(done.exception, UserError), done.output
    assert key in str(done.exception)
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"num_local_experts": "8"}, "num_local_experts"),
        ({"num_experts_per_tok": None}, "num_experts_per_tok"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"layer_types": ["full_attention"]}, "num_hidden_layers"),
        ({"layer_types": [["full_attention"]] * 4}, "layer_types"),
        ({"mlp_layer_types": ["sparse"]}, "mlp_layer_types"),
        ({"mlp_only_layers": 3}, "mlp_only_layers"),
        ({"moe_layer_freq": [0, 1]}, "moe_layer_freq"),
        ({"moe_layers": "1,a"}, "moe_layers"),
        ({"block_configs": [{"attention": 1, "ffn": 2}]}, "block_configs"),
        ({"per_layer_config": {"a": 1}}, "per_layer_config"),
        ({"per_layer_config": {"0": {"num_key_value_heads": [2]}}}, "num_key_value_heads"),
        ({"ple_layer_ids": "1"}, "ple_layer_ids"),
        ({"loop_num_passes": 10**9}, "loop_num_passes"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
    ],
)
def test_wrong_lists_and_sizes_are_named(changed: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as error:
        from_config("x", {**MIXTRAL, **changed})
    assert named in str(error.value) or error.value.key == named


def test_old_name_of_a_bias_is_no_news() -> None:
    jetmoe = BY_TYPE["jetmoe"]
    assert from_config("x", {**jetmoe, "bias": True}).params == from_config("x", jetmoe).params


def test_names_of_pangu_mean_what_deepseek_calls_otherwise() -> None:
    deepseek = {
        "model_type": "deepseek_v3", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
        "max_position_embeddings": 4096, "vocab_size": 1000, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2,
        "moe_intermediate_size": 32, "first_k_dense_replace": 1, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4, "v_head_dim": 8,
    }  # fmt: skip
    renamed = {
        "n_routed_experts": "num_routed_experts", "n_shared_experts": "num_shared_experts", "first_k_dense_replace": "num_dense_layers",
        "q_lora_rank": "attention_q_lora_dim", "kv_lora_rank": "attention_kv_lora_dim", "qk_nope_head_dim": "attention_qk_dim",
        "qk_rope_head_dim": "attention_qk_rope_dim", "v_head_dim": "attention_v_dim",
    }  # fmt: skip
    pangu = {renamed.get(key, key): value for key, value in deepseek.items()} | {"model_type": "pangu_ultra_moe", "sandwich_norm": True}
    more_norms = 4 * 2 * 64
    assert from_config("x", pangu).params == from_config("x", deepseek).params + more_norms


def test_first_spelling_of_qwen_is_read() -> None:
    qwen = BY_TYPE["qwen2_moe"]
    old = {key: value for key, value in qwen.items() if key != "decoder_sparse_step"}
    old |= {"expert_interval": qwen.get("decoder_sparse_step", 1), "shared_expert_gate": True}
    assert from_config("x", old).params == from_config("x", qwen).params
    assert from_config("x", {**old, "shared_expert_gate": False}).params < from_config("x", qwen).params
