"""TensorRT-LLM's adapter: command lines and settings, refusals, the resolved configuration; its batch worker; its contract.

No TensorRT-LLM is needed, nor was it ever run: the replies are written from its public source, and the worker is given a stand-in with
the methods that it calls.
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
from enginebench.adapter import JSON, WORKERS, Deployment, Install, Launch, Parallelism, Reply, Runtime, Site, Unsupported
from enginebench.domain import ClosedLoop
from enginebench.engines.registry import load_file
from enginebench.machine.folders import resource_dir

TRTLLM = load_file(resource_dir("adapters") / "trtllm.py")
INSTALL = Install("trtllm-serve", "1.2.1", python=Path("/env/bin/python"), binary=Path("/env/bin/trtllm-serve"))
CONTRACTS = Path(__file__).parents[2] / "contracts"
START = "/env/bin/trtllm-serve serve /m/moe --host 127.0.0.1 --port 8123"
PLAIN: Mapping[str, JSON] = {
    "dtype": "bfloat16", "load_format": "auto", "kv_cache_config": {"enable_block_reuse": False}, "stream_interval": 1,
    "enable_iter_perf_stats": True, "return_perf_metrics": True,
}  # fmt: skip


def deployed(
    options: Mapping[str, JSON] | None = None, *, precision: str = "bf16", runtime: Runtime = "process", **spread: int
) -> Deployment:
    return Deployment(
        "trtllm", "moe", precision, "moe", runtime, Parallelism(**spread), max_context=1024, max_concurrency=8, options=options or {}
    )


def start(deployment: Deployment, checkpoint: str = "/m/moe") -> Launch:
    return TRTLLM.launch(deployment, INSTALL, Site("127.0.0.1", 8123, Path("/site"), checkpoint))


def settings(deployment: Deployment) -> dict[str, JSON]:
    expected: dict[str, JSON] = json.loads(start(deployment).files["llm.yaml"])
    return expected


def added(options: Mapping[str, JSON]) -> dict[str, JSON]:
    """The settings that the options change."""
    expected, plain = settings(deployed(options)), settings(deployed())
    assert expected.keys() >= plain.keys()
    return {name: value for name, value in expected.items() if name not in plain or plain[name] != value}


def test_sizes_are_flags_and_the_rest_is_a_file() -> None:
    launch = start(deployed())
    assert shlex.join(launch.argv) == (
        f"{START} --tp_size 1 --pp_size 1 --ep_size 1 --max_batch_size 8 --max_seq_len 1024 --extra_llm_api_options /site/llm.yaml"
    )
    assert settings(deployed()) == PLAIN
    assert launch.env == {"TRTLLM_NO_USAGE_STATS": "1", "TELEMETRY_DISABLED": "1", "HF_HUB_OFFLINE": "1"}


def test_the_served_name_is_the_last_part_of_a_folder_or_the_hub_id() -> None:
    assert start(deployed()).served_name == "moe"
    assert start(deployed(), "org/model").served_name == "org/model"
    assert "HF_HUB_OFFLINE" not in start(deployed(), "org/model").env


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"kv_dtype": "fp8", "kv_fraction": 0.8, "kv_tokens": 4096, "kv_host_gib": 0.5, "block_size": 64, "prefix_cache": True},
            {
                "kv_cache_config": {
                    "enable_block_reuse": True, "dtype": "fp8", "free_gpu_memory_fraction": 0.8, "max_tokens": 4096,
                    "host_cache_size": 2**29, "tokens_per_block": 64,
                },
            },
        ),
        ({"chunked_prefill": True, "overlap_schedule": False}, {"enable_chunked_prefill": True, "disable_overlap_scheduler": True}),
        ({"chunked_prefill": False, "overlap_schedule": True}, {"enable_chunked_prefill": False, "disable_overlap_scheduler": False}),
        ({"stream_interval": 4, "load_format": "dummy"}, {"stream_interval": 4, "load_format": "dummy"}),
        ({"graphs": "off"}, {"cuda_graph_config": None}),
        ({"graphs": "decode"}, {"cuda_graph_config": {}}),
        ({"graph_batch": 64, "graph_padding": True}, {"cuda_graph_config": {"max_batch_size": 64, "enable_padding": True}}),
        ({"attention_backend": "FLASHINFER", "moe_backend": "TRTLLM"}, {"attn_backend": "FLASHINFER", "moe_config": {"backend": "TRTLLM"}}),
        ({"speculative": {"decoding_type": "MTP"}}, {"speculative_config": {"decoding_type": "MTP"}}),
        ({"config": {"print_iter_log": True}}, {"print_iter_log": True}),
    ],
)  # fmt: skip
def test_an_option_becomes_settings(options: dict[str, JSON], expected: dict[str, JSON]) -> None:
    assert added(options) == expected


def test_options_that_are_flags() -> None:
    words = shlex.join(start(deployed({"batch_tokens": 4096, "max_batch_size": 64, "extra": ["--trust_remote_code"]})).argv)
    assert "--max_batch_size 64 --max_num_tokens 4096 " in words
    assert words.endswith("/site/llm.yaml --trust_remote_code")
    assert start(deployed({"env": {"TRTLLM_SERVER_DISABLE_GC": "1"}})).env["TRTLLM_SERVER_DISABLE_GC"] == "1"


def test_the_parallelisms() -> None:
    spread = deployed({"eplb": {"slots": 32, "layer_updates_per_iter": 2}, "attention_dp_balance": True}, tp=4, pp=2, attention_dp=4, ep=2)
    assert "--tp_size 4 --pp_size 2 --ep_size 2 " in shlex.join(start(spread).argv)
    assert TRTLLM.traits(spread).gpus == 8
    assert {name: value for name, value in settings(spread).items() if name not in PLAIN} == {
        "moe_tensor_parallel_size": 2,
        "enable_attention_dp": True,
        "attention_dp_config": {"enable_balance": True},
        "moe_config": {"load_balancer": {"num_slots": 32, "layer_updates_per_iter": 2}},
    }
    assert "dtype" not in settings(deployed(precision="fp8"))


@pytest.mark.parametrize(
    ("deployment", "why"),
    [
        (deployed(dp_replicas=2), "one replica"),
        (deployed(tp=4, attention_dp=2), "it is 1 or 4"),
        (deployed(tp=4, ep=3), "ep 3 does not divide 4"),
        (deployed({"attention_dp_balance": True}, tp=4), "needs attention_dp"),
        (deployed({"eplb": {"slots": 32}}, tp=4), "needs ep"),
        (deployed({"eplb": {"slots": 30}}, tp=4, ep=4), "does not divide 30"),
        (deployed(precision="q4_k_m"), "no precision"),
        (deployed({"graphs": "off", "graph_padding": True}), "that are off"),
        (deployed({"speculative": {"max_draft_len": 4}}), "decoding_type"),
        (deployed({"config": {"max_batch_size": 4, "stream_interval": 2}}), "max_batch_size, stream_interval"),
    ],
)
def test_refuses(deployment: Deployment, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        TRTLLM.check(deployment)


def test_a_long_context_without_chunks_is_noted() -> None:
    assert any("more than 512 tokens" in note for note in start(deployed({"batch_tokens": 512})).notes)
    assert not any("is refused" in note for note in start(deployed({"batch_tokens": 512, "chunked_prefill": True})).notes)
    assert not any("is refused" in note for note in start(deployed()).notes)


def test_random_weights_are_never_routed_by_force() -> None:
    dummy = deployed({"load_format": "dummy"})
    assert (TRTLLM.traits(dummy).random_weights, TRTLLM.traits(dummy).forces_routing) == (True, False)
    assert not TRTLLM.traits(deployed()).random_weights


RECORDS: JSON = [
    {"iter": 1, "numActiveRequests": 9},
    {
        "iter": 2, "numActiveRequests": 3, "numQueuedRequests": 1, "maxBatchSizeStatic": 8, "maxNumTokensStatic": 8192,
        "kvCacheStats": {"usedNumBlocks": 25, "maxNumBlocks": 100, "tokensPerBlock": 32},
    },
]  # fmt: skip


def served(replies: Mapping[str, JSON | str]) -> Any:
    def get(path: str) -> Reply:
        reply = replies.get(path)
        return Reply(404) if reply is None else Reply(200, reply.encode() if isinstance(reply, str) else json.dumps(reply).encode())

    return get


def test_resolved() -> None:
    replies: dict[str, JSON | str] = {"/version": {"version": "1.2.1"}, "/v1/models": {"data": [{"id": "moe"}]}, "/metrics": RECORDS}
    resolved = TRTLLM.resolved(served(replies))
    assert (resolved.version, resolved.model, resolved.slots, resolved.batch_tokens) == ("1.2.1", "moe", 8, 8192)
    assert (resolved.kv_tokens, resolved.options, resolved.prefix_cache) == (3200, {"block_size": 32}, None)
    assert TRTLLM.resolved(served({"/version": {"version": "1.2.1"}, "/metrics": []})).slots is None


def test_counters_are_prometheus_totals_and_where_it_has_no_gauges_the_last_iteration() -> None:
    totals = 'trtllm_prompt_tokens_total{engine_type="x"} 100\ntrtllm_generation_tokens_total{engine_type="x"} 7\n'
    assert TRTLLM.counters(served({"/prometheus/metrics/": totals, "/metrics": RECORDS})) == {
        "prompt_tokens": 100, "output_tokens": 7, "running": 3, "waiting": 1, "kv_use": 0.25,
    }  # fmt: skip
    gauges = totals + "trtllm_num_requests_running 5\ntrtllm_num_requests_waiting 2\ntrtllm_kv_cache_utilization 0.5\n"
    assert TRTLLM.counters(served({"/prometheus/metrics/": gauges})) == {
        "prompt_tokens": 100, "output_tokens": 7, "running": 5, "waiting": 2, "kv_use": 0.5,
    }  # fmt: skip
    assert TRTLLM.counters(served({"/metrics": []})) == {}


@pytest.mark.parametrize("api", ["completions", "chat"])
def test_requests_have_no_field_that_the_server_refuses(api: Any) -> None:
    table = json.loads((CONTRACTS / "tables" / "trtllm.json").read_text(encoding="utf-8"))
    load = ClosedLoop(api=api)
    extra = TRTLLM.request_fields(deployed(), load)
    body = TRTLLM.dialect(deployed(), load).body(model="moe", prompt="a", output_tokens=7, temperature=1.0, seed=3, extra=extra)
    known = {*table["completions"], "messages"} - ({"prompt", "add_special_tokens"} if api == "chat" else {"messages"})
    assert body.keys() <= known
    assert body["ignore_eos"] is True
    usage = body["stream_options"]
    assert isinstance(usage, dict)
    assert usage.keys() <= set(table["stream_options"])


def load(file: Path, name: str) -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return vars(module)


def asked(options: Mapping[str, JSON] | None = None) -> dict[str, Any]:
    launch = start(deployed(options))
    return {"name": "x", "argv": list(launch.argv), "files": dict(launch.files), "members": []}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"argv": ["--max_batchsize", "4"]}, "no such option: --max_batchsize"),
        ({"argv": ["--tp_size", "two"]}, "is no count"),
        ({"argv": ["--max_num_tokens", "64"], "settings": {"max_num_tokens": 64}}, "both a flag and in the settings file"),
        ({"settings": {"kv_cache_config": {"block_reuse": False}}}, "no such setting: kv_cache_config.block_reuse"),
        ({"settings": {"moe_config": {"backend": "WIDEEP"}}}, "not WIDEEP"),
        ({"settings": {"kv_cache_config": None}}, "is no mapping"),
        ({"settings": {"stream_interval": True}}, "is no count"),
        ({"settings": {"speculative_config": {"decoding_type": "magic"}}}, "decoding_type"),
    ],
)
def test_the_contract_finds_what_is_wrong(change: dict[str, Any], expected: str) -> None:
    complaints = load(CONTRACTS / "parsers" / "trtllm.py", "trtllm_parser_under_test")["complaints"]
    request = asked({"graphs": "off"})
    assert list(complaints(request)) == []
    request["argv"] += change.get("argv", [])
    request["files"]["llm.yaml"] = json.dumps(json.loads(request["files"]["llm.yaml"]) | change.get("settings", {}))
    assert expected in "; ".join(complaints(request))


class Answer:
    """What `LLM.generate_async` returns, as far as the worker uses it."""

    def __init__(self, llm: StandIn, prompt: list[int] | str, tokens: int) -> None:
        self.llm, self.prompt_token_ids = llm, prompt if isinstance(prompt, list) else [1]
        reason = "length" if self.prompt_token_ids != [9] else "cancelled"
        self.outputs = [SimpleNamespace(token_ids=[0] * tokens, finish_reason=reason)]

    async def aresult(self) -> Answer:
        self.llm.inside += 1
        self.llm.most = max(self.llm.most, self.llm.inside)
        if self.llm.inside == self.llm.waits_for:
            self.llm.full.set()
        await self.llm.full.wait()
        self.llm.inside -= 1
        return self


class StandIn:
    """`tensorrt_llm.LLM`: it answers once it holds as many requests as it waits for."""

    def __init__(self, model: str, **settings: object) -> None:
        self.model, self.settings, self.waits_for = model, settings, 2
        self.inside = self.most = 0
        self.full = asyncio.Event()

    def generate_async(self, prompt: list[int] | str, sampling_params: Mapping[str, Any]) -> Answer:
        return Answer(self, prompt, sampling_params["max_tokens"])


def test_the_worker_never_has_more_requests_in_the_engine_than_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[StandIn] = []
    params: list[dict[str, Any]] = []
    package = ModuleType("tensorrt_llm")

    def sampling(**given: Any) -> dict[str, Any]:
        params.append(given)
        return given

    def llm(**given: Any) -> StandIn:
        made.append(StandIn(**given))
        return made[0]

    vars(package).update(__version__="1.2.1", LLM=llm, SamplingParams=sampling)
    monkeypatch.setitem(sys.modules, "tensorrt_llm", package)
    monkeypatch.syspath_prepend(str(WORKERS))
    module = load(WORKERS / "trtllm_worker.py", "trtllm_worker_under_test")
    offline = module["Offline"]("org/moe", {"load_format": "dummy"})
    outcome = offline.run(module["Batch"]([[1, 2, 3], "text", [9], [4]], output_tokens=7, batch=2))
    assert made[0].most == 2
    assert (made[0].model, made[0].settings) == ("org/moe", {"load_format": "dummy"})
    assert [(r.input_tokens, r.output_tokens, r.error) for r in outcome.requests] == [
        (3, 7, None), (1, 7, None), (1, 7, "ended with 'cancelled'"), (1, 7, None),
    ]  # fmt: skip
    assert (params[0]["ignore_eos"], params[0]["temperature"], params[0]["seed"]) == (True, 0.0, None)
    resolved = TRTLLM.resolved(served(offline.resolved))
    assert (resolved.version, resolved.model) == ("1.2.1", "org/moe")


def test_in_process_everything_is_in_the_file() -> None:
    launch = start(deployed(tp=2, runtime="in-process"))
    words = shlex.join(launch.argv).replace(str(WORKERS), "WORKERS")
    assert words == "/env/bin/python WORKERS/trtllm_worker.py /m/moe /site/llm.yaml"
    sizes = {
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "moe_expert_parallel_size": 1,
        "max_batch_size": 8,
        "max_seq_len": 1024,
    }
    assert json.loads(launch.files["llm.yaml"]) == {**PLAIN, **sizes}
