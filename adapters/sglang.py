"""SGLang: its HTTP server, by OpenAI's routes or its own, and its `Engine` without a wire.

Both faces get the same flags. Knows nothing of which kernels a device has: what SGLang chooses itself is read back from /server_info.
`ep` lies inside tp (of each replica), `attention_dp` too; SGLang takes either attention_dp or dp_replicas.

Not yet run on a GPU, and so not at all: unverified is everything but the flags. They were parsed, and resolved for a CUDA device, by the
ServerArgs of 0.5.23. Routes, counters and fields of /server_info were read in that version's source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Literal

from enginebench.adapter import (
    JSON,
    PROTOCOLS,
    WORKERS,
    Adapter,
    Deployment,
    Dialect,
    Get,
    Install,
    Launch,
    Load,
    Member,
    Readiness,
    Resolved,
    Site,
    Unsupported,
    as_list,
    as_object,
    flags_of,
    installed_version,
    only,
    options_as,
    prometheus_totals,
    without_secrets,
)

DTYPES: Mapping[str, str] = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
"""Precisions of weights that are not quantised."""

# fmt: off
QUANTIZED: Mapping[str, str] = {
    "fp8": "fp8", "modelopt_fp8": "fp8", "w8a8_fp8": "fp8", "mxfp8": "mxfp8", "mxfp4": "mxfp4", "quark_mxfp4": "mxfp4",
    "modelopt_fp4": "nvfp4", "nvfp4_online": "nvfp4", "awq": "awq", "awq_marlin": "awq", "gptq": "gptq", "gptq_marlin": "gptq",
    "w8a8_int8": "int8", "w4afp8": "w4afp8",
}
"""SGLang's name of a quantisation -> the precision. The others (compressed-tensors, moe_wna16, ...) hold several, and say nothing."""

Quantization = Literal[
    "fp8", "modelopt_fp8", "w8a8_fp8", "mxfp8", "mxfp4", "quark_mxfp4", "modelopt_fp4", "nvfp4_online", "awq", "awq_marlin", "gptq",
    "gptq_marlin", "w8a8_int8", "w4afp8", "moe_wna16", "compressed-tensors", "modelopt", "modelopt_mixed", "auto-round", "quark",
    "bitsandbytes",
]
MoEBackend = Literal[
    "auto", "triton", "triton_kernel", "deep_gemm", "cutlass", "flashinfer_trtllm", "flashinfer_trtllm_routed", "flashinfer_cutlass",
    "flashinfer_cutedsl", "flashinfer_mxfp4", "flashinfer_megamoe", "marlin", "humming", "aiter",
]
A2ABackend = Literal[
    "deepep", "deepep_v2", "mooncake", "nixl", "mori", "pplx", "flashinfer", "megamoe", "flashinfer_megamoe",
]
# fmt: on
ONLINE = ("fp8", "mxfp8", "nvfp4_online")
"""Quantisations that can be made while loading unquantised weights."""

RESERVED_TOKENS = 6
"""SGLang keeps so many of its context back from the prompt, and two of them from the answer, which it cuts without a word."""

READY_S = 1800.0

TOTAL: Mapping[str, str] = {
    "output_tokens": "sglang:generation_tokens_total",
    "preemptions": "sglang:num_retracted_requests_total",
    "running": "sglang:num_running_reqs",
}
"""Counters under neutral names; those of the prompt, of the queue, of the KV cache and of speculation need arithmetic."""

READ_BACK: Mapping[str, str] = {
    "quantization": "quantization",
    "load_format": "load_format",
    "mem_fraction": "mem_fraction_static",
    "page_size": "page_size",
    "schedule_policy": "schedule_policy",
    "attention_backend": "attention_backend",
    "moe_backend": "moe_runner_backend",
    "a2a_backend": "moe_a2a_backend",
    "deepep_mode": "deepep_mode",
    "two_batch_overlap": "enable_two_batch_overlap",
    "mixed_chunk": "enable_mixed_chunk",
    "cpu_offload_gb": "cpu_offload_gb",
    "paged_experts": "paged_experts_num_resident",
}
"""Option -> its name in /server_info."""


@dataclass(frozen=True)
class Eplb:
    """Balance the experts' load over the ranks while serving."""

    redundant_experts: int = 0
    rebalance_iterations: int = 1000
    algorithm: str = "auto"
    dispatch: Literal["static", "dynamic", "fake"] | None = None
    """How a copy of an expert is chosen; static needs an a2a_backend."""


@dataclass(frozen=True)
class Speculative:
    """Speculative decoding. SGLang wants steps, topk and draft_tokens together or none of them."""

    algorithm: Literal["EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM", "DFLASH", "DSPARK"]
    draft_model: str | None = None
    steps: int | None = None
    topk: int | None = None
    draft_tokens: int | None = None


@dataclass(frozen=True)
class Disaggregated:
    """Prefill and decode on servers of their own, each with the deployment's parallelism, behind our proxy."""

    prefill: int = 1
    decode: int = 1
    backend: Literal["nixl", "mooncake", "mooncake_tcp", "mori"] = "nixl"
    """What carries the KV across; needs its package beside SGLang."""
    ib_device: str | None = None
    """InfiniBand devices, e.g. mlx5_0,mlx5_1."""


@dataclass(frozen=True)
class SglangOptions:
    """Engine options; None leaves SGLang's own default."""

    protocol: Literal["openai", "sglang"] = "openai"
    """How it is spoken to: OpenAI's routes, or its own /generate."""
    quantization: Quantization | None = None
    """A name that the checkpoint does not say itself, or the quantisation made while loading (fp8, mxfp8, nvfp4_online)."""
    kv_dtype: Literal["auto", "bf16", "fp8_e4m3", "fp8_e5m2", "mxfp8", "nvfp4", "fp4_mx_block16"] | None = None
    """Element type of the KV cache."""
    mem_fraction: float | None = None
    """Share of a device's memory for weights and KV together. SGLang's own depends on chunk size and graphs, and moves with them."""
    kv_tokens: int | None = None
    """Tokens that the KV cache of one rank of attention_dp, or of one replica, holds (--max-total-tokens)."""
    page_size: int | None = None
    """Tokens per KV page."""
    prefix_cache: bool = False
    """Let a prompt reuse the KV of an earlier one (the radix cache). Off: a repeated prompt is computed again, every time."""
    chunked_prefill: bool | None = None
    """Split long prompts over steps."""
    batch_tokens: int | None = None
    """Prompt tokens of one forward pass, at most, over all ranks of attention_dp (--chunked-prefill-size)."""
    mixed_chunk: bool = False
    """Prefill chunks and decodes in one forward pass."""
    max_running_requests: int | None = None
    """Requests in the batch, at most, of each replica. None: as many as the loads have in flight."""
    schedule_policy: Literal["fcfs", "lpm", "lof", "random", "dfs-weight"] | None = None
    """Which waiting request is next."""
    overlap_schedule: bool | None = None
    """Schedule a step while the one before runs."""
    stream_interval: int = 1
    """Tokens in one event of a stream."""
    graphs: Literal["off", "decode_only", "decode_and_prefill"] | None = None
    """Which CUDA graphs are captured."""
    graph_batch: int | None = None
    """Requests of the largest decode graph."""
    attention_backend: str | None = None
    """Attention kernels, e.g. fa3, flashinfer, triton, trtllm_mha."""
    moe_backend: MoEBackend | None = None
    """Kernels of the routed experts (--moe-runner-backend)."""
    a2a_backend: A2ABackend | None = None
    """How tokens get to the ranks of their experts, with ep = tp. None: every rank computes on all tokens, and sums are reduced."""
    deepep_mode: Literal["auto", "normal", "low_latency"] | None = None
    """Kernels of DeepEP."""
    eplb: Eplb | None = None
    """Balance the experts' load over the ranks, with ep: {} or e.g. {redundant_experts: 16, rebalance_iterations: 1000}."""
    two_batch_overlap: bool = False
    """Compute on one half of a batch while the other half's tokens travel."""
    cpu_offload_gb: int | None = None
    """GiB of weights kept in host memory."""
    paged_experts: int | None = None
    """Routed experts of a layer that stay on the device; the others are fetched from host memory when they are needed. One device."""
    speculative: Speculative | None = None
    """Speculative decoding, e.g. {algorithm: EAGLE3, draft_model: /models/draft, steps: 3, topk: 1, draft_tokens: 4}."""
    load_format: Literal["auto", "safetensors", "dummy", "fastsafetensors", "runai_streamer"] = "auto"
    """How weights are read; dummy: random ones, none are read."""
    routing: Literal["uniform", "round_robin"] | None = None
    """Spread tokens over the experts by this rule instead of by the router: for dummy weights. The answers mean nothing."""
    disaggregated: Disaggregated | None = None
    """Prefill and decode on different servers, e.g. {prefill: 1, decode: 1, backend: nixl}."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables of SGLang and what is below it, e.g. {SGLANG_SIMULATE_ACC_LEN: "2.5"}."""
    extra: tuple[str, ...] = ()
    """Further flags of SGLang's server, passed through as they are."""


def engine_flags(deployment: Deployment, options: SglangOptions) -> list[str]:
    """The flags of SGLang's engine but for the model, the same for both faces."""
    spread = deployment.parallelism
    valued: Mapping[str, JSON] = {
        "--dtype": DTYPES.get(deployment.precision, "auto"),
        "--quantization": options.quantization,
        "--load-format": options.load_format,
        "--context-length": deployment.max_context + RESERVED_TOKENS,
        "--max-running-requests": options.max_running_requests or _multiple(deployment.max_concurrency, spread.attention_dp),
        "--stream-interval": options.stream_interval,
        "--tp-size": spread.tp,
        "--pp-size": spread.pp if spread.pp > 1 else None,
        "--dp-size": spread.dp_replicas if spread.dp_replicas > 1 else None,
        "--attn-dp-size": spread.attention_dp if spread.attention_dp > 1 else None,
        "--ep-size": spread.ep if spread.ep > 1 else None,
        "--kv-cache-dtype": options.kv_dtype,
        "--mem-fraction-static": options.mem_fraction,
        "--max-total-tokens": options.kv_tokens,
        "--page-size": options.page_size,
        "--chunked-prefill-size": -1 if options.chunked_prefill is False else options.batch_tokens,
        "--schedule-policy": options.schedule_policy,
        "--cuda-graph-max-bs-decode": options.graph_batch,
        "--attention-backend": options.attention_backend,
        "--moe-runner-backend": options.moe_backend,
        "--moe-a2a-backend": options.a2a_backend,
        "--deepep-mode": options.deepep_mode,
        "--cpu-offload-gb": options.cpu_offload_gb,
        "--paged-experts-num-resident": options.paged_experts,
        "--random-seed": 0,
        **_graph_flags(options),
        **_eplb_flags(options),
        **_speculative_flags(options),
    }
    flags = flags_of(valued)
    switches: Mapping[str, bool] = {
        "--disable-radix-cache": not options.prefix_cache,
        "--disable-overlap-schedule": options.overlap_schedule is False,
        "--enable-mixed-chunk": options.mixed_chunk,
        "--enable-eplb": options.eplb is not None,
        "--enable-two-batch-overlap": options.two_batch_overlap,
        "--enable-paged-experts": options.paged_experts is not None,
    }
    return flags + [flag for flag, on in switches.items() if on]


def _graph_flags(options: SglangOptions) -> dict[str, JSON]:
    if options.graphs is None:
        return {}
    decode = "disabled" if options.graphs == "off" else "full"
    return {
        "--cuda-graph-backend-decode": decode,
        "--cuda-graph-backend-prefill": "breakable" if options.graphs == "decode_and_prefill" else "disabled",
    }


def _eplb_flags(options: SglangOptions) -> dict[str, JSON]:
    eplb = options.eplb
    if eplb is None:
        return {}
    return {
        "--eplb-algorithm": eplb.algorithm,
        "--eplb-rebalance-num-iterations": eplb.rebalance_iterations,
        "--ep-num-redundant-experts": eplb.redundant_experts,
        "--ep-dispatch-algorithm": eplb.dispatch,
    }


def _speculative_flags(options: SglangOptions) -> dict[str, JSON]:
    speculative = options.speculative
    if speculative is None:
        return {}
    return {
        "--speculative-algorithm": speculative.algorithm,
        "--speculative-draft-model-path": speculative.draft_model,
        "--speculative-num-steps": speculative.steps,
        "--speculative-eagle-topk": speculative.topk,
        "--speculative-num-draft-tokens": speculative.draft_tokens,
    }


class Sglang(Adapter):
    name = "sglang"
    title = "SGLang"
    requirements = ("sglang==0.5.23",)
    checkpoint_format = "safetensors"
    precisions = frozenset(DTYPES) | frozenset(QUANTIZED.values()) | {"int4"}
    runtimes = ("process", "in-process")
    apis = ("completions", "chat")
    options = SglangOptions

    def find(self, python: Path | None) -> Sequence[Install]:
        version = installed_version(python, "sglang") if python is not None else None
        return [Install("sglang", version, python=python)] if version else []

    def gpus(self, deployment: Deployment) -> int:
        pair = options_as(SglangOptions, deployment).disaggregated
        return super().gpus(deployment) * (pair.prefill + pair.decode if pair else 1)

    def extra_ports(self, deployment: Deployment) -> int:
        pair = options_as(SglangOptions, deployment).disaggregated
        return 2 * pair.prefill + pair.decode if pair else 0  # a prefill server has a second one, where decode servers meet it

    def random_weights(self, deployment: Deployment) -> bool:
        return options_as(SglangOptions, deployment).load_format == "dummy"

    def forces_routing(self, deployment: Deployment) -> bool:
        return options_as(SglangOptions, deployment).routing is not None

    def check(self, deployment: Deployment) -> None:
        options = options_as(SglangOptions, deployment)
        _check_parallelism(deployment, options)
        _check_experts(deployment, options)
        _check_precision(deployment, options)
        _check_batching(deployment, options)
        _check_pair(deployment, options)
        if ":" in deployment.model:
            raise Unsupported(f"SGLang reads what follows ':' in a model's name as an adapter: '{deployment.model}' cannot be served")

    def check_loads(self, deployment: Deployment, loads: Sequence[Load]) -> None:
        super().check_loads(deployment, loads)
        protocol = options_as(SglangOptions, deployment).protocol
        for load in loads:
            if load.api not in PROTOCOLS[protocol]:
                raise Unsupported(f"SGLang's own route has no {load.api}: write protocol: openai")

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        options = options_as(SglangOptions, deployment)
        env, notes = _environment(options, site), tuple(_notes(deployment, options))
        model = ("--model-path", site.checkpoint, "--served-model-name", deployment.model)
        engine = (*engine_flags(deployment, options), *options.extra)
        python = str(install.python)
        if deployment.runtime == "in-process":
            argv = (python, str(WORKERS / "sglang_worker.py"), *model, *engine)
            return Launch(argv, deployment.model, env, notes=notes, ready_timeout_s=READY_S)
        # Its own default for sampling is the checkpoint's; and a line of log for each request costs time.
        told = ("--enable-metrics", "--enable-cache-report", "--sampling-defaults", "openai", "--log-level-http", "warning")
        server = (python, "-m", "sglang.launch_server", *model, *told, *engine)
        if (pair := options.disaggregated) is None:
            argv = (*server, "--host", site.host, "--port", str(site.port))
            return Launch(argv, deployment.model, env, notes=notes, ready_timeout_s=READY_S)
        members = tuple(_members(pair, server, env, site, super().gpus(deployment)))
        argv = (python, str(WORKERS / "pd_proxy.py"), "--host", site.host, "--port", str(site.port), "--protocol", "sglang")
        argv += tuple(_proxied(pair, members, site))
        return Launch(argv, deployment.model, notes=notes, ready_timeout_s=READY_S, members=members)

    def readiness(self, get: Get) -> Readiness:
        # /health makes an idle server generate a token, and waits a second for it. Versions before /ready have only the model to ask.
        status = get("/ready").status
        if status == 404:
            status = get("/model_info").status
        return "ready" if status == 200 else "loading" if status in (0, 503) else "broken"

    def resolved(self, get: Get) -> Resolved:
        told = without_secrets(get("/server_info").json())
        said = as_object(told)
        if not said:
            return Resolved()
        states = [as_object(state) for state in as_list(said.get("internal_states"))]
        spread, chunk = only(int, said.get("attn_dp_size")) or 1, only(int, said.get("chunked_prefill_size"))
        dtype, kv, quantization = (only(str, said.get(key)) for key in ("dtype", "kv_cache_dtype", "quantization"))
        neutral = next((name for name, theirs in DTYPES.items() if theirs == dtype), None)
        no_cache, no_overlap = (only(bool, said.get(key)) for key in ("disable_radix_cache", "disable_overlap_schedule"))
        context = only(int, said.get("context_length"))
        options: dict[str, JSON] = {name: said.get(theirs) for name, theirs in READ_BACK.items()}
        options["max_running_requests"] = said.get("max_running_requests")
        options["overlap_schedule"] = None if no_overlap is None else not no_overlap
        return Resolved(
            version=only(str, said.get("version")),
            model=only(str, said.get("served_model_name")),
            precision=neutral if quantization is None else QUANTIZED.get(quantization),
            context=context - RESERVED_TOKENS if context is not None else None,
            slots=_sum(state.get("effective_max_running_requests_per_dp") for state in states),
            prefix_cache=None if no_cache is None else not no_cache,
            kv_dtype=neutral if kv == "auto" else "bf16" if kv == "bfloat16" else kv,
            kv_tokens=_sum(as_object(state.get("memory_usage")).get("token_capacity") for state in states),
            chunked_prefill=None if chunk is None else chunk > 0,
            batch_tokens=chunk * spread if chunk is not None and chunk > 0 else None,
            graphs=graph_mode(as_object(said.get("cuda_graph_config"))),
            stream_interval=only(int, said.get("stream_interval")),
            options={name: value for name, value in options.items() if value is not None},
            raw={"/server_info": told},
        )

    def dialect(self, deployment: Deployment, load: Load) -> Dialect:
        return PROTOCOLS[options_as(SglangOptions, deployment).protocol][load.api]

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        forced: dict[str, JSON] = {"ignore_eos": True, "top_p": 1.0, "top_k": -1, "min_p": 0.0}
        if options_as(SglangOptions, deployment).protocol == "sglang":
            return {"sampling_params": forced}
        # A chunk holds whatever one step made: usage in each of them says how many tokens that was.
        return forced | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}

    def counters(self, get: Get) -> Mapping[str, float]:
        """Of a disaggregated pair every request is a request of both sides: prompts are the prefill side's, the rest the decode side's."""
        lines = get("/metrics").body.decode(errors="replace").splitlines()
        lines = [line for line in lines if 'pp_rank="' not in line or 'pp_rank="0"' in line]  # each stage counts the same requests
        decode = [line for line in lines if 'engine_type="prefill"' not in line]
        everywhere, after = prometheus_totals("\n".join(lines)), prometheus_totals("\n".join(decode))
        before = prometheus_totals("\n".join(line for line in lines if 'engine_type="decode"' not in line))
        if "sglang:prompt_tokens_total" not in before:
            return {}
        found = {name: after[theirs] for name, theirs in TOTAL.items() if theirs in after}
        found |= {"prompt_tokens": before["sglang:prompt_tokens_total"], "cached_tokens": before.get("sglang:cached_tokens_total", 0.0)}
        if (waiting := everywhere.get("sglang:num_queue_reqs")) is not None:
            found["waiting"] = waiting
        if (use := _mean(decode, "sglang:token_usage")) is not None:
            found["kv_use"] = use
        return found | _speculation(after, _mean(decode, "sglang:spec_num_draft_tokens") or 0.0)


def _speculation(totals: Mapping[str, float], verified: float) -> dict[str, float]:
    """Proposed and accepted tokens from what SGLang counts: each verification takes `verified` tokens, all but one of them proposed,
    and gives one token more than it accepts; the first token of a request comes without one (TokenizerManager of 0.5.23)."""
    calls, output, requests = (totals.get(f"sglang:{name}_total") for name in ("spec_verify_calls", "generation_tokens", "num_requests"))
    if not calls or verified <= 1 or output is None or requests is None:
        return {}
    return {"draft_tokens": calls * (verified - 1), "accepted_tokens": max(0.0, output - requests - calls)}


def _check_parallelism(deployment: Deployment, options: SglangOptions) -> None:
    spread = deployment.parallelism
    if spread.attention_dp > 1 and spread.dp_replicas > 1:
        raise Unsupported("SGLang has no attention_dp inside replicas: write one of attention_dp and dp_replicas")
    if spread.tp % spread.attention_dp:
        raise Unsupported(f"attention_dp lies inside tp: {spread.attention_dp} does not divide {spread.tp}")
    if spread.tp % spread.ep:
        raise Unsupported(f"expert parallelism lies inside tp: ep {spread.ep} does not divide {spread.tp}")
    speculative = options.speculative
    if spread.pp > 1 and speculative is not None and speculative.algorithm != "EAGLE":
        raise Unsupported(f"over pipeline stages SGLang speculates by EAGLE only, not by {speculative.algorithm}")
    if spread.pp > 1 and options.overlap_schedule:
        raise Unsupported("pipeline stages switch SGLang's overlap schedule off")


def _check_experts(deployment: Deployment, options: SglangOptions) -> None:
    spread, eplb = deployment.parallelism, options.eplb
    if options.a2a_backend is not None and (spread.ep == 1 or spread.ep != spread.tp):
        raise Unsupported(f"{options.a2a_backend} spreads the experts over all of tp: write ep = tp, above 1")
    if options.a2a_backend == "flashinfer" and spread.attention_dp != spread.tp:
        raise Unsupported("the flashinfer all-to-all needs attention_dp = tp")
    if options.moe_backend in ("flashinfer_cutlass", "flashinfer_cutedsl") and spread.ep not in (1, spread.tp):
        raise Unsupported(f"{options.moe_backend} takes an ep of 1 or of tp = {spread.tp}, not {spread.ep}")
    if options.deepep_mode is not None and options.a2a_backend != "deepep":
        raise Unsupported("deepep_mode chooses kernels of a2a_backend: deepep")
    if eplb is not None and spread.ep == 1:
        raise Unsupported("eplb balances the ranks of expert parallelism: it needs ep")
    if eplb is not None and eplb.dispatch == "static" and options.a2a_backend is None:
        raise Unsupported("with a static dispatch each rank chooses another copy, which needs an a2a_backend: write dispatch: dynamic")
    if options.two_batch_overlap and options.a2a_backend is None:
        raise Unsupported("two_batch_overlap hides the travel of an a2a_backend, and there is none")
    if options.paged_experts is not None and deployment.parallelism.tp * spread.pp > 1:
        raise Unsupported("paged_experts is for one device")


def _check_precision(deployment: Deployment, options: SglangOptions) -> None:
    precision, quantization = deployment.precision, options.quantization
    if precision not in Sglang.precisions:
        raise Unsupported(f"SGLang has no precision '{precision}' here")
    if quantization is not None and precision in DTYPES:
        raise Unsupported(f"{quantization} makes the weights something else than {precision}: name the precision they will have")
    means = QUANTIZED.get(quantization or "", precision)
    if means != precision:
        raise Unsupported(f"{quantization} is {means}, not {precision}")


def _check_batching(deployment: Deployment, options: SglangOptions) -> None:
    ranks = deployment.parallelism.attention_dp
    if options.chunked_prefill is False and options.batch_tokens is not None:
        raise Unsupported("without chunked_prefill there is no chunk for batch_tokens to size")
    if (options.batch_tokens or 0) % ranks:
        raise Unsupported(f"batch_tokens {options.batch_tokens} is shared out over {ranks} ranks of attention_dp, which do not divide it")
    if (options.max_running_requests or 0) % ranks:
        raise Unsupported(f"max_running_requests {options.max_running_requests} is shared out over {ranks} ranks, which do not divide it")
    if options.graph_batch is not None and options.graphs == "off":
        raise Unsupported("graph_batch sizes graphs that are off")
    speculative = options.speculative
    if speculative is None:
        return
    if options.mixed_chunk:
        raise Unsupported("SGLang does not mix prefill chunks into speculative steps")
    numbers = (speculative.steps, speculative.topk, speculative.draft_tokens)
    if speculative.algorithm != "NGRAM" and any(numbers) and not all(numbers):
        raise Unsupported("of speculative steps, topk and draft_tokens SGLang wants all three or none")


def _check_pair(deployment: Deployment, options: SglangOptions) -> None:
    pair = options.disaggregated
    if pair is None:
        return
    if deployment.runtime == "in-process":
        raise Unsupported("disaggregated prefill is several servers: there is none in-process")
    if min(pair.prefill, pair.decode) < 1:
        raise Unsupported("a disaggregated deployment needs at least one prefill and one decode server")
    if deployment.parallelism.dp_replicas > 1:
        raise Unsupported("a replica behind a disaggregated server cannot be addressed: write more prefill and decode servers instead")
    if options.prefix_cache:
        raise Unsupported("a decode server keeps no prefix cache: prefix_cache would be that of one side only")


def _environment(options: SglangOptions, site: Site) -> dict[str, str]:
    env: dict[str, str] = {"HF_HUB_OFFLINE": "1"} if Path(site.checkpoint).is_absolute() else {}
    if options.routing is not None:
        env[f"SGLANG_SIMULATE_{options.routing.upper()}_EXPERTS"] = "1"
    return env | dict(options.env)


def _notes(deployment: Deployment, options: SglangOptions) -> Iterator[str]:
    spread = deployment.parallelism
    yield f"the context is {RESERVED_TOKENS} tokens longer than asked: SGLang keeps them back from prompt and answer"
    if spread.attention_dp > 1:
        yield "attention_dp shares the prefill chunk out over its ranks and admits requests sooner (schedule_conservativeness x 0.3)"
        if _multiple(deployment.max_concurrency, spread.attention_dp) != deployment.max_concurrency and not options.max_running_requests:
            yield f"slots are a multiple of attention_dp: {_multiple(deployment.max_concurrency, spread.attention_dp)}"
    if spread.dp_replicas > 1:
        yield "each replica may take all requests: nothing promises that they are spread evenly"
    if spread.pp > 1:
        yield "pipeline stages switch the overlap schedule off"
    if options.disaggregated is not None:
        yield "a prefill server captures no decode graphs"


def _members(pair: Disaggregated, server: Sequence[str], env: Mapping[str, str], site: Site, ranks: int) -> Iterator[Member]:
    """The servers behind the proxy, each on devices of its own: prefill ones first, as their ports are."""
    transfer: tuple[str, ...] = ("--disaggregation-transfer-backend", pair.backend)
    transfer += ("--disaggregation-ib-device", pair.ib_device) if pair.ib_device else ()
    sides = [*product(["prefill"], range(pair.prefill)), *product(["decode"], range(pair.decode))]
    meeting = site.ports[len(sides) :]
    for place, (side, number) in enumerate(sides):
        port = site.ports[place]
        argv = (*server, "--host", site.host, "--port", str(port), "--base-gpu-id", str(place * ranks), "--disaggregation-mode", side)
        argv += ("--disaggregation-bootstrap-port", str(meeting[number])) if side == "prefill" else ()
        yield Member(f"{side}-{number}", (*argv, *transfer), port, env)


def _proxied(pair: Disaggregated, members: Sequence[Member], site: Site) -> Iterator[str]:
    for member in members:
        yield from (f"--{member.name.partition('-')[0]}", f"http://{site.host}:{member.port}")
    for port in site.ports[len(members) : len(members) + pair.prefill]:
        yield from ("--bootstrap-port", str(port))


def graph_mode(config: Mapping[str, JSON]) -> str | None:
    """SGLang's cuda_graph_config in the words of the option `graphs`; None where it does not say."""
    backends = [only(str, as_object(config.get(phase)).get("backend")) for phase in ("decode", "prefill")]
    if None in backends:
        return None
    decode, prefill = (backend != "disabled" for backend in backends)
    return {(False, False): "off", (True, False): "decode_only", (True, True): "decode_and_prefill"}.get((decode, prefill), "prefill_only")


def _multiple(count: int, of: int) -> int:
    return -(-count // of) * of


def _mean(lines: Sequence[str], name: str) -> float | None:
    """A gauge's mean over the ranks that report it."""
    mine = [line for line in lines if line.startswith((name + "{", name + " "))]
    total = prometheus_totals("\n".join(mine)).get(name)
    return total / len(mine) if total is not None else None


def _sum(values: Iterator[JSON]) -> int | None:
    found = [value for value in values if type(value) is int]
    return sum(found) if found else None
