"""TensorRT-LLM: `trtllm-serve` on its PyTorch backend, and its `LLM` class without a wire.

Sizes go on the command line, everything else into a file of LLM settings (JSON, which is YAML); no key is in both, because releases
differ in which of the two wins. The precision is the checkpoint's: one is made for each with NVIDIA's ModelOpt. Knows nothing of what
the server resolved: it tells its version, its model and, after the first iterations, the sizes of its batch and of its KV cache.

By default the scheduler reserves a request's whole output (GUARANTEED_NO_EVICT), and the server's tunes the batch size while it runs.

Not yet run on a GPU, and so not at all: unverified is all of it. Flags, settings, routes and request fields were read in public sources
of 1.2 and later (tests/contracts/tables/trtllm.json names them).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from enginebench.adapter import (
    JSON,
    WORKERS,
    Adapter,
    Deployment,
    Get,
    Install,
    Launch,
    Load,
    Resolved,
    Site,
    Unsupported,
    as_object,
    installed_version,
    only,
    options_as,
    prometheus_totals,
)

DTYPES: Mapping[str, str] = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
"""Precisions of weights that are not quantised."""

MoEBackend = Literal["AUTO", "CUTLASS", "CUTEDSL", "TRTLLM", "DEEPGEMM", "VANILLA", "TRITON"]

SETTINGS = "llm.yaml"
READY_S = 3600.0
BATCH_TOKENS = 8192
"""TensorRT-LLM's own max_num_tokens."""

SIZES: Mapping[str, str] = {
    "tensor_parallel_size": "--tp_size",
    "pipeline_parallel_size": "--pp_size",
    "moe_expert_parallel_size": "--ep_size",
    "max_batch_size": "--max_batch_size",
    "max_num_tokens": "--max_num_tokens",
    "max_seq_len": "--max_seq_len",
}
"""Settings that are flags of `trtllm-serve`."""

COUNTERS: Mapping[str, str] = {
    "prompt_tokens": "trtllm_prompt_tokens_total",
    "cached_tokens": "trtllm_prompt_cached_tokens_total",
    "output_tokens": "trtllm_generation_tokens_total",
    "draft_tokens": "trtllm_spec_decode_num_draft_tokens_total",
    "accepted_tokens": "trtllm_spec_decode_num_accepted_tokens_total",
    "running": "trtllm_num_requests_running",
    "waiting": "trtllm_num_requests_waiting",
    "kv_use": "trtllm_kv_cache_utilization",
}
"""On /prometheus/metrics; a release may have a few of them only."""


@dataclass(frozen=True)
class Eplb:
    """Balance the experts' load over the ranks (moe_config.load_balancer)."""

    slots: int
    """Places for experts over all ranks; more than there are experts means copies."""
    layer_updates_per_iter: int = 0
    """Layers that are rearranged in one iteration; 0: the placement stays as it is."""


@dataclass(frozen=True)
class TrtllmOptions:
    """Engine options; None leaves TensorRT-LLM's own default."""

    kv_dtype: Literal["auto", "fp8", "nvfp4"] | None = None
    """Element type of the KV cache."""
    kv_fraction: float | None = None
    """Share for KV of the memory that is free once weights and buffers are there; 0.9 is its default."""
    kv_tokens: int | None = None
    """Tokens that the KV cache holds at most."""
    kv_host_gib: float | None = None
    """Host memory that takes KV blocks the device has no room for."""
    block_size: int | None = None
    """Tokens per KV block."""
    prefix_cache: bool = False
    """Let a prompt reuse the KV blocks of an earlier one. Off: a repeated prompt is computed again, every time."""
    chunked_prefill: bool | None = None
    """Split long prompts over steps. Off by default: a prompt longer than batch_tokens is then refused."""
    batch_tokens: int | None = None
    """Tokens of one forward pass, at most (--max_num_tokens, 8192)."""
    max_batch_size: int | None = None
    """Requests of one forward pass, at most. None: as many as the loads have in flight."""
    overlap_schedule: bool | None = None
    """Schedule a step while the one before runs."""
    stream_interval: int = 1
    """Iterations between two events of a stream."""
    graphs: Literal["off", "decode"] | None = None
    """CUDA graphs for batches of nothing but decodes."""
    graph_batch: int | None = None
    """Requests of the largest graph; 128 is its default."""
    graph_padding: bool | None = None
    """Fill a batch up to the next captured size. Off by default: a batch between two sizes then runs without a graph."""
    attention_backend: Literal["TRTLLM", "FLASHINFER", "VANILLA"] | None = None
    """Attention kernels."""
    attention_dp_balance: bool = False
    """Hold requests back for some iterations so that the ranks of attention_dp get equal shares."""
    moe_backend: MoEBackend | None = None
    """Kernels of the routed experts."""
    eplb: Eplb | None = None
    """Balance the experts' load over the ranks, with ep: e.g. {slots: 288, layer_updates_per_iter: 2}."""
    speculative: Mapping[str, JSON] | None = None
    """Speculative decoding, as speculative_config has it, e.g. {decoding_type: NGram, max_draft_len: 4}."""
    load_format: Literal["auto", "dummy"] = "auto"
    """How weights are read; dummy: random ones, none are read."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables, e.g. {TRTLLM_SERVER_DISABLE_GC: "1"}."""
    config: Mapping[str, JSON] = field(default_factory=dict)
    """Further LLM settings, as its YAML has them; they must not say again what another option says."""
    extra: tuple[str, ...] = ()
    """Further flags of `trtllm-serve`, passed through as they are."""


def settings(deployment: Deployment, options: TrtllmOptions) -> dict[str, JSON]:
    """Everything but the model, as arguments of `LLM`; what is None is left to TensorRT-LLM, except cuda_graph_config: off."""
    spread, eplb = deployment.parallelism, options.eplb
    host = round(options.kv_host_gib * 2**30) if options.kv_host_gib is not None else None
    kv: dict[str, JSON] = {
        "enable_block_reuse": options.prefix_cache,
        "dtype": options.kv_dtype,
        "free_gpu_memory_fraction": options.kv_fraction,
        "max_tokens": options.kv_tokens,
        "host_cache_size": host,
        "tokens_per_block": options.block_size,
    }
    balancer: dict[str, JSON] = {"num_slots": eplb.slots, "layer_updates_per_iter": eplb.layer_updates_per_iter} if eplb else {}
    graphs: dict[str, JSON] = {"max_batch_size": options.graph_batch, "enable_padding": options.graph_padding}
    found: dict[str, JSON] = {
        "tensor_parallel_size": spread.tp,
        "pipeline_parallel_size": spread.pp,
        "moe_expert_parallel_size": spread.ep,
        "moe_tensor_parallel_size": spread.tp // spread.ep if spread.ep > 1 else None,
        "enable_attention_dp": spread.attention_dp > 1 or None,
        "attention_dp_config": {"enable_balance": True} if options.attention_dp_balance else None,
        "max_batch_size": options.max_batch_size or deployment.max_concurrency,
        "max_num_tokens": options.batch_tokens,
        "max_seq_len": deployment.max_context,
        "dtype": DTYPES.get(deployment.precision),
        "load_format": options.load_format,
        "kv_cache_config": _given(kv),
        "enable_chunked_prefill": options.chunked_prefill,
        "disable_overlap_scheduler": None if options.overlap_schedule is None else not options.overlap_schedule,
        "stream_interval": options.stream_interval,
        "attn_backend": options.attention_backend,
        "moe_config": _given({"backend": options.moe_backend, "load_balancer": balancer or None}) or None,
        "cuda_graph_config": _given(graphs) or ({} if options.graphs == "decode" else None),
        "speculative_config": dict(options.speculative) if options.speculative is not None else None,
        "enable_iter_perf_stats": True,
        "return_perf_metrics": True,
        **options.config,
    }
    return _given(found) | ({"cuda_graph_config": None} if options.graphs == "off" else {})


class Trtllm(Adapter):
    name = "trtllm"
    title = "TensorRT-LLM"
    requirements = ("tensorrt_llm==1.2.1",)
    checkpoint_format = "safetensors"
    precisions = frozenset(DTYPES) | {"fp8", "nvfp4", "mxfp4", "awq", "w4a8"}
    runtimes = ("process", "in-process")
    apis = ("completions", "chat")
    options = TrtllmOptions

    def find(self, python: Path | None) -> Sequence[Install]:
        if python is not None and (version := installed_version(python, "tensorrt_llm")):
            return [Install("trtllm-serve", version, python=python, binary=python.parent / "trtllm-serve")]
        if command := shutil.which("trtllm-serve"):  # as in its container
            beside = Path(command).parent / "python3"
            return [Install("trtllm-serve", installed_version(beside, "tensorrt_llm") or "unknown", python=beside, binary=Path(command))]
        return []

    def random_weights(self, deployment: Deployment) -> bool:
        return options_as(TrtllmOptions, deployment).load_format == "dummy"

    def check(self, deployment: Deployment) -> None:
        options = options_as(TrtllmOptions, deployment)
        _check_parallelism(deployment, options)
        if deployment.precision not in self.precisions:
            raise Unsupported(f"{self.title} has no precision '{deployment.precision}'")
        if options.graphs == "off" and (options.graph_batch is not None or options.graph_padding is not None):
            raise Unsupported("graph_batch and graph_padding shape graphs that are off")
        if options.speculative is not None and "decoding_type" not in options.speculative:
            raise Unsupported("speculative needs its decoding_type, e.g. {decoding_type: NGram, max_draft_len: 4}")
        said = settings(deployment, options_as(TrtllmOptions, _without_config(deployment)))
        if again := sorted(said.keys() & options.config.keys()):
            raise Unsupported(f"config says again what is said already: {', '.join(again)}")

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        options = options_as(TrtllmOptions, deployment)
        said, notes = settings(deployment, options), tuple(_notes(deployment, options))
        file = str(site.folder / SETTINGS)
        local = Path(site.checkpoint).is_absolute()
        env = {"TRTLLM_NO_USAGE_STATS": "1", "TELEMETRY_DISABLED": "1", **({"HF_HUB_OFFLINE": "1"} if local else {}), **options.env}
        # There is no flag for the served name: a folder's is its last part, a hub id is itself.
        name = Path(site.checkpoint).name if local else site.checkpoint
        if deployment.runtime == "in-process":
            argv = (str(install.python), str(WORKERS / "trtllm_worker.py"), site.checkpoint, file)
            return Launch(argv, name, env, {SETTINGS: json.dumps(said, indent=1)}, notes, READY_S)
        sizes = [text for key, flag in SIZES.items() if key in said for text in (flag, str(said[key]))]
        rest = {key: value for key, value in said.items() if key not in SIZES}
        server = (str(install.binary), "serve", site.checkpoint, "--host", site.host, "--port", str(site.port))
        return Launch(
            (*server, *sizes, "--extra_llm_api_options", file, *options.extra),
            name,
            env,
            {SETTINGS: json.dumps(rest, indent=1)},
            notes,
            READY_S,
        )

    # readiness: the default. Its port is bound before the model is loaded, but refuses until the server listens.

    def resolved(self, get: Get) -> Resolved:
        version, listed = (as_object(get(path).json()) for path in ("/version", "/v1/models"))
        models = listed.get("data")
        first = as_object(models[0]) if isinstance(models, list) and models else {}
        last = _last(get)
        kv = as_object(last.get("kvCacheStats"))
        blocks, size = only(int, kv.get("maxNumBlocks")), only(int, kv.get("tokensPerBlock"))
        return Resolved(
            version=only(str, version.get("version")),
            model=only(str, first.get("id")),
            slots=only(int, last.get("maxBatchSizeStatic")),
            batch_tokens=only(int, last.get("maxNumTokensStatic")),
            kv_tokens=blocks * size if blocks is not None and size is not None else None,
            options={"block_size": size} if size is not None else {},
            raw={"/version": version, "/v1/models": listed, "/metrics": last},
        )

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        # A field that it does not know is a 400. An event holds whatever its iterations made: usage says how many tokens that was.
        usage: JSON = {"include_usage": True, "continuous_usage_stats": True}
        fields: dict[str, JSON] = {"ignore_eos": True, "stream_options": usage, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
        # A prompt of token ids gets no special token either; a chat template brings its own.
        return fields if load.api == "chat" else fields | {"add_special_tokens": False}

    def counters(self, get: Get) -> Mapping[str, float]:
        """/metrics is drained by reading it, and so holds no totals; its last record says how it is now, where nothing else does."""
        totals = prometheus_totals(get("/prometheus/metrics/").body.decode(errors="replace"))  # without the slash it redirects
        found = {name: totals[theirs] for name, theirs in COUNTERS.items() if theirs in totals}
        if "running" in found:
            return found
        last = _last(get)
        kv = as_object(last.get("kvCacheStats"))
        now = {"running": last.get("numActiveRequests"), "waiting": last.get("numQueuedRequests")}
        used, blocks = only(int, kv.get("usedNumBlocks")), only(int, kv.get("maxNumBlocks"))
        found |= {name: float(value) for name, told in now.items() if (value := only(int, told)) is not None}
        return found | ({"kv_use": used / blocks} if used is not None and blocks else {})


def _check_parallelism(deployment: Deployment, options: TrtllmOptions) -> None:
    spread = deployment.parallelism
    if spread.dp_replicas > 1:
        raise Unsupported("one TensorRT-LLM server is one replica: dp_replicas would be several servers and a router")
    if spread.attention_dp not in (1, spread.tp):
        raise Unsupported(f"TensorRT-LLM's attention_dp is a switch over all of tp: it is 1 or {spread.tp}, not {spread.attention_dp}")
    if spread.tp % spread.ep:
        raise Unsupported(f"expert parallelism lies inside tp: ep {spread.ep} does not divide {spread.tp}")
    if options.attention_dp_balance and spread.attention_dp == 1:
        raise Unsupported("attention_dp_balance is about attention_dp, and there is none")
    eplb = options.eplb
    if eplb is not None and spread.ep == 1:
        raise Unsupported("eplb balances the ranks of expert parallelism: it needs ep")
    if eplb is not None and eplb.slots % spread.ep:
        raise Unsupported(f"eplb's slots are shared out over the ranks: ep {spread.ep} does not divide {eplb.slots}")


def _notes(deployment: Deployment, options: TrtllmOptions) -> Iterator[str]:
    yield "a request reserves KV for its whole output"
    if deployment.runtime != "in-process":
        yield "trtllm-serve tunes the batch size while it runs, up to max_batch_size"
    if not options.chunked_prefill and deployment.max_context > (options.batch_tokens or BATCH_TOKENS):
        yield f"without chunked_prefill a prompt of more than {options.batch_tokens or BATCH_TOKENS} tokens is refused"
    if options.graphs != "off" and not options.graph_padding:
        yield "a batch whose size was not captured runs without a CUDA graph (graph_padding is off)"


def _without_config(deployment: Deployment) -> Deployment:
    return replace(deployment, options={name: value for name, value in deployment.options.items() if name != "config"})


def _last(get: Get) -> dict[str, JSON]:
    """The latest of the iteration records that /metrics holds; {} where there was none since it was last read."""
    records = get("/metrics").json()
    return as_object(records[-1]) if isinstance(records, list) and records else {}


def _given(values: Mapping[str, JSON]) -> dict[str, JSON]:
    return {name: value for name, value in values.items() if value is not None}
