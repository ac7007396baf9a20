"""Ollama's adapter: environment, refusals, and how replies are read. Starts nothing.

The pinned table of the contract test lists Ollama's options and fields.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from enginebench.adapter import JSON, WORKERS, Deployment, Install, Launch, Parallelism, Reply, Site, Unsupported
from enginebench.domain import ClosedLoop, Load
from enginebench.engines.registry import load_file
from enginebench.machine.folders import resource_dir

OLLAMA = load_file(resource_dir("adapters") / "ollama.py")
INSTALL = Install("ollama", "unknown", python=Path("/env/bin/python"), binary=Path("/usr/bin/ollama"))
TABLE = json.loads((Path(__file__).parents[2] / "contracts" / "tables" / "ollama.json").read_text())
BASE = {
    "HOME": "/site",
    "OLLAMA_HOST": "127.0.0.1:8123",
    "OLLAMA_MODELS": "/site/models",
    "OLLAMA_NUM_PARALLEL": "4",
    "OLLAMA_CONTEXT_LENGTH": "512",
    "OLLAMA_MAX_LOADED_MODELS": "1",
    "OLLAMA_MAX_QUEUE": "512",
    "OLLAMA_KEEP_ALIVE": "-1",
    "OLLAMA_LOAD_TIMEOUT": "0",
    "OLLAMA_NO_CLOUD": "1",
    "OLLAMA_NOPRUNE": "1",
}


def ollama(options: Mapping[str, JSON] | None = None, model: str = "tiny", concurrency: int = 4) -> Deployment:
    return Deployment("ollama", model, "q8_0", "t.gguf", max_context=512, max_concurrency=concurrency, options=options or {})


def start(deployment: Deployment) -> Launch:
    return OLLAMA.launch(deployment, INSTALL, Site("127.0.0.1", 8123, Path("/site"), "/m/t.gguf"))


def plan(deployment: Deployment) -> dict[str, JSON]:
    read: dict[str, JSON] = json.loads(start(deployment).files["ollama.json"])
    return read


def test_the_command_and_plan_of_the_worker() -> None:
    launch = start(ollama())
    command = "/env/bin/python WORKERS/ollama_worker.py --host 127.0.0.1 --port 8123 /usr/bin/ollama /site/ollama.json"
    assert shlex.join(launch.argv).replace(str(WORKERS), "WORKERS") == command
    assert launch.env == BASE
    assert plan(ollama()) == {
        "models": [{"name": "tiny:q8_0", "file": "/m/t.gguf"}],
        "ready": "enginebench-ready",
        "load": {"options": {"num_ctx": 512}, "shift": False, "keep_alive": -1, "stream": False},
    }


@pytest.mark.parametrize(
    ("options", "added"),
    [
        ({"flash_attention": True, "kv_type": "q8_0"}, {"OLLAMA_FLASH_ATTENTION": "1", "OLLAMA_KV_CACHE_TYPE": "q8_0"}),
        ({"flash_attention": False}, {"OLLAMA_FLASH_ATTENTION": "0"}),
        ({"spread": True, "gpu_overhead": 1024}, {"OLLAMA_SCHED_SPREAD": "1", "OLLAMA_GPU_OVERHEAD": "1024"}),
        ({"cpu_moe": True}, {"LLAMA_ARG_CPU_MOE": "1"}),
        ({"n_cpu_moe": 12, "fit": False}, {"LLAMA_ARG_N_CPU_MOE": "12", "LLAMA_ARG_FIT": "off"}),
        ({"override_tensor": "exps=CPU", "fit": True}, {"LLAMA_ARG_OVERRIDE_TENSOR": "exps=CPU", "LLAMA_ARG_FIT": "on"}),
        ({"also": ["/m/b.gguf", "/m/c.gguf"]}, {"OLLAMA_MAX_LOADED_MODELS": "3"}),
    ],
)
def test_option_becomes_environment(options: dict[str, JSON], added: dict[str, str]) -> None:
    launch = start(ollama(options))
    assert launch.env == BASE | added
    assert any("does not guarantee" in note for note in launch.notes) == any(name.startswith("LLAMA_ARG") for name in added)


def test_option_becomes_a_field_that_loading_and_every_request_have() -> None:
    deployment = ollama({"threads": 8, "batch": 256, "gpu_layers": 0, "mmap": False})
    runner: dict[str, JSON] = {"num_ctx": 512, "num_thread": 8, "num_batch": 256, "num_gpu": 0, "use_mmap": False}
    load, sent = plan(deployment)["load"], OLLAMA.request_fields(deployment, ClosedLoop())
    assert isinstance(load, dict)
    assert isinstance(sent["options"], dict)
    assert load["options"] == runner
    assert {name: value for name, value in sent["options"].items() if name in runner} == runner  # anything else would load it again
    assert (load["shift"], sent["shift"]) == (False, False)


def test_models_that_stay_loaded_come_after_the_one_that_is_measured() -> None:
    models = plan(ollama({"also": ["/m/b.gguf"]}))["models"]
    assert models == [{"name": "tiny:q8_0", "file": "/m/t.gguf"}, {"name": "also-0", "file": "/m/b.gguf"}]


@pytest.mark.parametrize(
    ("model", "name"), [("Llama 4/Scout", "Llama-4-Scout:q8_0"), ("-x", "x:q8_0"), ("@", "model:q8_0"), ("a" * 99, "a" * 80 + ":q8_0")]
)
def test_names_are_shortened_and_cleaned(model: str, name: str) -> None:
    assert start(ollama(model=model)).served_name == name


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (replace(ollama(), parallelism=Parallelism(tp=2)), "no tensor"),
        (ollama({"cpu_moe": True, "n_cpu_moe": 3}), "n_cpu_moe"),
        (ollama({"kv_type": "q4_0", "flash_attention": False}), "flash attention"),
        (ollama({"main_gpu": 0, "spread": True}), "main_gpu"),
        (ollama({"also": ["b.gguf"]}), "absolute paths"),
    ],
)
def test_refuses(deployment: Deployment, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        OLLAMA.check(deployment)


@pytest.mark.parametrize("load", [ClosedLoop(turns=2), ClosedLoop(prefix_groups=2, prefix_tokens=8)])
def test_a_shared_beginning_cannot_be_cold(load: Load) -> None:
    with pytest.raises(Unsupported, match="prefix_cache: allowed"):
        OLLAMA.check_loads(ollama(), [ClosedLoop(), load])
    OLLAMA.check_loads(ollama(), [ClosedLoop(), replace(load, prefix_cache="allowed")])


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_a_body_holds_what_ollama_has(api: Literal["completions", "chat"]) -> None:
    load = ClosedLoop(output_tokens=7, temperature=0.5, api=api)
    extra = OLLAMA.request_fields(ollama(), load)
    body = OLLAMA.dialect(ollama(), load).body(model="m", prompt="hi", output_tokens=7, temperature=0.5, seed=3, extra=extra)
    options = body["options"]
    assert isinstance(options, dict)
    assert body.keys() <= set(TABLE["generate" if api == "completions" else "chat"])
    assert options.keys() <= TABLE["options"].keys()
    assert (options["num_predict"], options["temperature"], options["seed"], options["top_k"], options["top_p"]) == (7, 0.5, 3, 0, 1.0)
    assert (body["think"], body["truncate"], body["shift"], body["keep_alive"]) == (False, False, False, -1)
    assert body.get("raw") is (True if api == "completions" else None)


def listing(*names: str) -> Reply:
    return Reply(200, json.dumps({"models": [{"name": name, "digest": "d"} for name in names]}).encode())


@pytest.mark.parametrize(
    ("reply", "ready"),
    [
        (Reply(0), "loading"),
        (Reply(503), "loading"),
        (Reply(500), "broken"),
        (listing(), "loading"),
        (listing("tiny:q8_0"), "loading"),  # made, but not loaded yet
        (listing("tiny:q8_0", "enginebench-ready:latest"), "ready"),
    ],
)
def test_ready_when_the_worker_has_finished(reply: Reply, ready: str) -> None:
    assert OLLAMA.readiness(lambda path: {"/api/tags": reply}[path]) == ready


@pytest.mark.parametrize(("file_type", "precision"), [("Q4_K_M", "q4_k_m"), ("F16", "f16"), ("MXFP4_MOE", "mxfp4")])
def test_resolved(file_type: str, precision: str) -> None:
    other: JSON = {"name": "also-0", "digest": "e", "details": {"quantization_level": "F32"}, "context_length": 1}
    ours: JSON = {"name": "tiny:q8_0", "digest": "d", "details": {"quantization_level": file_type}, "context_length": 512}
    replies: Mapping[str, JSON] = {
        "/api/version": {"version": "0.33.0"},
        "/api/tags": {"models": [{"name": "also-0", "digest": "e"}, {"name": "enginebench-ready:latest", "digest": "d"}]},
        "/api/ps": {"models": [other, ours]},
    }
    resolved = OLLAMA.resolved(lambda path: Reply(200, json.dumps(replies[path]).encode()))
    assert (resolved.version, resolved.model, resolved.precision, resolved.context) == ("0.33.0", "tiny:q8_0", precision, 512)
    assert resolved.prefix_cache is True
    assert resolved.raw == replies


def test_find_searches_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert OLLAMA.find(None) == []
    (tmp_path / "ollama").touch(mode=0o755)
    assert OLLAMA.find(None) == [Install("ollama", "unknown", python=Path(sys.executable), binary=tmp_path / "ollama")]
