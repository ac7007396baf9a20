"""SGLang's options: what a scenario may write, and the flags that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Literal

import enginebench.adapter as eb

# fmt: off
QUANTIZED: Mapping[str, str] = {
    "fp8": "fp8", "modelopt_fp8": "fp8", "w8a8_fp8": "fp8", "mxfp8": "mxfp8", "mxfp4": "mxfp4", "quark_mxfp4": "mxfp4",
    "modelopt_fp4": "nvfp4", "nvfp4_online": "nvfp4", "awq": "awq", "awq_marlin": "awq", "gptq": "gptq", "gptq_marlin": "gptq",
    "w8a8_int8": "int8", "w4afp8": "w4afp8",
}
"""SGLang's quantization -> the precision. Those that are missing (compressed-tensors, moe_wna16, ...) hold several precisions."""

Quantization = Literal[
    "fp8", "modelopt_fp8", "w8a8_fp8", "mxfp8", "mxfp4", "quark_mxfp4", "modelopt_fp4", "nvfp4_online", "awq", "awq_marlin", "gptq",
    "gptq_marlin", "w8a8_int8", "w4afp8", "moe_wna16", "compressed-tensors", "modelopt", "modelopt_mixed", "auto-round", "quark",
    "bitsandbytes",
]
MoEBackend = Literal[
    "auto", "triton", "triton_kernel", "deep_gemm", "cutlass", "flashinfer_trtllm", "flashinfer_trtllm_routed", "flashinfer_cutlass",
    "flashinfer_cutedsl", "flashinfer_mxfp4", "flashinfer_megamoe", "marlin", "humming", "aiter",
]
A2ABackend = Literal["deepep", "deepep_v2", "mooncake", "nixl", "mori", "pplx", "flashinfer", "megamoe", "flashinfer_megamoe"]
KVType = Literal["auto", "bf16", "fp8_e4m3", "fp8_e5m2", "mxfp8", "nvfp4", "fp4_mx_block16"]
LoadFormat = Literal["auto", "safetensors", "dummy", "fastsafetensors", "runai_streamer"]
Policy = Literal["fcfs", "lpm", "lof", "random", "dfs-weight"]
Algorithm = Literal["EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM", "DFLASH", "DSPARK"]
FIRST_FLAGS = (
    "--dtype", "--quantization", "--load-format", "--context-length", "--max-running-requests", "--stream-interval", "--tp-size",
    "--pp-size", "--dp-size", "--attn-dp-size", "--ep-size", "--kv-cache-dtype", "--mem-fraction-static", "--max-total-tokens",
    "--page-size", "--chunked-prefill-size",
)
"""The order in which the command line begins; the other options follow in the order of their fields."""
# fmt: on
RESERVED_TOKENS = 6
"""Tokens of its context that SGLang withholds from the prompt, and two of them from the output, which it cuts without a message."""
SPECULATION: Mapping[eb.SpeculationMethod, Algorithm]
SPECULATION = {"draft": "STANDALONE", "ngram": "NGRAM", "mtp": "NEXTN", "eagle": "EAGLE", "eagle3": "EAGLE3"}
GRAPHS = {"off": ("disabled", "disabled"), "decode_only": ("full", "disabled"), "decode_and_prefill": ("full", "breakable")}
"""Option `graphs` -> backends of the graphs for decode and for prefill."""


@dataclass(frozen=True)
class Eplb:
    """Balance the experts' load over the ranks while serving."""

    algorithm: str = eb.option("--eplb-algorithm", "auto")
    rebalance_iterations: int = eb.option("--eplb-rebalance-num-iterations", 1000)
    redundant_experts: int = eb.option("--ep-num-redundant-experts", 0)
    dispatch: Literal["static", "dynamic", "fake"] | None = eb.option("--ep-dispatch-algorithm")
    """How a copy of an expert is chosen; static needs an a2a_backend."""


@dataclass(frozen=True)
class Speculative:
    """Speculative decoding. SGLang needs steps, topk and draft_tokens together or none of them."""

    algorithm: Algorithm = eb.option("--speculative-algorithm", MISSING)
    draft_model: str | None = eb.option("--speculative-draft-model-path")
    steps: int | None = eb.option("--speculative-num-steps")
    topk: int | None = eb.option("--speculative-eagle-topk")
    draft_tokens: int | None = eb.option("--speculative-num-draft-tokens")


@dataclass(frozen=True)
class Disaggregated(eb.PrefillDecode):
    """Prefill and decode servers, which need the backend's package in addition to SGLang."""

    backend: Literal["nixl", "mooncake", "mooncake_tcp", "mori"] = eb.option("--disaggregation-transfer-backend", "nixl")
    """What transfers the KV cache."""
    ib_device: str | None = eb.option("--disaggregation-ib-device")
    """InfiniBand devices, e.g. mlx5_0,mlx5_1."""


@dataclass(frozen=True)
class SglangOptions(eb.BatchingOptions):
    """Engine options; None leaves SGLang's default in place. `reported` is a field of /server_info."""

    batch_tokens: int | None = None
    """Most prompt tokens of one forward pass, over all ranks of attention_dp (--chunked-prefill-size)."""
    protocol: Literal["openai", "sglang"] = "openai"
    """How requests are sent: OpenAI's routes, or SGLang's own /generate."""
    quantization: Quantization | None = eb.option("--quantization", reported="quantization")
    """A quantization that the checkpoint does not name itself, or one made while loading (fp8, mxfp8, nvfp4_online)."""
    load_format: LoadFormat = eb.option("--load-format", "auto", reported="load_format")
    """How weights are read. dummy: random weights, and none are read."""
    max_running_requests: int | None = eb.option("--max-running-requests", reported="max_running_requests")
    """Most requests in the batch of each replica. None: as many as the loads have in flight."""
    kv_dtype: KVType | None = eb.option("--kv-cache-dtype")
    """Element type of the KV cache."""
    mem_fraction: float | None = eb.option("--mem-fraction-static", reported="mem_fraction_static")
    """Share of a device's memory for weights and KV together. SGLang's default depends on chunk size and graphs."""
    kv_tokens: int | None = eb.option("--max-total-tokens")
    """Tokens in the KV cache of one rank of attention_dp, or of one replica."""
    page_size: int | None = eb.option("--page-size", reported="page_size")
    """Tokens per KV page."""
    schedule_policy: Policy | None = eb.option("--schedule-policy", reported="schedule_policy")
    """Which waiting request is next."""
    graph_batch: int | None = eb.option("--cuda-graph-max-bs-decode")
    """Requests of the largest decode graph."""
    attention_backend: str | None = eb.option("--attention-backend", reported="attention_backend")
    """Attention kernels, e.g. fa3, flashinfer, triton, trtllm_mha."""
    moe_backend: MoEBackend | None = eb.option("--moe-runner-backend", reported="moe_runner_backend")
    """Kernels of the routed experts."""
    a2a_backend: A2ABackend | None = eb.option("--moe-a2a-backend", reported="moe_a2a_backend")
    """How tokens reach the ranks of their experts, with ep = tp. None: every rank computes on all tokens, and sums are reduced."""
    deepep_mode: Literal["auto", "normal", "low_latency"] | None = eb.option("--deepep-mode", reported="deepep_mode")
    """Kernels of DeepEP."""
    cpu_offload_gb: int | None = eb.option("--cpu-offload-gb", reported="cpu_offload_gb")
    """GiB of weights kept in host memory."""
    paged_experts: int | None = eb.option("--paged-experts-num-resident", reported="paged_experts_num_resident")
    """Routed experts of a layer that stay on the device; the others are fetched from host memory when needed. One device."""
    graphs: Literal["off", "decode_only", "decode_and_prefill"] | None = None
    """Which CUDA graphs are captured."""
    eplb: Eplb | None = None
    """Balance the experts' load over the ranks, with ep: {} or e.g. {redundant_experts: 16, rebalance_iterations: 1000}."""
    speculative: Speculative | None = None
    """Speculative decoding, e.g. {algorithm: EAGLE3, draft_model: /models/draft, steps: 3, topk: 1, draft_tokens: 4}."""
    overlap_schedule: bool | None = None
    """Schedule a step while the previous one runs."""
    mixed_chunk: bool = eb.option(default=False, reported="enable_mixed_chunk")
    """Prefill chunks and decodes in one forward pass."""
    two_batch_overlap: bool = eb.option(default=False, reported="enable_two_batch_overlap")
    """Compute on one half of a batch while the other half's tokens travel."""
    routing: Literal["uniform", "round_robin"] | None = None
    """Spread tokens over the experts by this rule instead of by the router: for dummy weights. The output is meaningless."""
    disaggregated: Disaggregated | None = None
    """Prefill and decode on different servers, e.g. {prefill: 1, decode: 1, backend: nixl}."""


def engine_flags(deployment: eb.Deployment, options: SglangOptions, draft: str = "") -> list[str]:
    """The flags of SGLang's engine except for the model, the same for the server and in-process. draft: path of what proposes tokens."""
    spread = deployment.parallelism
    decode_graphs, prefill_graphs = GRAPHS[options.graphs] if options.graphs else (None, None)
    derived: dict[str, eb.JSON] = {
        "--dtype": eb.TORCH_DTYPES.get(deployment.precision, "auto"),
        "--context-length": deployment.max_context + RESERVED_TOKENS,
        "--max-running-requests": options.max_running_requests or batch_slots(deployment),
        "--tp-size": spread.tp,
        **eb.spread_flags(spread, pp="--pp-size", dp_replicas="--dp-size", attention_dp="--attn-dp-size", ep="--ep-size"),
        "--chunked-prefill-size": -1 if options.chunked_prefill is False else options.batch_tokens,
        "--random-seed": 0,
        "--cuda-graph-backend-decode": decode_graphs,
        "--cuda-graph-backend-prefill": prefill_graphs,
        **eb.declared_flags(options.eplb),
        **eb.declared_flags(options.speculative or speculative_of(deployment.speculation, draft)),
        "--speculative-ngram-max-bfs-breadth": 1
        if deployment.speculation and deployment.speculation.method == "ngram"
        else None,  # no tree
        "--disable-radix-cache": not options.prefix_cache,
        "--disable-overlap-schedule": options.overlap_schedule is False,
        "--enable-mixed-chunk": options.mixed_chunk,
        "--enable-eplb": options.eplb is not None,
        "--enable-two-batch-overlap": options.two_batch_overlap,
        "--enable-paged-experts": options.paged_experts is not None,
    }
    return eb.flags_of({**dict.fromkeys(FIRST_FLAGS), **eb.declared_flags(options), **derived})


def speculative_of(asked: eb.Speculation | None, draft: str) -> Speculative | None:
    """The neutral key in SGLang's words: one chain of tokens. A verified step holds one token more than were proposed."""
    if asked is None:
        return None
    steps, topk = (asked.tokens, 1) if asked.method != "ngram" else (None, None)
    return Speculative(SPECULATION[asked.method], draft or None, steps=steps, topk=topk, draft_tokens=asked.tokens + 1)


def batch_slots(deployment: eb.Deployment) -> int:
    """Requests in the batch: as many as the loads have in flight, rounded up to a multiple of attention_dp."""
    ranks = deployment.parallelism.attention_dp
    return -(-deployment.max_concurrency // ranks) * ranks
