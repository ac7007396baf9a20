"""The adapter of transformers: command lines, refusals, and the resolved configuration. Starts nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path

import pytest
from enginebench.adapter import JSON, WORKERS, Deployment, Install, Launch, Parallelism, Reply, Resolved, Runtime, Site, Unsupported
from enginebench.domain import ClosedLoop, PrefixRule
from enginebench.engines.registry import load_file
from enginebench.machine.folders import resource_dir

TRANSFORMERS = load_file(resource_dir("adapters") / "transformers.py")
SERVE = Install("serve", "5.23.0", python=Path("/env/bin/python"))
ONE = Parallelism()


def hf(
    options: Mapping[str, JSON] | None = None, runtime: Runtime = "process", precision: str = "bf16", spread: Parallelism = ONE
) -> Deployment:
    return Deployment("transformers", "tiny", precision, "tiny", runtime, spread, max_context=600, max_concurrency=4, options=options or {})


def start(deployment: Deployment, checkpoint: str) -> Launch:
    return TRANSFORMERS.launch(deployment, SERVE, Site("127.0.0.1", 8123, Path("/site"), checkpoint, ports=(8124,)))


def words(launch: Launch) -> str:
    return shlex.join(launch.argv).replace(str(WORKERS), "WORKERS")


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
        ({"cb_use_async_batching": False}, f"{HF} {CB} --no-cb-use-async-batching"),
        ({"cb_default_compile_level": 2}, f"{HF} {CB} --cb-default-compile-level 2"),
        ({"load_format": "dummy"}, f"{HF} --load-format dummy {CB}"),
        ({"loading_workers": 8}, f"{HF} --loading-workers 8 {CB}"),
        ({"dequantize": True}, f"{HF} {CB} --dequantize"),
    ],
)
def test_transformers_option_becomes_flags(options: dict[str, JSON], flags: str) -> None:
    prefix = "/env/bin/python WORKERS/transformers_worker.py serve /m/tiny --host 127.0.0.1 --port 8123 "
    assert words(start(hf(options), "/m/tiny")) == prefix + flags


def test_transformers_names_the_model_as_the_command_line_does() -> None:
    local = start(hf({"threads": 2}), "/m/tiny")
    assert local.served_name == "/m/tiny"
    assert local.env == {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "HF_HOME": "/site/huggingface", "OMP_NUM_THREADS": "2"}
    hub = start(hf(), "org/tiny")
    assert hub.served_name == "org/tiny"
    assert "HF_HUB_OFFLINE" not in hub.env


def test_transformers_in_process_has_no_address() -> None:
    launch = start(hf(runtime="in-process", precision="f32"), "/m/tiny")
    assert words(launch) == f"/env/bin/python WORKERS/transformers_worker.py offline /m/tiny --dtype float32 --device auto {CB}"


@pytest.mark.parametrize("runtime", ["process", "in-process"])
def test_ranks_are_started_by_torchrun(runtime: Runtime) -> None:
    deployment = hf(runtime=runtime, spread=Parallelism(tp=4, ep=4))
    mode = "offline /m/tiny" if runtime == "in-process" else "serve /m/tiny --host 127.0.0.1 --port 8123"
    launch = start(deployment, "/m/tiny")
    assert words(launch) == (
        "/env/bin/python -m torch.distributed.run --nproc-per-node 4 --master-addr 127.0.0.1 --master-port 8124 "
        f"WORKERS/transformers_worker.py {mode} {HF} --tp 4 --ep 4 {CB}"
    )
    assert any("OMP_NUM_THREADS" in note for note in launch.notes)
    assert TRANSFORMERS.traits(deployment).extra_ports == 1
    assert TRANSFORMERS.traits(deployment).gpus == 4


def test_layers_over_gpus_are_one_process_and_take_turns() -> None:
    deployment = hf(spread=Parallelism(pp=2))
    launch = start(deployment, "/m/tiny")
    assert words(launch).endswith(f"--port 8123 {HF} --pp 2 {CB}")
    assert any("one computes at a time" in note for note in launch.notes)
    assert (TRANSFORMERS.traits(deployment).gpus, TRANSFORMERS.traits(deployment).extra_ports) == (2, 0)


def test_the_cpu_takes_no_gpu() -> None:
    assert TRANSFORMERS.traits(hf()).gpus == 1
    assert TRANSFORMERS.traits(hf({"device": "cpu"}, spread=Parallelism(tp=2))).gpus == 0


def test_random_weights_are_reported() -> None:
    assert TRANSFORMERS.traits(hf({"load_format": "dummy"})).random_weights
    assert not TRANSFORMERS.traits(hf()).random_weights


def test_only_switching_parallel_loading_off_needs_a_variable() -> None:
    assert start(hf({"parallel_loading": False}), "/m/tiny").env["HF_DEACTIVATE_ASYNC_LOAD"] == "1"
    for options in ({}, {"parallel_loading": True}):
        assert not any("LOAD" in name for name in start(hf(options), "/m/tiny").env)


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (hf(precision="q4_k_m"), "not q4_k_m"),
        (hf({"cb_max_memory_percent": 0.5}), "cb_num_blocks: auto"),
        (hf({"cb_max_memory_percent": 0.5, "cb_num_blocks": 8}), "cb_num_blocks: auto"),
        (hf(spread=Parallelism(ep=2)), "ep is 1 or 1"),
        (hf(spread=Parallelism(tp=4, ep=2)), "ep is 1 or 4"),
        (hf(spread=Parallelism(tp=2, pp=2)), "cannot be combined with tp"),
        (hf(spread=Parallelism(dp_replicas=2)), "no replicas"),
        (hf(spread=Parallelism(tp=2, attention_dp=2)), "no attention data parallelism"),
        (hf({"device": "cuda:1"}, spread=Parallelism(tp=2)), "cuda:1 is one device"),
        (hf({"device": "cpu"}, spread=Parallelism(pp=2)), "only one CPU"),
        (hf({"dequantize": True}, precision="mxfp4"), "list the checkpoint under bf16"),
        (hf({"load_format": "dummy"}, precision="mxfp4"), "none in MXFP4"),
        (hf({"load_format": "dummy"}, spread=Parallelism(tp=2)), "not sharded"),
        (hf({"loading_workers": 2, "parallel_loading": False}), "here none do"),
    ],
)
def test_transformers_refuses(deployment: Deployment, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        TRANSFORMERS.check(deployment)


def test_transformers_refuses_a_path_it_would_misread() -> None:
    with pytest.raises(Unsupported, match="revision"):
        start(hf(), "/m/tiny@home")


@pytest.mark.parametrize("api", ["completions", "chat"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_transformers_body_stays_inside_the_whitelist(api: str, temperature: float) -> None:
    load = ClosedLoop(output_tokens=7, temperature=temperature, api="chat" if api == "chat" else "completions")
    extra = TRANSFORMERS.request_fields(hf(), load)
    body = TRANSFORMERS.dialect(hf(), load).body(
        model="/m/tiny", prompt="hi", output_tokens=7, temperature=temperature, seed=1, extra=extra
    )
    assert body.keys() <= {"model", "prompt", "messages", "max_tokens", "temperature", "stream", "seed", "generation_config"}
    config = json.loads(str(body["generation_config"]))
    assert (config["max_new_tokens"], config["eos_token_id"], config["do_sample"]) == (7, -1, temperature > 0)


LIVE: dict[str, JSON] = {
    "version": "5.23.0",
    "model": "/m/tiny",
    "weights": "bfloat16",
    "dtype": "bfloat16",
    "attn_implementation": "paged|eager",
    "experts_implementation": {"": "grouped_mm"},
    "experts_ran": ["grouped_mm", "grouped_mm_fallback"],
    "max_position_embeddings": 2048,
    "prefix_cache": False,
    "continuous_batching": {
        "page_size": 256, "num_blocks": 4, "max_requests_per_batch": 4, "max_batch_tokens": 8192, "use_cuda_graph": [False, True],
    },
}  # fmt: skip


def live(**changes: JSON) -> Resolved:
    return TRANSFORMERS.resolved(lambda _: Reply(200, json.dumps(LIVE | changes).encode()))


def test_transformers_reports_the_kernels_that_ran() -> None:
    resolved = live()
    assert resolved.options == {"experts_implementation": "grouped_mm+grouped_mm_fallback", "attn_implementation": "eager"}
    assert (resolved.precision, resolved.kv_dtype, resolved.context, resolved.slots) == ("bf16", "bf16", 1024, 4)
    assert (resolved.kv_tokens, resolved.batch_tokens, resolved.chunked_prefill, resolved.graphs) == (1024, 8192, True, "decode")
    assert resolved.prefix_cache is False
    assert resolved.prefix_rule is None
    assert live(prefix_cache=True).prefix_rule == PrefixRule(256, "computed")


def test_silently_expanded_weights_are_not_mxfp4() -> None:
    assert live(weights="mxfp4").precision == "mxfp4"
    assert live(weights="bfloat16").precision == "bf16"


@pytest.mark.parametrize(("pair", "word"), [([False, False], "off"), ([True, True], "all"), ([True, False], "mixed"), (None, None)])
def test_which_passes_run_as_graphs(pair: JSON, word: str | None) -> None:
    assert live(continuous_batching={"use_cuda_graph": pair}).graphs == word


def test_transformers_counters_are_the_gauges_of_its_batch_and_what_its_cache_gave() -> None:
    asked: list[str] = []

    def get(path: str) -> Reply:
        asked.append(path)
        return Reply(200, json.dumps({"running": 3, "waiting": 1, "kv_use": 0.5, "cached_tokens": 512, "more": 7}).encode())

    assert TRANSFORMERS.counters(get) == {"running": 3, "waiting": 1, "kv_use": 0.5, "cached_tokens": 512}
    assert asked == ["/enginebench/counters"]
    assert TRANSFORMERS.counters(lambda _: Reply(404)) == {}


def test_find_reads_the_metadata_of_the_environment(tmp_path: Path) -> None:
    info, python = tmp_path / "lib/python3.11/site-packages/transformers-5.23.0.dist-info", tmp_path / "bin/python"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.23.0\n")
    assert TRANSFORMERS.find(python) == [Install("serve", "5.23.0", python=python)]
    assert TRANSFORMERS.find(None) == []
