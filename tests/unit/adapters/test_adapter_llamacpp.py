"""llama.cpp's adapter: command lines, refusals, and the resolved configuration. Starts nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from enginebench.adapter import (
    GAUGES,
    JSON,
    TOTALS,
    WORKERS,
    Deployment,
    Install,
    Launch,
    NotInstalled,
    Parallelism,
    PrefixRule,
    Reply,
    Runtime,
    Site,
    Unsupported,
)
from enginebench.domain import ClosedLoop
from enginebench.engines.registry import load_file
from enginebench.machine.folders import resource_dir

LLAMACPP = load_file(resource_dir("adapters") / "llamacpp")
PYTHON = Path("/env/bin/python")
XLLAMACPP = Install("xllamacpp", "2026.10.11549", python=PYTHON)
LLAMA_SERVER = Install("llama-server", "unknown", binary=Path("/opt/llama-server"))
LLAMA_CPP_PYTHON = Install("llama-cpp-python", "0.3.36", python=PYTHON)
ONE = Parallelism()


def llama(
    options: Mapping[str, JSON] | None = None, runtime: Runtime = "process", concurrency: int = 4, spread: Parallelism = ONE
) -> Deployment:
    return Deployment(
        "llamacpp", "tiny", "q8_0", "tiny.gguf", runtime, spread, max_context=512, max_concurrency=concurrency, options=options or {}
    )


def start(deployment: Deployment, install: Install) -> Launch:
    return LLAMACPP.launch(deployment, install, Site("127.0.0.1", 8123, Path("/site"), "/m/t.gguf"))


def words(launch: Launch) -> str:
    return shlex.join(launch.argv).replace(str(WORKERS), "WORKERS")


def flags_of(options: Mapping[str, JSON], spread: Parallelism = ONE) -> str:
    return words(start(llama(options, spread=spread), LLAMA_SERVER)).removeprefix("/opt/llama-server --host 127.0.0.1 --port 8123 ")


BASE = (
    "-m /m/t.gguf -a tiny -c 2048 -np 4 --threads-http 28 --no-kv-unified -fit off --metrics --offline --no-cache-prompt --cache-ram 0 "
    "-ngl all -ts 1"
)
BARE = BASE.removesuffix(" -ts 1")


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, BASE),
        ({"threads": 8, "threads_batch": 16}, f"{BASE} -t 8 -tb 16"),
        ({"batch": 4096, "ubatch": 2048}, f"{BASE} -b 4096 -ub 2048"),
        ({"flash_attention": True}, f"{BASE} -fa on"),
        ({"flash_attention": False}, f"{BASE} -fa off"),
        ({"gpu_layers": 0}, BASE.replace("-ngl all -ts 1", "-ngl 0 --no-op-offload")),
        ({"gpu_layers": 0, "op_offload": True}, BASE.replace("-ngl all", "-ngl 0")),
        ({"op_offload": False, "kv_offload": False}, f"{BASE} --no-op-offload -nkvo"),
        ({"cpu_moe": True}, f"{BASE} -cmoe"),
        ({"n_cpu_moe": 12, "moe_cache_mib": 4096}, f"{BASE} -ncmoe 12 --moe-cache-mib 4096"),
        ({"tensor_overrides": ["a=CPU", "b=CPU"], "cpu_moe": True}, f"{BASE} -ot a=CPU -ot b=CPU -cmoe"),
        ({"kv_type": "q8_0"}, f"{BASE} -ctk q8_0 -ctv q8_0"),
        ({"unified_kv": True}, BASE.replace("--no-kv-unified", "--kv-unified").replace("-ngl", "--no-slots -ngl")),
        ({"prefix_cache": True}, BASE.replace(" --no-cache-prompt --cache-ram 0", "")),
        ({"load_mode": "mmap+mlock", "numa": "distribute"}, f"{BASE} -lm mmap+mlock --numa distribute"),
        ({"mmproj": "eyes.gguf"}, BASE.replace("-ngl", "--mmproj /m/eyes.gguf -ngl")),
        (
            {"mmproj": "/x/eyes.gguf", "gpu_layers": 0},
            BASE.replace("-ngl all -ts 1", "--mmproj /x/eyes.gguf --no-mmproj-offload -ngl 0 --no-op-offload"),
        ),
        ({"extra": ["--swa-full"]}, f"{BASE} --swa-full"),
    ],
)
def test_an_option_becomes_flags(options: dict[str, JSON], flags: str) -> None:
    assert flags_of(options) == flags


@pytest.mark.parametrize(
    ("spread", "options", "flags"),
    [
        (Parallelism(pp=2), {}, f"{BARE} -sm layer -ts 1,1"),
        (Parallelism(pp=2), {"tensor_split": [3, 1.5]}, f"{BARE} -sm layer -ts 3,1.5"),
        (Parallelism(tp=2), {"main_gpu": 1}, f"{BARE} -sm row -ts 1,1 -mg 1"),
        (Parallelism(tp=4), {"split_mode": "tensor"}, f"{BARE} -sm tensor -ts 1,1,1,1"),
        (Parallelism(pp=2), {"devices": ["CUDA2", "CUDA3"]}, f"{BARE} -sm layer -dev CUDA2,CUDA3"),
    ],
)
def test_a_spread_over_gpus_becomes_one_split_mode(spread: Parallelism, options: dict[str, JSON], flags: str) -> None:
    assert flags_of(options, spread) == flags
    assert LLAMACPP.traits(llama(options, spread=spread)).gpus == spread.tp * spread.pp


def test_images_need_a_projector() -> None:
    pictures = [ClosedLoop(api="chat", images=1)]
    with pytest.raises(Unsupported, match=r"mmproj: FILE\.gguf"):
        LLAMACPP.check_loads(llama(), pictures)
    LLAMACPP.check_loads(llama(), [ClosedLoop(api="chat")])
    for seeing in ({"mmproj": "eyes.gguf"}, {"extra": ["--mmproj", "/x/eyes.gguf"]}):
        LLAMACPP.check_loads(llama(seeing), pictures)


def test_without_offload_it_takes_no_gpu() -> None:
    assert LLAMACPP.traits(llama()).gpus == 1
    assert LLAMACPP.traits(llama({"gpu_layers": 0})).gpus == 0
    assert LLAMACPP.traits(llama({"gpu_layers": 0, "op_offload": True})).gpus == 1


def test_only_the_presence_of_the_variable_switches_graphs_off() -> None:
    assert start(llama(), XLLAMACPP).env == {}
    assert start(llama({"cuda_graphs": False}), XLLAMACPP).env == {"GGML_CUDA_DISABLE_GRAPHS": "1"}


def test_context_is_the_total_over_all_slots() -> None:
    assert "-c 8192 -np 16" in words(start(llama(concurrency=16), LLAMA_SERVER))


def test_the_wheel_gets_the_flags_of_the_binary() -> None:
    binary, wheel = (start(llama(), install) for install in (LLAMA_SERVER, XLLAMACPP))
    assert wheel.argv[:3] == (str(PYTHON), str(WORKERS / "llamacpp_worker.py"), "serve")
    assert wheel.argv[3:] == binary.argv[1:]
    assert wheel.served_name == binary.served_name == "tiny"


def test_llamacpp_in_process_has_no_address() -> None:
    launch = start(llama(runtime="in-process"), XLLAMACPP)
    assert words(launch) == f"/env/bin/python WORKERS/llamacpp_worker.py offline {BASE}"


def test_llama_cpp_python_flags() -> None:
    deployment = llama({"server": "llama-cpp-python", "threads": 2, "flash_attention": True}, concurrency=1)
    launch = start(deployment, LLAMA_CPP_PYTHON)
    assert words(launch) == (
        "/env/bin/python -m llama_cpp.server --host 127.0.0.1 --port 8123 --model /m/t.gguf --model_alias tiny --n_ctx 512 "
        "--n_gpu_layers -1 --logits_all false --offload_kqv true --n_threads 2 --flash_attn true"
    )
    assert launch.notes


def test_llama_cpp_python_in_process_takes_ids_and_forces_the_length() -> None:
    deployment = llama({"server": "llama-cpp-python", "gpu_layers": 0}, "in-process", concurrency=1)
    launch = start(deployment, LLAMA_CPP_PYTHON)
    assert words(launch) == (
        "/env/bin/python WORKERS/llamacpp_python_worker.py --model /m/t.gguf --model_alias tiny --n_ctx 512 --n_gpu_layers 0 "
        "--logits_all false --offload_kqv true"
    )
    assert LLAMACPP.traits(deployment).takes_ids
    assert LLAMACPP.traits(deployment).forces_length
    assert not LLAMACPP.traits(llama({"server": "llama-cpp-python"}, concurrency=1)).forces_length


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (llama({"cpu_moe": True, "n_cpu_moe": 3}), "n_cpu_moe"),
        (llama({"tensor_overrides": ["a=CPU,b=CPU"]}), "without a comma"),
        (llama({"tensor_overrides": ["ffn"]}), "is not one 'pattern=buffer type'"),
        (llama({"kv_type": "q4_0", "flash_attention": False}), "flash attention"),
        (llama({"server": "llama-server"}, runtime="in-process"), "does not run in-process"),
        (llama({"server": "llama-cpp-python"}), "one request at a time"),
        (llama({"server": "llama-cpp-python", "kv_type": "q8_0"}, concurrency=1), "no flag for kv_type"),
        (llama({"server": "llama-cpp-python"}, concurrency=1, spread=Parallelism(pp=2)), "one GPU here"),
        (llama({"devices": ["CUDA0"]}, runtime="in-process"), "only llama-server can choose"),
        (llama({"split_mode": "row"}), "needs tp"),
        (llama({"split_mode": "layer"}, spread=Parallelism(tp=2)), "needs pp"),
        (llama({"split_mode": "tensor"}, spread=Parallelism(pp=2)), "needs tp"),
        (llama({"tensor_split": [1]}, spread=Parallelism(pp=2)), "tensor_split names 1, but tp x pp is 2"),
        (llama({"main_gpu": 1}), "none of the 1"),
        (llama({"gpu_layers": 0}, spread=Parallelism(tp=2)), "nothing to spread"),
        (llama(spread=Parallelism(tp=2, pp=2)), "not both at once"),
        (llama(spread=Parallelism(dp_replicas=2)), "no data parallelism"),
        (llama(spread=Parallelism(tp=2, attention_dp=2)), "no data parallelism"),
        (llama(spread=Parallelism(tp=2, ep=2)), "no expert parallelism"),
    ],
)
def test_llamacpp_refuses(deployment: Deployment, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        LLAMACPP.check(deployment)


def test_choose_takes_the_server_that_the_scenario_names() -> None:
    installs = (XLLAMACPP, LLAMA_SERVER, LLAMA_CPP_PYTHON)
    assert LLAMACPP.choose(llama(), installs) is XLLAMACPP
    assert LLAMACPP.choose(llama(), installs[1:]) is LLAMA_SERVER
    assert LLAMACPP.choose(llama({"server": "llama-server"}), installs) is LLAMA_SERVER
    assert LLAMACPP.choose(llama({"server": "llama-cpp-python"}), installs) is LLAMA_CPP_PYTHON
    with pytest.raises(NotInstalled, match="xllamacpp or llama-server is not installed"):
        LLAMACPP.choose(llama(), (LLAMA_CPP_PYTHON,))  # never chosen unasked
    with pytest.raises(NotInstalled, match="xllamacpp is not installed"):
        LLAMACPP.choose(llama(runtime="in-process"), (LLAMA_SERVER,))
    assert LLAMACPP.choose(llama({"devices": ["CUDA1"]}), installs) is LLAMA_SERVER
    assert LLAMACPP.choose(llama({"server": "llama-cpp-python"}, "in-process", 1), installs) is LLAMA_CPP_PYTHON
    with pytest.raises(Unsupported, match="asks for llama-server, and xllamacpp is installed"):
        start(llama({"server": "llama-server"}), XLLAMACPP)


def test_llamacpp_request_fields() -> None:
    fields = LLAMACPP.request_fields(llama(), ClosedLoop(prefix_cache="allowed"))
    assert fields == {
        "ignore_eos": True,
        "cache_prompt": False,  # the launch did not allow it
        "stream_options": {"include_usage": True},
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
    }
    caching = llama({"prefix_cache": True})
    assert LLAMACPP.request_fields(caching, ClosedLoop(prefix_cache="allowed"))["cache_prompt"] is True
    assert LLAMACPP.request_fields(caching, ClosedLoop(prefix_cache="cold"))["cache_prompt"] is False


def served(replies: Mapping[str, JSON | str]) -> Mapping[str, Reply]:
    return {path: Reply(200, (body if isinstance(body, str) else json.dumps(body)).encode()) for path, body in replies.items()}


def test_llamacpp_resolved() -> None:
    props: JSON = {
        "total_slots": 4,
        "model_alias": "tiny",
        "model_ftype": "Q4_K - Medium",
        "build_info": "b10434-0c1e570",
        "default_generation_settings": {"n_ctx": 512},
    }
    replies = served({"/props": props, "/slots": [{"id": number, "n_ctx": 512} for number in range(4)], "/v1/models": {"data": []}})
    resolved = LLAMACPP.resolved(lambda path: replies[path])
    assert (resolved.version, resolved.model, resolved.precision) == ("b10434-0c1e570", "tiny", "q4_k_m")
    assert (resolved.context, resolved.slots, resolved.kv_tokens, resolved.raw["/props"]) == (512, 4, 2048, props)
    assert resolved.chunked_prefill is True
    assert resolved.prefix_rule == PrefixRule(1, "answered"), "a slot serves one request at a time"
    pooled = LLAMACPP.resolved(lambda path: replies[path] if path == "/props" else Reply(501))
    assert (pooled.context, pooled.kv_tokens) == (512, 512)


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


METRICS = """
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 96
llamacpp:prompt_tokens_cached_total 31
llamacpp:tokens_predicted_total 24
llamacpp:n_busy_slots_per_decode 1.5
llamacpp:requests_processing 2
llamacpp:requests_deferred 5
llamacpp:spec_decode_num_draft_tokens_total 9
llamacpp:spec_decode_num_accepted_tokens_total 6
"""


def test_llamacpp_counters_count_cached_tokens_as_prompt_tokens() -> None:
    slots: JSON = [
        {"n_ctx": 512, "is_processing": True, "n_prompt_tokens": 256},
        {"n_ctx": 512, "is_processing": False, "n_prompt_tokens": 500},  # what an idle slot still holds is free for the next request
    ]
    replies = served({"/metrics": METRICS, "/slots": slots})
    counted = LLAMACPP.counters(lambda path: replies[path])
    assert counted == {
        "prompt_tokens": 127, "cached_tokens": 31, "output_tokens": 24, "running": 2, "waiting": 5, "draft_tokens": 9,
        "accepted_tokens": 6, "kv_use": 0.25,
    }  # fmt: skip
    assert counted.keys() <= TOTALS.keys() | GAUGES.keys()
    without_slots = LLAMACPP.counters(lambda path: replies[path] if path == "/metrics" else Reply(501))
    assert without_slots == {name: value for name, value in counted.items() if name != "kv_use"}
    assert LLAMACPP.counters(lambda _: Reply(501)) == {}


@pytest.mark.parametrize(
    ("statuses", "ready"), [((0,), "loading"), ((503,), "loading"), ((200,), "ready"), ((404, 200), "ready"), ((500,), "broken")]
)
def test_llamacpp_readiness(statuses: tuple[int, ...], ready: str) -> None:
    answers = iter(statuses)
    assert LLAMACPP.readiness(lambda _: Reply(next(answers))) == ready


def test_find_reads_metadata_and_path_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, python = tmp_path / "lib/python3.11/site-packages", tmp_path / "bin/python"  # the interpreter itself need not exist
    for package, version in (("xllamacpp", "2026.10.11549"), ("llama_cpp_python", "0.3.36")):
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
