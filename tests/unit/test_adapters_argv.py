"""Golden command lines of the adapters: what each option becomes, and what each refuses; and what each reads back.

Knows no engine: nothing is started, and `find` looks at a made-up environment.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from enginebench.adapter import (
    JSON,
    WORKERS,
    Adapter,
    Deployment,
    Install,
    Launch,
    Load,
    NotInstalled,
    Parallelism,
    Reply,
    Runtime,
    Site,
    Unsupported,
)
from enginebench.registry import load_file
from enginebench.resources import folder

FAKE = load_file(folder("adapters") / "fake.py")
OPENAI = load_file(folder("adapters") / "openai.py")
LLAMACPP = load_file(folder("adapters") / "llamacpp.py")
TRANSFORMERS = load_file(folder("adapters") / "transformers.py")
PYTHON = Path("/env/bin/python")
XLLAMACPP = Install("xllamacpp", "2026.10.11549", python=PYTHON)
LLAMA_SERVER = Install("llama-server", "unknown", binary=Path("/opt/llama-server"))
LLAMA_CPP_PYTHON = Install("llama-cpp-python", "0.3.36", python=PYTHON)
SERVE = Install("serve", "5.23.0", python=PYTHON)
BUILTIN = Install("builtin", "0", python=PYTHON)


def llama(options: Mapping[str, JSON] | None = None, runtime: Runtime = "process", concurrency: int = 4) -> Deployment:
    return Deployment("llamacpp", "tiny", "q8_0", "tiny.gguf", runtime, max_context=512, max_concurrency=concurrency, options=options or {})


def hf(options: Mapping[str, JSON] | None = None, runtime: Runtime = "process", precision: str = "bf16") -> Deployment:
    return Deployment("transformers", "tiny", precision, "tiny", runtime, max_context=600, max_concurrency=4, options=options or {})


def start(adapter: Adapter, deployment: Deployment, install: Install, checkpoint: str) -> Launch:
    return adapter.launch(deployment, install, Site("127.0.0.1", 8123, Path("/site"), checkpoint))


def words(launch: Launch) -> str:
    return shlex.join(launch.argv).replace(str(WORKERS), "WORKERS")


def llama_flags(options: Mapping[str, JSON]) -> str:
    return words(start(LLAMACPP, llama(options), LLAMA_SERVER, "/m/t.gguf")).removeprefix("/opt/llama-server --host 127.0.0.1 --port 8123 ")


BASE = "-m /m/t.gguf -a tiny -c 2048 -np 4 --no-kv-unified -fit off --metrics --offline --no-cache-prompt --cache-ram 0 -ngl all"


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, BASE),
        ({"threads": 8, "threads_batch": 16}, f"{BASE} -t 8 -tb 16"),
        ({"batch": 4096, "ubatch": 2048}, f"{BASE} -b 4096 -ub 2048"),
        ({"flash_attention": True}, f"{BASE} -fa on"),
        ({"flash_attention": False}, f"{BASE} -fa off"),
        ({"gpu_layers": 0}, BASE.replace("-ngl all", "-ngl 0")),
        ({"cpu_moe": True}, f"{BASE} -cmoe"),
        ({"n_cpu_moe": 12, "moe_cache_mib": 4096}, f"{BASE} -ncmoe 12 --moe-cache-mib 4096"),
        ({"kv_type": "q8_0"}, f"{BASE} -ctk q8_0 -ctv q8_0"),
        ({"unified_kv": True}, BASE.replace("--no-kv-unified", "--kv-unified")),
        ({"prefix_cache": True}, BASE.replace(" --no-cache-prompt --cache-ram 0", "")),
        ({"extra": ["-sm", "row"]}, f"{BASE} -sm row"),
    ],
)
def test_llamacpp_option_becomes_flags(options: dict[str, JSON], flags: str) -> None:
    assert llama_flags(options) == flags


def test_context_is_the_total_over_all_slots() -> None:
    assert "-c 8192 -np 16" in words(start(LLAMACPP, llama(concurrency=16), LLAMA_SERVER, "/m/t.gguf"))


def test_the_wheel_gets_the_flags_of_the_binary() -> None:
    binary, wheel = (start(LLAMACPP, llama(), install, "/m/t.gguf") for install in (LLAMA_SERVER, XLLAMACPP))
    assert wheel.argv[:3] == (str(PYTHON), str(WORKERS / "llamacpp_worker.py"), "serve")
    assert wheel.argv[3:] == binary.argv[1:]
    assert wheel.served_name == binary.served_name == "tiny"


def test_llamacpp_in_process_has_no_address() -> None:
    launch = start(LLAMACPP, llama(runtime="in-process"), XLLAMACPP, "/m/t.gguf")
    assert words(launch) == f"/env/bin/python WORKERS/llamacpp_worker.py offline {BASE}"


def test_llama_cpp_python_flags() -> None:
    deployment = llama({"server": "llama-cpp-python", "threads": 2, "flash_attention": True}, concurrency=1)
    launch = start(LLAMACPP, deployment, LLAMA_CPP_PYTHON, "/m/t.gguf")
    assert words(launch) == (
        "/env/bin/python -m llama_cpp.server --host 127.0.0.1 --port 8123 --model /m/t.gguf --model_alias tiny --n_ctx 512 "
        "--n_gpu_layers -1 --logits_all false --n_threads 2 --flash_attn true"
    )
    assert launch.notes


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (llama({"cpu_moe": True, "n_cpu_moe": 3}), "n_cpu_moe"),
        (llama({"kv_type": "q4_0", "flash_attention": False}), "flash attention"),
        (llama({"server": "llama-server"}, runtime="in-process"), "only xllamacpp runs in-process"),
        (llama({"server": "llama-cpp-python"}), "one request at a time"),
        (llama({"server": "llama-cpp-python", "kv_type": "q8_0"}, concurrency=1), "no flag for kv_type"),
        (Deployment("llamacpp", "tiny", "f16", "t.gguf", parallelism=Parallelism(tp=2)), "parallelism"),
    ],
)
def test_llamacpp_refuses(deployment: Deployment, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        LLAMACPP.check(deployment)


def test_choose_takes_the_server_that_is_asked_for() -> None:
    installs = (XLLAMACPP, LLAMA_SERVER, LLAMA_CPP_PYTHON)
    assert LLAMACPP.choose(llama(), installs) is XLLAMACPP
    assert LLAMACPP.choose(llama(), installs[1:]) is LLAMA_SERVER
    assert LLAMACPP.choose(llama({"server": "llama-server"}), installs) is LLAMA_SERVER
    assert LLAMACPP.choose(llama({"server": "llama-cpp-python"}), installs) is LLAMA_CPP_PYTHON
    with pytest.raises(NotInstalled, match="xllamacpp or llama-server is not installed"):
        LLAMACPP.choose(llama(), (LLAMA_CPP_PYTHON,))  # never chosen unasked
    with pytest.raises(NotInstalled, match="xllamacpp is not installed"):
        LLAMACPP.choose(llama(runtime="in-process"), (LLAMA_SERVER,))
    with pytest.raises(Unsupported, match="asks for llama-server, found was xllamacpp"):
        start(LLAMACPP, llama({"server": "llama-server"}), XLLAMACPP, "/m/t.gguf")


def test_llamacpp_request_fields() -> None:
    fields = LLAMACPP.request_fields(llama(), Load(prefix_cache="allowed"), "tiny")
    assert fields == {
        "ignore_eos": True,
        "cache_prompt": False,  # the launch did not allow it
        "stream_options": {"include_usage": True},
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
    }
    caching = llama({"prefix_cache": True})
    assert LLAMACPP.request_fields(caching, Load(prefix_cache="allowed"), "tiny")["cache_prompt"] is True
    assert LLAMACPP.request_fields(caching, Load(prefix_cache="cold"), "tiny")["cache_prompt"] is False


def served(replies: Mapping[str, JSON | str]) -> Mapping[str, Reply]:
    return {path: Reply(200, (body if isinstance(body, str) else json.dumps(body)).encode()) for path, body in replies.items()}


def test_llamacpp_reads_itself_back() -> None:
    props: JSON = {"total_slots": 4, "model_alias": "tiny", "model_ftype": "Q4_K - Medium", "build_info": "b10434-0c1e570"}
    replies = served({"/props": props, "/slots": [{"id": 0, "n_ctx": 512}], "/v1/models": {"data": []}})
    resolved = LLAMACPP.resolved(lambda path: replies[path])
    assert (resolved.version, resolved.model, resolved.precision) == ("b10434-0c1e570", "tiny", "q4_k_m")
    assert (resolved.context, resolved.slots, resolved.raw["/props"]) == (512, 4, props)


@pytest.mark.parametrize(
    ("ftype", "precision"),
    [
        ("all F32", "f32"),
        ("F16", "f16"),
        ("(guessed) Q6_K", "q6_k"),
        ("Q5_K - Small", "q5_k_s"),
        ("Q2_K - Medium", "q2_k"),
        ("IQ4_XS - 4.25 bpw", "iq4_xs"),
        ("MXFP4 MoE", "mxfp4"),
        ("", ""),
    ],
)
def test_file_type_as_precision(ftype: str, precision: str) -> None:
    replies = served({"/props": {"model_ftype": ftype}, "/slots": [], "/v1/models": {}})
    assert LLAMACPP.resolved(lambda path: replies[path]).precision == precision


def test_llamacpp_counters_count_cached_tokens_as_prompt_tokens() -> None:
    text = (
        "# TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total 96\nllamacpp:prompt_tokens_cached_total 31\n"
        "llamacpp:tokens_predicted_total 24\nllamacpp:n_busy_slots_per_decode 1.5\n"
    )
    assert LLAMACPP.counters(lambda _: Reply(200, text.encode())) == {"prompt_tokens": 127, "cached_tokens": 31, "output_tokens": 24}
    assert LLAMACPP.counters(lambda _: Reply(501)) == {}


@pytest.mark.parametrize(
    ("statuses", "ready"), [((0,), "loading"), ((503,), "loading"), ((200,), "ready"), ((404, 200), "ready"), ((500,), "broken")]
)
def test_llamacpp_readiness(statuses: tuple[int, ...], ready: str) -> None:
    answers = iter(statuses)
    assert LLAMACPP.readiness(lambda _: Reply(next(answers))) == ready


HF = "--dtype bfloat16 --device auto"
CB = "--cb-num-blocks 24 --cb-max-requests-per-batch 4"


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, f"{HF} {CB}"),
        ({"experts_implementation": "eager"}, f"{HF} --experts-implementation eager {CB}"),
        ({"attn_implementation": "sdpa"}, f"{HF} --attn-implementation sdpa {CB}"),
        ({"device": "cpu"}, f"--dtype bfloat16 --device cpu {CB}"),
        ({"prefix_cache": True}, f"{HF} {CB} --prefix-cache"),
        ({"cb_page_size": 16}, f"{HF} --cb-page-size 16 --cb-num-blocks 304 --cb-max-requests-per-batch 4"),
        ({"cb_num_blocks": 99}, f"{HF} --cb-num-blocks 99 --cb-max-requests-per-batch 4"),
        ({"cb_num_blocks": "auto", "cb_max_memory_percent": 0.5}, f"{HF} --cb-max-memory-percent 0.5 --cb-max-requests-per-batch 4"),
        ({"cb_max_batch_tokens": 1024}, f"{HF} --cb-num-blocks 24 --cb-max-batch-tokens 1024 --cb-max-requests-per-batch 4"),
        ({"cb_use_cuda_graph": True}, f"{HF} {CB} --cb-use-cuda-graph"),
        ({"cb_use_cuda_graph": False}, f"{HF} {CB} --no-cb-use-cuda-graph"),
    ],
)
def test_transformers_option_becomes_flags(options: dict[str, JSON], flags: str) -> None:
    prefix = "/env/bin/python WORKERS/transformers_worker.py serve /m/tiny --host 127.0.0.1 --port 8123 "
    assert words(start(TRANSFORMERS, hf(options), SERVE, "/m/tiny")) == prefix + flags


def test_transformers_names_the_model_as_the_command_line_does() -> None:
    local = start(TRANSFORMERS, hf({"threads": 2}), SERVE, "/m/tiny")
    assert local.served_name == "/m/tiny"
    assert local.env == {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_HOME": "/site/huggingface", "OMP_NUM_THREADS": "2"}
    hub = start(TRANSFORMERS, hf(), SERVE, "org/tiny")
    assert hub.served_name == "org/tiny"
    assert "HF_HUB_OFFLINE" not in hub.env


def test_transformers_in_process_has_no_address() -> None:
    launch = start(TRANSFORMERS, hf(runtime="in-process", precision="f32"), SERVE, "/m/tiny")
    assert words(launch) == f"/env/bin/python WORKERS/transformers_worker.py offline /m/tiny --dtype float32 --device auto {CB}"


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (hf(precision="q4_k_m"), "not q4_k_m"),
        (hf({"cb_max_memory_percent": 0.5}), "cb_num_blocks: auto"),
        (hf({"cb_max_memory_percent": 0.5, "cb_num_blocks": 8}), "cb_num_blocks: auto"),
        (Deployment("transformers", "tiny", "bf16", "tiny", parallelism=Parallelism(ep=2)), "parallelism"),
    ],
)
def test_transformers_refuses(deployment: Deployment, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        TRANSFORMERS.check(deployment)


def test_transformers_refuses_a_path_it_would_misread() -> None:
    with pytest.raises(Unsupported, match="revision"):
        start(TRANSFORMERS, hf(), SERVE, "/m/tiny@home")


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_transformers_body_stays_inside_the_whitelist(api: str, temperature: float) -> None:
    load = Load(output_tokens=7, temperature=temperature, api="chat" if api == "chat" else "completions")
    extra = TRANSFORMERS.request_fields(hf(), load, "/m/tiny")
    body = TRANSFORMERS.dialect(hf(), load).body(
        model="/m/tiny", prompt="hi", output_tokens=7, temperature=temperature, seed=1, extra=extra
    )
    assert body.keys() <= {"model", "prompt", "messages", "max_tokens", "temperature", "stream", "seed", "generation_config"}
    config = json.loads(str(body["generation_config"]))
    assert (config["max_new_tokens"], config["eos_token_id"], config["do_sample"]) == (7, -1, temperature > 0)


def test_transformers_reports_the_experts_that_ran() -> None:
    live: JSON = {
        "version": "5.23.0",
        "model": "/m/tiny",
        "dtype": "bfloat16",
        "experts_implementation": {"": "grouped_mm"},
        "experts_ran": ["grouped_mm", "grouped_mm_fallback"],
        "max_position_embeddings": 2048,
        "prefix_cache": False,
        "continuous_batching": {"page_size": 256, "num_blocks": 4, "max_requests_per_batch": 4},
    }
    resolved = TRANSFORMERS.resolved(lambda _: Reply(200, json.dumps(live).encode()))
    assert resolved.options == {"experts_implementation": "grouped_mm+grouped_mm_fallback"}
    assert (resolved.precision, resolved.kv_dtype, resolved.context, resolved.slots) == ("bf16", "bf16", 1024, 4)
    assert resolved.prefix_cache is False


def test_find_reads_metadata_and_path_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, python = tmp_path / "lib/python3.11/site-packages", tmp_path / "bin/python"  # the interpreter itself need not exist
    for package, version in (("xllamacpp", "2026.10.11549"), ("llama_cpp_python", "0.3.36"), ("transformers", "5.23.0")):
        info = site / f"{package}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: {version}\n")
    binaries = tmp_path / "path"
    binaries.mkdir()
    (binaries / "llama-server").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(binaries))
    assert LLAMACPP.find(python) == [
        Install("xllamacpp", "2026.10.11549", python=python),
        Install("llama-server", "unknown", binary=binaries / "llama-server"),
        Install("llama-cpp-python", "0.3.36", python=python),
    ]
    assert LLAMACPP.find(None) == [Install("llama-server", "unknown", binary=binaries / "llama-server")]
    assert TRANSFORMERS.find(python) == [Install("serve", "5.23.0", python=python)]
    assert TRANSFORMERS.find(None) == []


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, ""),
        ({"ttft_ms": 20.0, "burst": False}, ""),  # as by default
        ({"protocol": "ollama", "reasoning_tokens": 4, "tool_call": True}, "--protocol ollama --reasoning-tokens 4 --tool-call"),
        ({"protocol": "sglang", "incremental": True}, "--protocol sglang --incremental"),
        ({"tick_ms": 10, "ttft_ms": 50}, "--ttft-ms 50 --tick-ms 10"),
        ({"itl_ms": 0, "batch_events": 32, "close": True}, "--itl-ms 0 --batch-events 32 --close"),
    ],
)
def test_fake_option_becomes_flags(options: dict[str, JSON], flags: str) -> None:
    deployment = Deployment("fake", "m", "none", "m", max_context=64, options=options)
    prefix = "/env/bin/python WORKERS/fake_worker.py --host 127.0.0.1 --port 8123 --model m --context 64"
    assert words(start(FAKE, deployment, BUILTIN, "m")) == f"{prefix} {flags}".rstrip()


def test_the_fake_engine_takes_ids_where_its_protocol_does() -> None:
    takes = {
        protocol: FAKE.takes_ids(Deployment("fake", "m", "none", "m", options={"protocol": protocol}))
        for protocol in ("openai", "ollama", "sglang", "tgi")
    }
    assert takes == {"openai": True, "ollama": False, "sglang": True, "tgi": False}
    with pytest.raises(Unsupported, match="no chat route"):
        FAKE.check_loads(Deployment("fake", "m", "none", "m", options={"protocol": "tgi"}), [Load(api="chat")])


RUNNING = {
    "vllm": {"/v1/models": {"data": [{"id": "org/m"}]}, "/version": {"version": "0.33.0"}},
    "sglang": {
        "/v1/models": {"data": [{"id": "org/m"}]},
        "/server_info": {
            "version": "0.5.23", "context_length": 4096, "max_running_requests": 64, "disable_radix_cache": True, "kv_cache_dtype": "auto",
            "api_key": "hush", "admin_api_key": "hush", "ssl_keyfile_password": "hush",
        },
    },
    "ollama": {
        "/v1/models": {"data": [{"id": "org/m"}, {"id": "other"}]},
        "/api/version": {"version": "0.33.0"},
        "/api/ps": {"models": [{"name": "org/m", "context_length": 8192}]},
    },
    "tgi": {"/info": {"version": "3.3.6", "model_id": "org/m", "max_total_tokens": 2048}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ("vllm", ("0.33.0", "org/m", None, None, None)),
        ("sglang", ("0.5.23", "org/m", 4096, 64, False)),
        ("ollama", ("0.33.0", "org/m", 8192, None, None)),
        ("tgi", ("3.3.6", "org/m", 2048, None, None)),
    ],
)
def test_what_a_running_server_tells_of_itself(server: str, told: tuple[object, ...]) -> None:
    replies = served(RUNNING[server])
    resolved = OPENAI.resolved(lambda path: replies.get(path, Reply(404)))
    assert (resolved.version, resolved.model, resolved.context, resolved.slots, resolved.prefix_cache) == told
    assert resolved.raw.keys() == RUNNING[server].keys()
    assert "hush" not in str(resolved.raw)


@pytest.mark.parametrize(
    ("found", "ready"),
    [
        ({"/v1/models": 200}, "ready"),
        ({"/v1/models": 503, "/health": 200}, "loading"),
        ({"/health": 200}, "ready"),
        ({"/api/version": 200}, "ready"),
        ({"/v1/models": 0}, "loading"),
        ({"/v1/models": 401}, "broken"),
        ({}, "broken"),
    ],
)
def test_readiness_of_a_running_server(found: Mapping[str, int], ready: str) -> None:
    assert OPENAI.readiness(lambda path: Reply(found.get(path, 404))) == ready
