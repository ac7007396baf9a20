"""ExLlamaV3's adapter: flags of our worker, TabbyAPI's configuration, refusals, and the resolved configuration.

Starts nothing. The flags themselves are asked of the real package by `make contracts`.
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
    Get,
    Install,
    Launch,
    Parallelism,
    Reply,
    Runtime,
    Site,
    Unsupported,
)
from enginebench.domain import ClosedLoop, TraceReplay
from enginebench.engines.registry import load_file
from enginebench.machine.folders import resource_dir

ADAPTER = load_file(resource_dir("adapters") / "exllamav3.py")
INSTALL = Install("exllamav3", "1.6.5", python=Path("/env/bin/python"))
TABBY: Mapping[str, JSON] = {"server": "tabbyapi", "tabbyapi_folder": "/opt/tabbyAPI"}
SERVE = "/env/bin/python WORKERS/exllamav3_worker.py serve"
ADDRESS = "--host 127.0.0.1 --port 8123 --served-name tiny"
FLAGS = "-m /m/tiny-exl3 -cs 4096 -chunk_size 2048 -ambs 4"


def deployment(
    options: Mapping[str, JSON] | None = None,
    spread: Parallelism = Parallelism(),  # noqa: B008  # frozen
    runtime: Runtime = "process",
    precision: str = "exl3_4.5bpw",
    context: int = 900,
) -> Deployment:
    return Deployment(
        "exllamav3", "tiny", precision, "tiny", runtime, spread, max_context=context, max_concurrency=4, options=options or {}
    )


def start(asked: Deployment, checkpoint: str = "/m/tiny-exl3") -> Launch:
    return ADAPTER.launch(asked, INSTALL, Site("127.0.0.1", 8123, Path("/site"), checkpoint))


def words(launch: Launch) -> str:
    return shlex.join(launch.argv).replace(str(WORKERS), "WORKERS")


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, ""),
        ({"k_bits": 8}, " -cq 8,8"),
        ({"k_bits": 8, "v_bits": 4}, " -cq 8,4"),
        ({"gpu_split": [20]}, " -gs 20"),
        ({"moe_cpu_layers": 12, "moe_cpu_threads": 16}, " -mcl 12 -mct 16"),
        ({"moe_cpu_experts": 64, "moe_cpu_pinned": True}, " -mcs 64 -mcpa"),
        ({"mtp": True, "draft_tokens": 3}, " -ndt 3 -mtp"),
        ({"ngram_match": 2}, " -ngram 2"),
        ({"warmup": False, "extra": ["-ccs", "16"]}, " -nw -ccs 16"),
    ],
)
def test_an_option_becomes_flags(options: dict[str, JSON], flags: str) -> None:
    assert words(start(deployment(options))) == f"{SERVE} --gpus 1 --slots 4 {ADDRESS} {FLAGS}{flags}"


@pytest.mark.parametrize(
    ("spread", "gpus", "flags"),
    [
        (Parallelism(pp=2), 2, ""),
        (Parallelism(tp=2), 2, " -tp -tpb native -tp_moe_ts"),
        (Parallelism(tp=4, ep=4), 4, " -tp -tpb native"),
    ],
)
def test_a_spread_becomes_devices_and_flags(spread: Parallelism, gpus: int, flags: str) -> None:
    asked = deployment(spread=spread)
    assert ADAPTER.traits(asked).gpus == gpus
    assert words(start(asked)) == f"{SERVE} --gpus {gpus} --slots 4 {ADDRESS} {FLAGS}{flags}"


@pytest.mark.parametrize(("context", "tokens"), [(224, 4 * 256), (225, 4 * 512), (992, 4 * 1024), (1000, 4 * 1280)])
def test_the_cache_holds_whole_pages_for_every_request_and_what_a_draft_claims(context: int, tokens: int) -> None:
    assert f" -cs {tokens} " in words(start(deployment(context=context)))


def test_cache_and_chunk_sizes_are_passed_through() -> None:
    assert "-cs 65536 -chunk_size 4096" in words(start(deployment({"cache_tokens": 65536, "chunk_size": 4096})))


def test_a_batch_has_no_address() -> None:
    launch = start(deployment(runtime="in-process"))
    assert words(launch) == f"/env/bin/python WORKERS/exllamav3_worker.py offline --gpus 1 --slots 4 {FLAGS}"
    assert launch.notes == ()  # its cache starts empty


def test_approximations_are_noted() -> None:
    assert any("only unique prompts are cold" in note for note in start(deployment()).notes)
    assert any("f16" in note for note in start(deployment(precision="bf16")).notes)
    assert any("one after another" in note for note in start(deployment(spread=Parallelism(pp=2))).notes)
    assert any("seeds" in note for note in start(deployment(TABBY)).notes)


def test_tabbyapi_configuration_file() -> None:
    options = {**TABBY, "k_bits": 8, "gpu_split": [20.5, 22], "moe_cpu_layers": 3, "ngram_match": 2, "draft_tokens": 4}
    launch = start(deployment(options, Parallelism(pp=2)))
    assert words(launch) == "/env/bin/python WORKERS/exllamav3_worker.py tabbyapi --gpus 2 /opt/tabbyAPI/main.py --config /site/config.yml"
    assert launch.served_name == "tiny-exl3"
    assert json.loads(launch.files["config.yml"]) == {
        "network": {"host": "127.0.0.1", "port": 8123, "disable_auth": True, "sse_ping_interval": 0, "api_servers": ["OAI"]},
        "model": {
            "model_dir": "/m",
            "model_name": "tiny-exl3",
            "backend": "exllamav3",
            "max_seq_len": 1024,
            "cache_size": 4096,
            "cache_mode": "8,8",
            "max_batch_size": 4,
            "chunk_size": 2048,
            "output_chunking": False,
            "tensor_parallel": False,
            "tensor_parallel_backend": "native",
            "gpu_split_auto": False,
            "gpu_split": [20.5, 22],
            "cpu_moe_offload_layers": 3,
        },
        "draft_model": {"draft_mode": "ngram", "ngram_match_min": 2, "draft_num_tokens": 4},
    }


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (deployment(spread=Parallelism(dp_replicas=2)), "no replicas"),
        (deployment(spread=Parallelism(tp=2, attention_dp=2)), "attention data parallelism"),
        (deployment(spread=Parallelism(tp=2, pp=2)), "not both"),
        (deployment(spread=Parallelism(ep=2)), "not ep = 2"),
        (deployment(spread=Parallelism(tp=4, ep=2)), "not ep = 2"),
        (deployment({"gpu_split": [20, 20]}), "names 2 GPUs"),
        (deployment({"moe_cpu_experts": 8}, Parallelism(tp=2)), "without tensor parallelism"),
        (deployment({"moe_cpu_experts": 8, "moe_cpu_layers": 8}), "one of them"),
        (deployment({"v_bits": 8}), "both caches or neither"),
        (deployment({"mtp": True, "ngram_match": 2}), "one way at a time"),
        (deployment({"chunk_size": 1000}), "chunk_size: .* pages of 256"),
        (deployment({"cache_tokens": 768}), "claims 1024"),
        (deployment({"tabbyapi_folder": "/opt/tabbyAPI"}), "server is not tabbyapi"),
        (deployment({"server": "tabbyapi"}), "folder of TabbyAPI"),
        (deployment({**TABBY, "moe_cpu_experts": 3, "extra": ["-nw"]}), "no key for moe_cpu_experts, extra"),
        (deployment(TABBY, Parallelism(tp=2)), "cuts experts into slices"),
        (deployment(TABBY, runtime="in-process"), "is a server"),
    ],
)
def test_refuses(asked: Deployment, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        ADAPTER.check(asked)


def test_a_hub_id_is_refused() -> None:
    with pytest.raises(Unsupported, match="write hf:someone"):
        start(deployment(), checkpoint="someone/tiny-exl3")


def test_tabbyapi_forces_only_one_length() -> None:
    for load in (ClosedLoop(output_tokens="uniform(4,9)"), ClosedLoop(lengths="8+4,9+9"), TraceReplay(trace="t.jsonl")):
        with pytest.raises(Unsupported, match="min_tokens"):
            ADAPTER.check_loads(deployment(TABBY), [load])
        ADAPTER.check_loads(deployment(), [load])
    ADAPTER.check_loads(deployment(TABBY), [ClosedLoop(output_tokens=9)])


def test_request_fields() -> None:
    neutral = {"stream_options": {"include_usage": True}, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    load = ClosedLoop(output_tokens=9)
    assert ADAPTER.traits(deployment()).takes_ids
    assert ADAPTER.request_fields(deployment(), load) == {**neutral, "ignore_eos": True}
    assert not ADAPTER.traits(deployment(TABBY)).takes_ids
    assert ADAPTER.request_fields(deployment(TABBY), load) == {**neutral, "min_tokens": 9, "loop_detect_window": 0}


def reply(path: str, body: JSON) -> Get:
    """A server with this one path."""
    return lambda asked: Reply(200, json.dumps(body).encode()) if asked == path else Reply(404)


def test_resolved_of_our_server() -> None:
    live: dict[str, JSON] = {
        "model": "tiny", "version": "1.6.5", "bits": 4.5, "dtype": "bfloat16", "cache_tokens": 4096, "max_position_embeddings": 2048,
        "slots": 4, "cache_bits": "8,4", "chunk_size": 2048, "prefix_cache": True, "moe_cpu_layers": 0, "moe_cpu_experts": 64,
    }  # fmt: skip
    found = ADAPTER.resolved(reply("/enginebench", live))
    assert (found.version, found.model, found.precision) == ("1.6.5", "tiny", "exl3_4.5bpw")
    assert (found.context, found.slots, found.kv_tokens, found.batch_tokens) == (2048, 4, 4096, 2048)
    assert (found.kv_dtype, found.prefix_cache, found.chunked_prefill) == ("q8,4", True, True)
    assert found.options == {"moe_cpu_experts": 64, "chunk_size": 2048}
    assert found.raw == {"/enginebench": live}
    plain = ADAPTER.resolved(reply("/enginebench", {**live, "bits": None, "cache_bits": None}))
    assert (plain.precision, plain.kv_dtype) == ("bf16", "f16")


def test_resolved_of_tabbyapi() -> None:
    parameters = {"max_seq_len": 1024, "cache_size": 4096, "cache_mode": "8,8", "max_batch_size": 4, "chunk_size": 2048}
    found = ADAPTER.resolved(reply("/v1/model", {"id": "tiny-exl3", "parameters": parameters}))
    assert (found.model, found.context, found.kv_tokens, found.slots, found.batch_tokens) == ("tiny-exl3", 1024, 4096, 4, 2048)
    assert (found.kv_dtype, found.precision, found.version) == ("q8,8", None, None)


def test_counters_have_neutral_names() -> None:
    names = (*TOTALS.keys() - {"preemptions"}, *GAUGES)
    text = "".join(f"exllamav3_{name}{'_total' if name in TOTALS else ''} {index}\n" for index, name in enumerate(names))
    assert ADAPTER.counters(lambda _path: Reply(200, text.encode())) == {name: index for index, name in enumerate(names)}


def test_precisions_are_quarters_of_a_bit() -> None:
    assert ADAPTER.precisions is not None
    assert {"exl3_3.5bpw", "exl3_4.5bpw", "exl3_2.25bpw", "exl3_4bpw", "f16"} <= ADAPTER.precisions
    assert not {"exl3_0.75bpw", "exl3_8.25bpw", "fp8"} & ADAPTER.precisions
