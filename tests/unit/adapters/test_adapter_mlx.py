"""MLX's adapter: flags, refusals, and the resolved configuration. Starts nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.adapter import JSON, WORKERS, Deployment, Install, Launch, Parallelism, Reply, Runtime, Site, Unsupported
from enginebench.domain import ClosedLoop
from enginebench.engines.registry import load_file
from enginebench.machine.folders import resource_dir

MLX = load_file(resource_dir("adapters") / "mlx.py")
INSTALL = Install("mlx-lm", "0.32.2", python=Path("/env/bin/python"))
SERVER = "--model /m/tiny --decode-concurrency 4 --prompt-concurrency 4 --prompt-cache-size 0"


def mlx(options: Mapping[str, JSON] | None = None, runtime: Runtime = "process", concurrency: int = 4) -> Deployment:
    return Deployment("mlx", "tiny", "4bit", "tiny", runtime, max_context=512, max_concurrency=concurrency, options=options or {})


def start(deployment: Deployment, checkpoint: str = "/m/tiny") -> Launch:
    return MLX.launch(deployment, INSTALL, Site("127.0.0.1", 8123, Path("/site"), checkpoint))


def words(deployment: Deployment) -> str:
    text = shlex.join(start(deployment).argv).replace(str(WORKERS), "WORKERS")
    return text.removeprefix("/env/bin/python WORKERS/mlx_worker.py ").removesuffix(" --host 127.0.0.1 --port 8123")


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, SERVER),
        ({"prompt_concurrency": 2}, SERVER.replace("--prompt-concurrency 4", "--prompt-concurrency 2")),
        ({"prefill_step_size": 512}, SERVER.replace(" --prompt-cache-size", " --prefill-step-size 512 --prompt-cache-size")),
        ({"prefix_cache": True}, SERVER.removesuffix(" --prompt-cache-size 0")),
        ({"prefix_cache": True, "prompt_cache_bytes": 9}, SERVER.replace("--prompt-cache-size 0", "--prompt-cache-bytes 9")),
    ],
)
def test_option_becomes_flags(options: dict[str, JSON], flags: str) -> None:
    assert words(mlx(options)) == f"serve {flags}"


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 9}, "--kv-bits 8 --kv-group-size 32 --quantized-kv-start 9"),
        ({"draft_model": "/m/draft", "num_draft_tokens": 5}, "--draft-model /m/draft --num-draft-tokens 5"),
    ],
)
def test_options_that_serialize_requests_need_concurrency_one(options: dict[str, JSON], flags: str) -> None:
    assert words(mlx(options, concurrency=1)) == f"serve {SERVER.replace(' 4', ' 1')} {flags}"
    with pytest.raises(Unsupported, match="one request at a time"):
        MLX.check(mlx(options, concurrency=2))
    with pytest.raises(Unsupported, match=r"only mlx_lm\.server"):
        MLX.check(mlx(options, "in-process", concurrency=1))


def test_prefill_takes_eight_prompts_by_default() -> None:
    assert "--decode-concurrency 64 --prompt-concurrency 8" in words(mlx(concurrency=64))


def test_in_process_has_the_flags_of_the_server_and_takes_ids() -> None:
    offline = mlx(runtime="in-process")
    assert words(offline) == f"offline {SERVER}"
    assert MLX.traits(offline).takes_ids
    assert not MLX.traits(mlx()).takes_ids


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (replace(mlx(), parallelism=Parallelism(tp=2)), r"mlx\.launch"),
        (replace(mlx(), parallelism=Parallelism(ep=2)), r"mlx\.launch"),
        (mlx({"prompt_concurrency": 5}), "more than the 4"),
        (mlx({"kv_group_size": 32}), "needs kv_bits"),
        (mlx({"quantized_kv_start": 0}), "needs kv_bits"),
        (mlx({"num_draft_tokens": 3}), "needs a draft_model"),
        (mlx({"prompt_cache_bytes": 10}), "prefix_cache: true"),
    ],
)
def test_refuses(deployment: Deployment, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        MLX.check(deployment)


def test_requests_name_the_model_as_the_command_line_does_and_only_hub_ids_need_the_hub() -> None:
    local, hub = start(mlx()), start(mlx(), "org/tiny-4bit")
    assert (local.served_name, local.env["HF_HUB_OFFLINE"]) == ("/m/tiny", "1")
    assert hub.served_name == "org/tiny-4bit"
    assert "HF_HUB_OFFLINE" not in hub.env


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_no_request_carries_a_seed(temperature: float) -> None:
    """A seed makes the server answer its requests one after another; null means no seed."""
    load = ClosedLoop(output_tokens=7, temperature=temperature)
    extra = MLX.request_fields(mlx(), load)
    body = MLX.dialect(mlx(), load).body(model="m", prompt="hi", output_tokens=7, temperature=temperature, seed=3, extra=extra)
    assert body["seed"] is None
    assert (body["max_tokens"], body["temperature"], body["top_k"], body["top_p"], body["min_p"]) == (7, temperature, 0, 1.0, 0.0)
    assert body["stream_options"] == {"include_usage": True}


def live(**changes: JSON) -> Mapping[str, JSON]:
    live: dict[str, JSON] = {
        "version": "0.32.2", "model": "/m/tiny", "dtype": "bfloat16", "quantization": [], "max_position_embeddings": 4096,
        "batchable": True, "decode_concurrency": 4, "prompt_concurrency": 4, "prefill_step_size": 2048, "prompt_cache_size": 0,
        "kv_bits": None,
    }  # fmt: skip
    return live | changes


@pytest.mark.parametrize(
    ("layers", "precision"),
    [
        ([], "bf16"),
        (["affine 4 64"], "4bit"),
        (["affine 4 64", "affine 8 64"], "4bit+8bit"),
        (["mxfp4 4 32"], "mxfp4"),
        (["affine 8 64", "mxfp4 4 32"], "8bit+mxfp4"),
    ],
)
def test_precision_of_the_layers(layers: list[JSON], precision: str) -> None:
    resolved = MLX.resolved(lambda _: Reply(200, json.dumps(live(quantization=layers)).encode()))
    assert resolved.precision == precision


def test_resolved() -> None:
    resolved = MLX.resolved(lambda _: Reply(200, json.dumps(live()).encode()))
    assert (resolved.version, resolved.model, resolved.context, resolved.slots) == ("0.32.2", "/m/tiny", 4096, 4)
    assert (resolved.prefix_cache, resolved.kv_dtype, resolved.stream_interval) == (False, "bf16", 1)
    serial = MLX.resolved(lambda _: Reply(200, json.dumps(live(batchable=False, kv_bits=8, prompt_cache_size=10)).encode()))
    assert (serial.slots, serial.kv_dtype, serial.prefix_cache) == (1, "8bit", True)
    assert MLX.resolved(lambda _: Reply(200, b"{}")).raw == {}  # before the model is loaded


def test_find_reads_metadata_only(tmp_path: Path) -> None:
    info = tmp_path / "lib/python3.11/site-packages/mlx_lm-0.32.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mlx-lm\nVersion: 0.32.2\n")
    python = tmp_path / "bin/python"
    assert MLX.find(python) == [Install("mlx-lm", "0.32.2", python=python)]
    assert MLX.find(None) == []
