"""Sizes by what a checkpoint says of its precision: groups, modules left out, sidecar files, and what an engine makes of one name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from enginebench.domain import Deployment
from enginebench.errors import UserError
from enginebench.machine.folders import checkout
from enginebench.physics import Role, need_model, read_machine, read_weights, weigh
from enginebench.physics.deployment_limits import MachineLimits
from enginebench.physics.precision import precision

CATALOGUE = (checkout() or Path()) / "harness/enginebench/physics/data/models.yaml"


def folder(tmp_path: Path, model: str, *, sidecar: dict[str, Any] | None = None, **quantization: Any) -> Path:
    config = dict(yaml.safe_load(CATALOGUE.read_text())["models"][model]["config"])
    where = tmp_path / model
    where.mkdir()
    (where / "config.json").write_text(json.dumps(config | ({"quantization_config": quantization} if quantization else {})))
    if sidecar is not None:
        (where / "hf_quant_config.json").write_text(json.dumps({"producer": {"name": "modelopt"}, "quantization": sidecar}))
    return where


def test_a_sidecar_of_modelopt_is_read(tmp_path: Path) -> None:
    # 235.1 billion weights in 4.5 bits are 132.2 GB; the two tables of 151,936 x 4,096 have 16 bits: 1.8 GB more
    where = folder(
        tmp_path, "qwen3-235b-a22b", sidecar={"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}
    )
    found = read_weights(str(where))
    assert found.precision.name == "nvfp4"
    assert found.bytes == pytest.approx(134e9, rel=2e-3)
    assert found.precision.bits[Role.HEAD] == 16


def test_a_sidecar_that_quantises_only_the_kv_cache_leaves_the_weights_in_16_bits(tmp_path: Path) -> None:
    where = folder(tmp_path, "mixtral-8x7b", sidecar={"quant_algo": None, "kv_cache_quant_algo": "FP8"})
    assert read_weights(str(where)).precision.name == "bf16"


def test_modules_that_are_left_out_have_16_bits(tmp_path: Path) -> None:
    left_out = ["lm_head", *(f"model.layers.{i}.self_attn*" for i in range(61))]
    found = read_weights(str(folder(tmp_path, "deepseek-v3", sidecar={"quant_algo": "NVFP4", "exclude_modules": left_out})))
    assert found.precision.bits[Role.ATTENTION] == found.precision.bits[Role.LATENT] == 16
    assert found.precision.bits[Role.EXPERT] == found.precision.bits[Role.SHARED] == 4.5


def test_some_layers_left_out_count_by_their_share(tmp_path: Path) -> None:
    ignore = ["lm_head", "re:.*mlp.gate$", *(f"model.layers.{i}.self_attn.{p}_proj" for i in range(16) for p in "qkvo")]
    weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    where = folder(tmp_path, "mixtral-8x7b", quant_method="compressed-tensors", config_groups=groups, ignore=ignore)
    found = read_weights(str(where)).precision
    assert (found.name, found.bits[Role.EXPERT]) == ("fp8", 8)
    assert found.bits[Role.ATTENTION] == found.bits[Role.KEYS] == 12  # half of 32 layers


def test_groups_of_compressed_tensors(tmp_path: Path) -> None:
    groups = {
        "attention": {"targets": ["re:.*self_attn.*"], "weights": {"num_bits": 8, "type": "float", "strategy": "channel"}},
        "experts": {"targets": ["re:.*experts.*"], "weights": {"num_bits": 4, "type": "int", "group_size": 128, "symmetric": True}},
    }
    where = folder(tmp_path, "mixtral-8x7b", quant_method="compressed-tensors", config_groups=groups, ignore=["lm_head"])
    found = read_weights(str(where))
    assert found.precision.name == "int4"
    assert found.precision.bits[Role.EXPERT] == 4.125
    assert found.precision.bits[Role.ATTENTION] == 8


def test_mixed_precision_of_modelopt(tmp_path: Path) -> None:
    layers = {f"model.layers.{i}.mlp.experts": {"quant_algo": "NVFP4"} for i in range(32)}
    layers |= {f"model.layers.{i}.self_attn.{p}_proj": {"quant_algo": "FP8"} for i in range(32) for p in "qkvo"}
    found = read_weights(str(folder(tmp_path, "mixtral-8x7b", sidecar={"quant_algo": "MIXED_PRECISION", "quantized_layers": layers})))
    assert (found.precision.bits[Role.EXPERT], found.precision.bits[Role.ATTENTION], found.precision.bits[Role.HEAD]) == (4.5, 8, 16)


@pytest.mark.parametrize(("quantization", "bits"), [({"quant_method": "gptq", "bits": 8}, 8.15625), ({"quant_method": "fp8"}, 8)])
def test_methods_with_one_precision(tmp_path: Path, quantization: dict[str, Any], bits: float) -> None:
    found = read_weights(str(folder(tmp_path, "mixtral-8x7b", **quantization))).precision
    assert found.bits[Role.EXPERT] == bits
    assert found.bits[Role.HEAD] == 16


def test_an_unknown_method_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown quantisation 'spqr'"):
        read_weights(str(folder(tmp_path, "mixtral-8x7b", quant_method="spqr")))


@pytest.mark.parametrize(("model", "gib"), [("gpt-oss-20b", 11.27), ("gpt-oss-120b", 59.02)])
def test_mxfp4_in_a_gguf_has_q8_0_outside_of_the_experts(model: str, gib: float) -> None:
    assert weigh(need_model(model).model, precision("mxfp4", gguf=True)).bytes / 2**30 == pytest.approx(gib, rel=0.005)
    assert precision("mxfp4").bits[Role.ATTENTION] == 16  # as published, and in vLLM


def test_the_engine_decides_what_mxfp4_means() -> None:
    limits = MachineLimits(read_machine("1xrtx4090"))
    deployments = [Deployment(engine, "gpt-oss-20b", "mxfp4", "hf:openai/gpt-oss-20b") for engine in ("llamacpp", "vllm")]
    sizes = {each.engine: limits.of(each).weights.bytes for each in deployments}
    assert sizes["llamacpp"] == pytest.approx(12.1e9, rel=0.01)
    assert sizes["vllm"] == pytest.approx(13.75e9, rel=0.01)


@pytest.mark.parametrize(("name", "gb"), [("ud-iq1_s", 33.8), ("UD-IQ2_XXS", 38.6), ("ud-q4_k_xl", 65.6)])
def test_dynamic_quantisations_of_scout(name: str, gb: float) -> None:
    assert weigh(need_model("scout").model, name).bytes / 1e9 == pytest.approx(gb, rel=0.05)


def test_the_name_of_a_dynamic_file_counts() -> None:
    checkpoint = "hf:unsloth/Llama-4-Scout-17B-16E-Instruct-GGUF/Llama-4-Scout-17B-16E-Instruct-UD-IQ1_S.gguf"
    found = MachineLimits(read_machine("1xrtx4090+64gb")).of(Deployment("llamacpp", "llama4-scout", "iq1_s", checkpoint))
    assert found.weights.bytes / 1e9 == pytest.approx(33.8, rel=0.05)


@pytest.mark.parametrize(
    "wrong",
    [
        {"quant_method": "awq", "bits": None},
        {"quant_method": "gptq", "bits": -1},
        {"quant_method": "fp8", "modules_to_not_convert": 3},
        {"quant_method": "compressed-tensors", "config_groups": {}},
        {"quant_method": "compressed-tensors", "config_groups": {"a": 1}},
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": 4}}},
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": "4"}}}},
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": 4}, "targets": ["re:["]}}},
        {"quant_method": "modelopt", "quant_algo": "MIXED", "quantized_layers": {"a": 1}},
    ],
)
def test_a_wrong_quantisation_is_one_sentence(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read_weights(str(folder(tmp_path, "mixtral-8x7b", **wrong)))
    assert "\n" not in error.value.message


@pytest.mark.parametrize("raw", [b"\xff\xfe{", b"[]", b"", b'{"text_config":' * 5000 + b"{}" + b"}" * 5000])
def test_a_file_that_is_no_json_object(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(raw)
    with pytest.raises(UserError, match=r"invalid JSON|no config\.json"):
        read_weights(str(tmp_path / "config.json"))


def test_a_safetensors_header_that_is_a_list(tmp_path: Path) -> None:
    where = folder(tmp_path, "mixtral-8x7b")
    (where / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"[]")
    with pytest.raises(UserError, match="safetensors header"):
        read_weights(str(where))
