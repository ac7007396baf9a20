"""SGLang's adapter: command lines, refusals, prefill and decode servers, the resolved configuration; and its batch worker.

No SGLang is needed: the worker is given a stand-in with the methods that it calls. Whether the real parser takes these command lines is
checked by `make contracts`.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from enginebench.adapter import JSON, PROTOCOLS, WORKERS, Deployment, Install, Launch, Parallelism, Reply, Runtime, Site, Unsupported
from enginebench.domain import ClosedLoop, PrefixRule
from enginebench.engines.registry import load_file
from enginebench.machine.folders import resource_dir

SGLANG = load_file(resource_dir("adapters") / "sglang")
INSTALL = Install("sglang", "0.5.23", python=Path("/env/bin/python"))
START = (
    "/env/bin/python -m sglang.launch_server --model-path /m/moe --served-model-name moe "
    "--enable-metrics --enable-cache-report --sampling-defaults openai --log-level-http warning"
)
BASE = (
    "--dtype bfloat16 --load-format auto --context-length 1030 --max-running-requests 8 --stream-interval 1 --tp-size 1 "
    "--random-seed 0 --disable-radix-cache"
)
THREE_STEPS = "--speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4"
ADDRESS = "--host 127.0.0.1 --port 8123"


def deployed(
    options: Mapping[str, JSON] | None = None,
    *,
    precision: str = "bf16",
    runtime: Runtime = "process",
    concurrency: int = 8,
    model: str = "moe",
    **spread: int,
) -> Deployment:
    return Deployment(
        "sglang", model, precision, "moe", runtime, Parallelism(**spread), max_context=1024, max_concurrency=concurrency,
        options=options or {},
    )  # fmt: skip


def start(deployment: Deployment, *ports: int) -> Launch:
    return SGLANG.launch(deployment, INSTALL, Site("127.0.0.1", 8123, Path("/site"), "/m/moe", ports))


def flags(deployment: Deployment) -> str:
    words = shlex.join(start(deployment).argv)
    assert words.startswith(START)
    assert words.endswith(ADDRESS)
    return words.removeprefix(START + " ").removesuffix(" " + ADDRESS)


def added(options: Mapping[str, JSON], tp: int = 1, ep: int = 1) -> str:
    """What the options add to the flags without them, in order."""
    with_them, without = shlex.split(flags(deployed(options, tp=tp, ep=ep))), shlex.split(flags(deployed(tp=tp, ep=ep)))
    return shlex.join(_minus(with_them, without))


def _minus(words: list[str], fewer: list[str]) -> list[str]:
    left: list[str] = []
    rest = iter(fewer)
    nxt = next(rest, None)
    for word in words:
        if word == nxt:
            nxt = next(rest, None)
        else:
            left.append(word)
    return left


def test_the_defaults() -> None:
    assert flags(deployed()) == BASE
    assert start(deployed()).env == {"HF_HUB_OFFLINE": "1"}
    assert start(deployed()).served_name == "moe"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kv_dtype": "fp8_e4m3"}, "--kv-cache-dtype fp8_e4m3"),
        ({"mem_fraction": 0.8, "kv_tokens": 65536, "page_size": 64}, "--mem-fraction-static 0.8 --max-total-tokens 65536 --page-size 64"),
        ({"batch_tokens": 8192}, "--chunked-prefill-size 8192"),
        ({"chunked_prefill": False}, "--chunked-prefill-size -1"),
        ({"chunked_prefill": True}, ""),
        ({"mixed_chunk": True}, "--enable-mixed-chunk"),
        ({"schedule_policy": "lpm"}, "--schedule-policy lpm"),
        ({"overlap_schedule": False}, "--disable-overlap-schedule"),
        ({"graphs": "off"}, "--cuda-graph-backend-decode disabled --cuda-graph-backend-prefill disabled"),
        (
            {"graphs": "decode_only", "graph_batch": 64},
            "--cuda-graph-max-bs-decode 64 --cuda-graph-backend-decode full --cuda-graph-backend-prefill disabled",
        ),
        ({"graphs": "decode_and_prefill"}, "--cuda-graph-backend-decode full --cuda-graph-backend-prefill breakable"),
        ({"attention_backend": "fa3", "moe_backend": "triton"}, "--attention-backend fa3 --moe-runner-backend triton"),
        ({"cpu_offload_gb": 40}, "--cpu-offload-gb 40"),
        ({"paged_experts": 8}, "--paged-experts-num-resident 8 --enable-paged-experts"),
        ({"speculative": {"algorithm": "NGRAM", "draft_tokens": 8}}, "--speculative-algorithm NGRAM --speculative-num-draft-tokens 8"),
        (
            {"speculative": {"algorithm": "EAGLE3", "draft_model": "/m/draft", "steps": 3, "topk": 1, "draft_tokens": 4}},
            f"--speculative-algorithm EAGLE3 --speculative-draft-model-path /m/draft {THREE_STEPS}",
        ),
        ({"extra": ["--enable-torch-compile"]}, "--enable-torch-compile"),
    ],
)
def test_an_option_becomes_flags(options: dict[str, JSON], words: str) -> None:
    assert added(options) == words


def test_options_that_replace_a_default() -> None:
    assert "--stream-interval 4" in flags(deployed({"stream_interval": 4}))
    assert "--load-format dummy" in flags(deployed({"load_format": "dummy"}))
    assert "--max-running-requests 64" in flags(deployed({"max_running_requests": 64}))
    assert "--disable-radix-cache" not in flags(deployed({"prefix_cache": True}))
    assert flags(deployed(precision="fp8")).startswith("--dtype auto --load-format")
    assert flags(deployed({"quantization": "fp8"}, precision="fp8")).startswith("--dtype auto --quantization fp8 ")


def test_the_five_parallelisms() -> None:
    four = "--tp-size 4 --ep-size 4 "
    assert four in flags(deployed(tp=4, ep=4))
    assert "--tp-size 4 --attn-dp-size 2 --ep-size 4 " in flags(deployed(tp=4, attention_dp=2, ep=4))
    assert "--tp-size 2 --pp-size 2 --dp-size 2 " in flags(deployed(tp=2, pp=2, dp_replicas=2))
    assert [SGLANG.traits(d).gpus for d in (deployed(tp=4, attention_dp=4, ep=4), deployed(tp=2, pp=2, dp_replicas=2))] == [4, 8]


def test_expert_parallel_options() -> None:
    eplb: dict[str, JSON] = {"redundant_experts": 4, "rebalance_iterations": 500, "dispatch": "static"}
    deepep: dict[str, JSON] = {"a2a_backend": "deepep", "deepep_mode": "auto", "two_batch_overlap": True}
    assert added({**deepep, "eplb": eplb}, tp=4, ep=4) == (
        "--moe-a2a-backend deepep --deepep-mode auto --eplb-algorithm auto --eplb-rebalance-num-iterations 500 "
        "--ep-num-redundant-experts 4 --ep-dispatch-algorithm static --enable-eplb --enable-two-batch-overlap"
    )


def test_slots_are_a_multiple_of_the_attention_ranks_and_noted() -> None:
    uneven = deployed(tp=4, attention_dp=4, concurrency=10)
    assert "--max-running-requests 12" in flags(uneven)
    assert any("multiple of attention_dp: 12" in note for note in start(uneven).notes)
    assert not any("multiple" in note for note in start(deployed(tp=4, attention_dp=4, concurrency=12)).notes)


def test_random_weights_and_forced_routing() -> None:
    forced = deployed({"load_format": "dummy", "routing": "round_robin", "env": {"SGLANG_LOG_MS": "1"}})
    assert start(forced).env == {"HF_HUB_OFFLINE": "1", "SGLANG_SIMULATE_ROUND_ROBIN_EXPERTS": "1", "SGLANG_LOG_MS": "1"}
    assert (SGLANG.traits(forced).random_weights, SGLANG.traits(forced).forces_routing) == (True, True)
    assert (SGLANG.traits(deployed()).random_weights, SGLANG.traits(deployed()).forces_routing) == (False, False)


@pytest.mark.parametrize(
    ("deployment", "why"),
    [
        (deployed(tp=4, attention_dp=2, dp_replicas=2), "one of attention_dp and dp_replicas"),
        (deployed(tp=4, attention_dp=3), "3 does not divide 4"),
        (deployed(tp=4, ep=3), "ep 3 does not divide 4"),
        (deployed(ep=2), "ep 2 does not divide 1"),
        (deployed({"a2a_backend": "deepep"}, tp=4, ep=2), "ep = tp"),
        (deployed({"a2a_backend": "deepep"}), "ep = tp"),
        (deployed({"a2a_backend": "flashinfer"}, tp=4, ep=4), "attention_dp = tp"),
        (deployed({"moe_backend": "flashinfer_cutlass"}, tp=4, ep=2), "not 2"),
        (deployed({"deepep_mode": "auto"}, tp=4, ep=4), "kernels of a2a_backend"),
        (deployed({"two_batch_overlap": True}, tp=4, ep=4), "there is none"),
        (deployed({"eplb": {}}, tp=4), "needs ep"),
        (deployed({"eplb": {"dispatch": "static"}}, tp=4, ep=4), "dispatch: dynamic"),
        (deployed({"paged_experts": 8}, tp=2), "one device"),
        (deployed({"speculative": {"algorithm": "NGRAM"}}, pp=2), "EAGLE only"),
        (deployed({"overlap_schedule": True}, pp=2), "overlap schedule off"),
        (deployed({"speculative": {"algorithm": "EAGLE", "steps": 3}}), "all three or none"),
        (deployed({"speculative": {"algorithm": "NGRAM"}, "mixed_chunk": True}), "speculative steps"),
        (deployed({"chunked_prefill": False, "batch_tokens": 4096}), "no chunk"),
        (deployed({"batch_tokens": 4097}, tp=2, attention_dp=2), "do not divide it"),
        (deployed({"max_running_requests": 9}, tp=2, attention_dp=2), "do not divide it"),
        (deployed({"graphs": "off", "graph_batch": 8}), "graphs that are off"),
        (deployed({"quantization": "fp8"}), "name the precision"),
        (deployed({"quantization": "awq"}, precision="fp8"), "awq is awq, not fp8"),
        (deployed(precision="q4_k_m"), "no precision"),
        (deployed({"disaggregated": {}}, dp_replicas=2), "cannot have replicas"),
        (deployed({"disaggregated": {"decode": 0}}), "at least one"),
        (deployed({"disaggregated": {}, "prefix_cache": True}), "one side only"),
        (deployed({"disaggregated": {}}, runtime="in-process"), "none in-process"),
        (deployed(model="moe:fp8"), "cannot be served"),
    ],
)
def test_refuses(deployment: Deployment, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        SGLANG.check(deployment)


def test_a_pair_is_members_on_devices_of_their_own_behind_the_proxy() -> None:
    pair = deployed({"disaggregated": {"prefill": 2, "decode": 1, "ib_device": "mlx5_0"}}, tp=2)
    assert (SGLANG.traits(pair).gpus, SGLANG.traits(pair).extra_ports) == (6, 5)
    launch = start(pair, 9001, 9002, 9003, 9004, 9005)
    assert [(member.name, member.port) for member in launch.members] == [("prefill-0", 9001), ("prefill-1", 9002), ("decode-0", 9003)]
    transfer = "--disaggregation-transfer-backend nixl --disaggregation-ib-device mlx5_0"
    ends = [shlex.join(member.argv).partition("--host ")[2] for member in launch.members]
    assert ends == [
        f"127.0.0.1 --port 9001 --base-gpu-id 0 --disaggregation-mode prefill --disaggregation-bootstrap-port 9004 {transfer}",
        f"127.0.0.1 --port 9002 --base-gpu-id 2 --disaggregation-mode prefill --disaggregation-bootstrap-port 9005 {transfer}",
        f"127.0.0.1 --port 9003 --base-gpu-id 4 --disaggregation-mode decode {transfer}",
    ]
    assert shlex.join(launch.argv).replace(str(WORKERS), "WORKERS") == (
        f"/env/bin/python WORKERS/pd_proxy.py {ADDRESS} --protocol sglang --prefill http://127.0.0.1:9001 "
        "--prefill http://127.0.0.1:9002 --decode http://127.0.0.1:9003 --bootstrap-port 9004 --bootstrap-port 9005"
    )
    assert all(member.env == {"HF_HUB_OFFLINE": "1"} for member in launch.members)


def test_the_batch_worker_gets_the_flags_of_the_server() -> None:
    words = shlex.join(start(deployed(tp=2, runtime="in-process")).argv).replace(str(WORKERS), "WORKERS")
    assert words == (
        f"/env/bin/python WORKERS/sglang_worker.py --model-path /m/moe --served-model-name moe {BASE.replace('--tp-size 1', '--tp-size 2')}"
    )


def test_both_protocols_force_the_length_and_state_the_sampling() -> None:
    forced: dict[str, JSON] = {"ignore_eos": True, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
    usage: dict[str, JSON] = {"include_usage": True, "continuous_usage_stats": True}
    native = deployed({"protocol": "sglang"})
    assert SGLANG.request_fields(deployed(), ClosedLoop()) == {**forced, "stream_options": usage}
    assert SGLANG.request_fields(native, ClosedLoop()) == {"sampling_params": forced}
    assert SGLANG.dialect(native, ClosedLoop()) is PROTOCOLS["sglang"]["completions"]
    with pytest.raises(Unsupported, match="protocol: openai"):
        SGLANG.check_loads(native, [ClosedLoop(api="chat")])
    SGLANG.check_loads(deployed(), [ClosedLoop(api="chat")])


@pytest.mark.parametrize(
    ("answers", "readiness"),
    [
        ({"/ready": 200}, "ready"),
        ({"/ready": 503}, "loading"),
        ({"/ready": 0}, "loading"),
        ({"/ready": 404, "/model_info": 200}, "ready"),
        ({"/ready": 404, "/model_info": 404}, "broken"),
        ({"/ready": 500}, "broken"),
    ],
)
def test_readiness_never_asks_for_a_generation(answers: Mapping[str, int], readiness: str) -> None:
    asked: list[str] = []

    def get(path: str) -> Reply:
        asked.append(path)
        return Reply(answers[path])

    assert SGLANG.readiness(get) == readiness
    assert not any(path.startswith("/health") for path in asked)


INFO: dict[str, JSON] = {
    "version": "0.5.23", "served_model_name": "moe", "dtype": "bfloat16", "quantization": None, "kv_cache_dtype": "auto",
    "context_length": 1030, "max_running_requests": 8, "disable_radix_cache": True, "disable_overlap_schedule": False,
    "chunked_prefill_size": 2048, "attn_dp_size": 2, "stream_interval": 1, "moe_runner_backend": "triton", "page_size": 1,
    "cuda_graph_config": {"decode": {"backend": "full"}, "prefill": {"backend": "disabled"}},
    "api_key": "hush", "ssl_keyfile_password": "hush",
    "internal_states": [
        {"effective_max_running_requests_per_dp": 4, "memory_usage": {"token_capacity": 5000}, "admin_api_key": "hush"},
        {"effective_max_running_requests_per_dp": 4, "memory_usage": {"token_capacity": 5000}, "env_vars": {"HF_TOKEN": "hush"}},
    ],
}  # fmt: skip


def test_the_resolved_configuration_adds_up_over_ranks_and_holds_no_secret() -> None:
    resolved = SGLANG.resolved(lambda _path: Reply(200, json.dumps(INFO).encode()))
    assert (resolved.version, resolved.model, resolved.precision, resolved.context) == ("0.5.23", "moe", "bf16", 1024)
    assert (resolved.slots, resolved.kv_tokens, resolved.kv_dtype, resolved.prefix_cache) == (8, 10000, "bf16", False)
    assert (resolved.chunked_prefill, resolved.batch_tokens, resolved.graphs, resolved.stream_interval) == (True, 4096, "decode_only", 1)
    assert resolved.options == {"moe_backend": "triton", "page_size": 1, "max_running_requests": 8, "overlap_schedule": True}
    assert "hush" not in json.dumps(resolved.raw)
    caching = json.dumps(INFO | {"disable_radix_cache": False}).encode()
    assert resolved.prefix_rule is None
    assert SGLANG.resolved(lambda _path: Reply(200, caching)).prefix_rule == PrefixRule(1, "computed")


@pytest.mark.parametrize(
    ("changed", "name", "value"),
    [
        ({"quantization": "modelopt_fp4"}, "precision", "nvfp4"),
        ({"quantization": "compressed-tensors"}, "precision", None),
        ({"dtype": "auto"}, "precision", None),
        ({"kv_cache_dtype": "fp8_e4m3"}, "kv_dtype", "fp8_e4m3"),
        ({"chunked_prefill_size": -1}, "chunked_prefill", False),
        ({"chunked_prefill_size": -1}, "batch_tokens", None),
        ({"cuda_graph_config": None}, "graphs", None),
        ({"cuda_graph_config": {"decode": {"backend": "disabled"}, "prefill": {"backend": "disabled"}}}, "graphs", "off"),
        ({"internal_states": []}, "slots", None),
    ],
)
def test_one_field_of_the_resolved_configuration(changed: dict[str, JSON], name: str, value: object) -> None:
    body = json.dumps(INFO | changed).encode()
    assert getattr(SGLANG.resolved(lambda _path: Reply(200, body)), name) == value


def counted(text: str) -> Mapping[str, float]:
    return SGLANG.counters(lambda path: Reply(200, text.encode()) if path == "/metrics" else Reply(404))


def test_counters_of_attention_ranks_and_pipeline_stages() -> None:
    lines = ["# HELP sglang:num_running_reqs The number of running requests."]
    for stage, rank, running, use in ((0, 0, 3, 0.25), (0, 1, 5, 0.75), (1, 0, 3, 0.9), (1, 1, 5, 0.9)):
        labels = f'{{engine_type="unified",pp_rank="{stage}",dp_rank="{rank}"}}'
        lines += [f"sglang:num_running_reqs{labels} {running}", f"sglang:num_queue_reqs{labels} 1", f"sglang:token_usage{labels} {use}"]
        lines += [f"sglang:num_retracted_requests_total{labels} 2"]
    lines += ['sglang:prompt_tokens_total{engine_type="unified"} 900', 'sglang:generation_tokens_total{engine_type="unified"} 70']
    assert counted("\n".join(lines)) == {
        "prompt_tokens": 900, "cached_tokens": 0, "output_tokens": 70, "preemptions": 4, "running": 8, "waiting": 2, "kv_use": 0.5,
    }  # fmt: skip


def test_a_pair_counts_a_prompt_once() -> None:
    lines = []
    for side, prompt, output, running, queue, use in (("prefill", 900, 9, 2, 3, 0.9), ("decode", 900, 70, 7, 1, 0.5)):
        labels = f'{{engine_type="{side}",pp_rank="0"}}'
        lines += [f"sglang:prompt_tokens_total{labels} {prompt}", f"sglang:generation_tokens_total{labels} {output}"]
        lines += [f"sglang:num_running_reqs{labels} {running}", f"sglang:num_queue_reqs{labels} {queue}"]
        lines += [f"sglang:token_usage{labels} {use}", f"sglang:cached_tokens_total{labels} 16"]
    assert counted("\n".join(lines)) == {
        "prompt_tokens": 900, "cached_tokens": 16, "output_tokens": 70, "running": 7, "waiting": 4, "kv_use": 0.5,
    }  # fmt: skip


def test_speculation_from_verifications() -> None:
    # 2 requests of 10 tokens: the first token of each, then 6 verifications of 1 + 3 tokens that give 18.
    text = (
        "sglang:prompt_tokens_total 100\nsglang:generation_tokens_total 20\nsglang:num_requests_total 2\n"
        'sglang:spec_verify_calls_total 6\nsglang:spec_num_draft_tokens{dp_rank="0"} 4\nsglang:spec_num_draft_tokens{dp_rank="1"} 4\n'
    )
    found = counted(text)
    assert (found["draft_tokens"], found["accepted_tokens"]) == (18, 12)
    assert "draft_tokens" not in counted("sglang:prompt_tokens_total 100\nsglang:generation_tokens_total 20\n")


class StandIn:
    """`sglang.Engine` as far as the worker uses it: it answers once it holds as many requests as it waits for."""

    def __init__(self, server_args: list[str], waits_for: int = 2) -> None:
        self.loop = asyncio.new_event_loop()
        self.asked: list[dict[str, Any]] = []
        self.server_args, self.waits_for = server_args, waits_for
        self.inside = self.most = 0
        self.full = asyncio.Event()

    def get_server_info(self) -> dict[str, object]:
        return {"version": "0.5.23", "path": Path("/m/moe")}

    async def async_generate(self, **asked: Any) -> dict[str, object]:
        self.asked.append(asked)
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside == self.waits_for:
            self.full.set()
        await self.full.wait()
        self.inside -= 1
        ids, tokens = asked.get("input_ids", [1]), asked["sampling_params"]["max_new_tokens"]
        reason = {"type": "length", "length": tokens} if ids != [9] else {"type": "abort", "message": "too long"}
        return {"meta_info": {"prompt_tokens": len(ids), "completion_tokens": tokens, "finish_reason": reason}}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The worker's module and the stand-in engine that it builds."""
    made: list[StandIn] = []

    def engine(server_args: list[str]) -> StandIn:
        made.append(StandIn(server_args))
        return made[0]

    args = ModuleType("sglang.srt.server_args")
    vars(args)["prepare_server_args"] = lambda argv: argv
    package = ModuleType("sglang")
    vars(package).update(__version__="0.5.23", Engine=engine)
    for name, module in (("sglang", package), ("sglang.srt", ModuleType("sglang.srt")), ("sglang.srt.server_args", args)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.syspath_prepend(str(WORKERS))
    spec = importlib.util.spec_from_file_location("sglang_worker_under_test", WORKERS / "sglang_worker.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    offline = module.Offline(["--tp-size", "2"])
    yield SimpleNamespace(offline=offline, engine=made[0], batch=vars(module)["Batch"])
    made[0].loop.close()


def test_the_worker_never_has_more_requests_in_the_engine_than_the_load(worker: Any) -> None:
    prompts: list[list[int] | str] = [[1, 2, 3], "text", [4], [9], [5, 6]]
    outcome = worker.offline.run(worker.batch(prompts, output_tokens=7, batch=2))
    assert worker.engine.most == 2
    assert [(r.input_tokens, r.output_tokens) for r in outcome.requests] == [(3, 7), (1, 7), (1, 7), (1, 7), (2, 7)]
    assert [bool(r.error) for r in outcome.requests] == [False, False, False, True, False]
    assert "too long" in outcome.requests[3].error
    assert outcome.end_ns >= outcome.start_ns
    forced = {"max_new_tokens": 7, "ignore_eos": True, "temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
    assert all(asked["sampling_params"] == forced for asked in worker.engine.asked)
    assert [asked.get("prompt", asked.get("input_ids")) for asked in worker.engine.asked] == prompts


def test_the_worker_reports_the_servers_configuration(worker: Any) -> None:
    assert worker.engine.server_args == ["--tp-size", "2"]
    assert worker.offline.version == "0.5.23"
    assert worker.offline.resolved == {"/server_info": {"version": "0.5.23", "path": "/m/moe"}}
