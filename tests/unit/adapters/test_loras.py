"""LoRA adapters: what servers load, what a request to one says, in turn; and who refuses them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from enginebench.adapter import JSON, Install, Launch, Site, Unsupported
from enginebench.domain import Cell, ClosedLoop, Deployment, plain_object
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.scenario import load_scenario
from enginebench.scenario.plan import plan

REGISTRY = discover()
LORAS = {"one": "/l/one", "two": "/l/two"}
LOAD = ClosedLoop()


def deployed(engine: str, precision: str = "bf16", loras: Mapping[str, str] = LORAS) -> Deployment:
    return Deployment(engine, "m", precision, "/m", max_context=512, loras=loras)


def start(engine: str, precision: str = "bf16") -> Launch:
    install = Install("xllamacpp" if engine == "llamacpp" else engine, "0", python=Path("/env/python"), binary=Path("/env/x"))
    return REGISTRY[engine].launch(deployed(engine, precision), install, Site("127.0.0.1", 1, Path("/site"), "/m", loras=LORAS))


def test_what_is_loaded() -> None:
    assert " --enable-lora --max-loras 2 --lora-modules one=/l/one two=/l/two " in f"{' '.join(start('vllm').argv)} "
    assert " --enable-lora --max-loras-per-batch 2 --lora-paths one=/l/one two=/l/two " in f"{' '.join(start('sglang').argv)} "
    assert " ".join(start("llamacpp", "q8_0").argv).endswith("--lora /l/one --lora /l/two")


@pytest.mark.parametrize(
    ("engine", "fields"),
    [
        ("vllm", {"model": "two"}),
        ("sglang", {"lora_path": "two"}),
        ("llamacpp", {"lora": [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 1.0}]}),
    ],
)
def test_what_a_request_says(engine: str, fields: Mapping[str, JSON]) -> None:
    assert REGISTRY[engine].lora_fields(deployed(engine), "two") == fields


def test_llamacpp_applies_none_to_requests_of_the_model_itself() -> None:
    """Seen with xllamacpp 2026.10: without `lora` in a request, all that are loaded apply."""
    zeros = [{"id": 0, "scale": 0.0}, {"id": 1, "scale": 0.0}]
    assert REGISTRY["llamacpp"].request_fields(deployed("llamacpp"), LOAD)["lora"] == zeros
    assert "lora" not in REGISTRY["llamacpp"].request_fields(deployed("llamacpp", loras={}), LOAD)


@pytest.mark.parametrize("engine", ["mlx", "transformers", "trtllm", "exllamav3", "ollama", "fake"])
def test_others_refuse(engine: str) -> None:
    with pytest.raises(Unsupported, match="serves no LoRA adapters here"):
        REGISTRY[engine].check_neutral(deployed(engine))


def test_without_adapters_nothing_is_stored_and_no_id_moves() -> None:
    plain = Deployment("vllm", "m", "bf16", "m")
    assert "loras" not in plain_object(plain)
    assert "loras" not in plain_object(ClosedLoop())
    assert Cell(plain, ClosedLoop()).id == "cc91534f181d"


def test_a_scenario(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    text = (
        "name: s\nmodels: {moe: {random_weights: {layers: 2}}}\n"
        "deployments:\n  - {engine: llamacpp, model: moe, precision: f16, loras: {one: one.gguf}}\nloads: [{loras: [0, 1, 2]}]\n"
    )
    file.write_text(text)
    with pytest.raises(UserError, match=r"s\.yaml:4: deployments\[0\]\.loras\.one: there is no LoRA adapter 'one\.gguf'"):
        load_scenario(file, REGISTRY)
    (tmp_path / "one.gguf").touch()
    planned = plan(load_scenario(file, REGISTRY), REGISTRY)
    said = "2 LoRA adapters get requests, and the deployment has 1: write `loras`"
    assert [planned.skipped.get(cell.id, "") for cell in planned.cells] == ["", "", said]
