"""TensorRT-LLM: `trtllm-serve` on its PyTorch backend, and its `LLM` class in-process.

Sizes go on the command line, everything else into a file of LLM settings (JSON, which is YAML); no key is in both, because releases
differ in which of the two wins. Does not know what the server resolved: it reports its version, its model and, after the first iterations,
the sizes of its batch and of its KV cache.

Not yet run, because it needs a GPU: flags, settings, routes and request fields were read in public sources of 1.2 and later.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import enginebench.adapter as eb

MoEBackend = Literal["AUTO", "CUTLASS", "CUTEDSL", "TRTLLM", "DEEPGEMM", "VANILLA", "TRITON"]

SETTINGS = "llm.yaml"
READY_S = 3600.0
BATCH_TOKENS = 8192
"""TensorRT-LLM's own max_num_tokens."""

SIZES: Mapping[str, str] = {
    "tensor_parallel_size": "--tp_size", "pipeline_parallel_size": "--pp_size", "moe_expert_parallel_size": "--ep_size",
    "max_batch_size": "--max_batch_size", "max_num_tokens": "--max_num_tokens", "max_seq_len": "--max_seq_len",
}  # fmt: skip
"""Settings that are flags of `trtllm-serve`."""

SPECULATION: Mapping[eb.SpeculationMethod, str] = {"draft": "Draft_Target", "ngram": "NGram", "mtp": "MTP", "eagle3": "Eagle3"}
"""Method of `speculation` -> TensorRT-LLM's decoding_type (llm_args.py of 1.2)."""
FORCE_ACCEPTED = "TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS"
"""A whole number in 1.2, and 0 is off."""

COUNTERS: Mapping[str, str] = {
    "prompt_tokens": "trtllm_prompt_tokens_total", "cached_tokens": "trtllm_prompt_cached_tokens_total",
    "output_tokens": "trtllm_generation_tokens_total", "draft_tokens": "trtllm_spec_decode_num_draft_tokens_total",
    "accepted_tokens": "trtllm_spec_decode_num_accepted_tokens_total", "running": "trtllm_num_requests_running",
    "waiting": "trtllm_num_requests_waiting", "kv_use": "trtllm_kv_cache_utilization",
}  # fmt: skip
"""On /prometheus/metrics; a release may have only some of them."""


@dataclass(frozen=True)
class Eplb:
    """Balance the experts' load over the ranks (moe_config.load_balancer)."""

    slots: int
    """Places for experts over all ranks; more than there are experts means copies."""
    layer_updates_per_iter: int = 0
    """Layers that are rearranged in one iteration; 0: the placement stays as it is."""


@dataclass(frozen=True)
class TrtllmOptions(eb.BatchingOptions):
    """Engine options; None leaves TensorRT-LLM's default in place."""

    chunked_prefill: bool | None = None
    """Split long prompts over steps. Off by default: a prompt longer than batch_tokens (8192) is then refused."""
    kv_dtype: Literal["auto", "fp8", "nvfp4"] | None = None
    """Element type of the KV cache."""
    kv_fraction: float | None = None
    """Share for KV of the memory that is free once weights and buffers are there; 0.9 is its default."""
    kv_tokens: int | None = None
    """Most tokens that the KV cache holds."""
    kv_host_gib: float | None = None
    """Host memory for KV blocks that do not fit on the device."""
    block_size: int | None = None
    """Tokens per KV block."""
    max_batch_size: int | None = None
    """Most requests of one forward pass. None: as many as the loads have in flight."""
    overlap_schedule: bool | None = None
    """Schedule a step while the previous one runs."""
    graphs: Literal["off", "decode"] | None = None
    """CUDA graphs for batches that only decode."""
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
    speculative: Mapping[str, eb.JSON] | None = None
    """Speculative decoding, as speculative_config has it, e.g. {decoding_type: NGram, max_draft_len: 4}."""
    load_format: Literal["auto", "dummy"] = "auto"
    """How weights are read. dummy: random weights, and none are read."""
    config: Mapping[str, eb.JSON] = field(default_factory=dict)
    """Further LLM settings, as its YAML has them; they must not repeat what another option sets."""


def settings(deployment: eb.Deployment, options: TrtllmOptions, draft: str = "") -> dict[str, eb.JSON]:
    """Everything but the model, as arguments of `LLM`; None is left to TensorRT-LLM, except cuda_graph_config: off."""
    spread, eplb = deployment.parallelism, options.eplb
    kv: dict[str, eb.JSON] = {
        "enable_block_reuse": options.prefix_cache,
        "dtype": options.kv_dtype,
        "free_gpu_memory_fraction": options.kv_fraction,
        "max_tokens": options.kv_tokens,
        "host_cache_size": round(options.kv_host_gib * 2**30) if options.kv_host_gib is not None else None,
        "tokens_per_block": options.block_size,
    }
    balancer: dict[str, eb.JSON] = {"num_slots": eplb.slots, "layer_updates_per_iter": eplb.layer_updates_per_iter} if eplb else {}
    graphs = eb.given({"max_batch_size": options.graph_batch, "enable_padding": options.graph_padding})
    found: dict[str, eb.JSON] = {
        "tensor_parallel_size": spread.tp,
        "pipeline_parallel_size": spread.pp,
        "moe_expert_parallel_size": spread.ep,
        "moe_tensor_parallel_size": spread.tp // spread.ep if spread.ep > 1 else None,
        "enable_attention_dp": spread.attention_dp > 1 or None,
        "attention_dp_config": {"enable_balance": True} if options.attention_dp_balance else None,
        "max_batch_size": options.max_batch_size or deployment.max_concurrency,
        "max_num_tokens": options.batch_tokens,
        "max_seq_len": deployment.max_context,
        "dtype": eb.TORCH_DTYPES.get(deployment.precision),
        "load_format": options.load_format,
        "kv_cache_config": eb.given(kv),
        "enable_chunked_prefill": options.chunked_prefill,
        "disable_overlap_scheduler": None if options.overlap_schedule is None else not options.overlap_schedule,
        "stream_interval": options.stream_interval,
        "attn_backend": options.attention_backend,
        "moe_config": eb.given({"backend": options.moe_backend, "load_balancer": balancer or None}) or None,
        "cuda_graph_config": graphs or ({} if options.graphs == "decode" else None),
        "speculative_config": speculative_config(deployment.speculation, draft)
        or (dict(options.speculative) if options.speculative else None),
        "enable_iter_perf_stats": True,
        "return_perf_metrics": True,
        **options.config,
    }
    return eb.given(found) | ({"cuda_graph_config": None} if options.graphs == "off" else {})


class Trtllm(eb.Adapter):
    name = "trtllm"
    title = "TensorRT-LLM"
    requirements = ("tensorrt_llm==1.2.1",)
    checkpoint_format = "safetensors"
    precisions = frozenset(eb.TORCH_DTYPES) | {"fp8", "nvfp4", "mxfp4", "awq", "w4a8"}
    runtimes = ("process", "in-process")
    spans_nodes = True
    speculates = frozenset(SPECULATION)
    speculation_options = ("speculative",)
    forces_acceptance = frozenset(SPECULATION)
    options = TrtllmOptions
    scores = eb.scoring.prompt_logprobs()
    # readiness: the default. Its port is bound before the model is loaded, but refuses connections until the server listens.

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        dummy = eb.options_as(TrtllmOptions, deployment).load_format == "dummy"
        return eb.Traits(gpus=deployment.parallelism.devices, random_weights=dummy)

    def check(self, deployment: eb.Deployment) -> None:
        options, spread = eb.options_as(TrtllmOptions, deployment), deployment.parallelism
        tp, ep, ranks, slots = spread.tp, spread.ep, spread.attention_dp, options.eplb.slots if options.eplb else 0
        shaped = options.graph_batch is not None or options.graph_padding is not None
        eb.refuse(
            (spread.dp_replicas > 1, "one TensorRT-LLM server is one replica: dp_replicas would be several servers and a router"),
            (ranks not in (1, tp), f"TensorRT-LLM's attention_dp is a switch over all of tp: it is 1 or {tp}, not {ranks}"),
            (tp % ep, f"expert parallelism is inside tp: ep {ep} does not divide {tp}"),
            (options.attention_dp_balance and ranks == 1, "attention_dp_balance needs attention_dp"),
            (options.eplb and ep == 1, "eplb balances the ranks of expert parallelism: it needs ep"),
            (slots % ep, f"eplb's slots are divided among the ranks: ep {ep} does not divide {slots}"),
            (deployment.precision not in self.precisions, f"{self.title} has no precision '{deployment.precision}'"),
            (options.graphs == "off" and shaped, "graph_batch and graph_padding shape graphs that are off"),
            (
                deployment.speculation
                and deployment.speculation.acceptance is not None
                and (_accepted(deployment.speculation) % 1 or _accepted(deployment.speculation) < 1),
                "TensorRT-LLM forces a whole number of accepted tokens: write acceptance: 1",
            ),
            (
                options.speculative is not None and "decoding_type" not in options.speculative,
                "speculative needs its decoding_type, e.g. {decoding_type: NGram, max_draft_len: 4}",
            ),
        )
        repeated = sorted(settings(deployment, replace(options, config={})).keys() & options.config.keys())
        eb.refuse((repeated, f"config repeats what other options set: {', '.join(repeated)}"))

    def tunables(self, deployment: eb.Deployment, room: eb.Room) -> Sequence[eb.Tunable]:
        return (
            eb.Tunable("batch_tokens", (2048, 4096, 16384), default=BATCH_TOKENS),
            eb.Tunable("max_batch_size", tuple(n for n in (room.streams // 2, 2 * room.streams) if n), default=room.streams),
            eb.Tunable("chunked_prefill", (True,), default=False),
            eb.Tunable("kv_fraction", (0.8, 0.85, 0.95), default=0.9),
            eb.Tunable("block_size", (32, 64, 128)),
            eb.Tunable("overlap_schedule", (False,), default=True),
            eb.Tunable("graphs", ("off", "decode"), cost="compile"),
            eb.Tunable("graph_padding", (True,), default=False, cost="compile"),
            eb.Tunable("attention_backend", ("FLASHINFER", "VANILLA"), default="TRTLLM"),
            eb.Tunable("moe_backend", ("CUTLASS", "TRTLLM", "DEEPGEMM", "TRITON"), default="AUTO"),
            eb.Tunable("kv_dtype", ("fp8",), default="auto", exact=False),
            *room.degrees("tp", "ep", "attention_dp", "pp"),
            *((eb.Tunable("attention_dp_balance", (True,), default=False),) if room.devices > 1 else ()),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        if python is not None and (version := eb.installed_version(python, "tensorrt_llm")):
            return [eb.Install("trtllm-serve", version, python=python, binary=python.parent / "trtllm-serve")]
        if command := shutil.which("trtllm-serve"):  # as in its container
            beside = Path(command).parent / "python3"
            version = eb.installed_version(beside, "tensorrt_llm") or "unknown"
            return [eb.Install("trtllm-serve", version, python=beside, binary=Path(command))]
        return []

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        self.check(deployment)
        options = eb.options_as(TrtllmOptions, deployment)
        wanted, file, longest = settings(deployment, options, site.draft), str(site.folder / SETTINGS), options.batch_tokens or BATCH_TOKENS
        env = {"TRTLLM_NO_USAGE_STATS": "1", "TELEMETRY_DISABLED": "1", **({"HF_HUB_OFFLINE": "1"} if site.is_local else {})}
        env |= {FORCE_ACCEPTED: f"{_accepted(deployment.speculation):.0f}"} if _accepted(deployment.speculation) else {}
        env |= options.env
        # There is no flag for the served name: it is the last part of a folder's path, or the hub id.
        name = Path(site.checkpoint).name if site.is_local else site.checkpoint
        offline, refuses = deployment.runtime == "in-process", not options.chunked_prefill and deployment.max_context > longest
        notes = eb.holding(
            (True, "a request reserves KV for its whole output"),
            (not offline, "trtllm-serve tunes the batch size while it runs, up to max_batch_size"),
            (refuses, f"without chunked_prefill a prompt of more than {longest} tokens is refused"),
            (
                options.graphs != "off" and not options.graph_padding,
                "without graph_padding a batch of a size not captured runs without a CUDA graph",
            ),
        )
        if offline:
            worker = (str(install.python), str(eb.WORKERS / "trtllm_worker.py"), site.checkpoint, file)
            return eb.Launch(worker, name, env, {SETTINGS: json.dumps(wanted, indent=1)}, notes, READY_S)
        sizes = eb.flags_of({flag: wanted.get(key) for key, flag in SIZES.items()})
        rest = {key: value for key, value in wanted.items() if key not in SIZES}
        server = (str(install.binary), "serve", site.checkpoint, *site.address, *sizes)
        argv = (*server, "--extra_llm_api_options", file, *options.extra)
        if site.nodes:
            argv, env = _over_nodes(argv, env, deployment, install, site)
        return eb.Launch(argv, name, env, {SETTINGS: json.dumps(rest, indent=1)}, notes, READY_S)

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        # An unknown field is a 400.
        fields: dict[str, eb.JSON] = {"ignore_eos": True, "stream_options": dict(eb.CONTINUOUS_USAGE), **eb.NEUTRAL_SAMPLING}
        # A prompt of token ids gets no special token, so a text prompt gets none either; a chat template brings its own.
        return fields if load.templated else fields | {"add_special_tokens": False}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        version, models = (eb.Fields(get(path).json()) for path in ("/version", "/v1/models"))
        last = _last_iteration(get)
        blocks, size = last.whole("kvCacheStats.maxNumBlocks"), last.whole("kvCacheStats.tokensPerBlock")
        return eb.Resolved(
            version=version.text("version"),
            model=models.text("data.0.id"),
            slots=last.whole("maxBatchSizeStatic"),
            batch_tokens=last.whole("maxNumTokensStatic"),
            kv_tokens=blocks * size if blocks is not None and size is not None else None,
            options={"block_size": size} if size is not None else {},
            raw={"/version": version.value, "/v1/models": models.value, "/metrics": last.value},
        )

    def counters(self, get: eb.Get) -> Mapping[str, float]:
        """Reading /metrics empties it, so it has no totals; its last record has the gauges where nothing else does."""
        found = eb.renamed(eb.prometheus_totals(get("/prometheus/metrics/").text), COUNTERS)  # without the slash it redirects
        if "running" in found:
            return found
        last = _last_iteration(get)
        now = {"running": last.whole("numActiveRequests"), "waiting": last.whole("numQueuedRequests")}
        used, blocks = last.whole("kvCacheStats.usedNumBlocks"), last.whole("kvCacheStats.maxNumBlocks")
        found |= {name: float(value) for name, value in now.items() if value is not None}
        return found | ({"kv_use": used / blocks} if used is not None and blocks else {})

    def scoring(self, deployment: eb.Deployment) -> eb.Scoring:
        if deployment.runtime != "in-process":
            raise eb.Unsupported("trtllm-serve returns no log-probabilities of a prompt that are documented; runtime: in-process does")
        return super().scoring(deployment)


def _over_nodes(
    argv: tuple[str, ...], env: Mapping[str, str], deployment: eb.Deployment, install: eb.Install, site: eb.Site
) -> tuple[tuple[str, ...], dict[str, str]]:
    """One MPI rank for each device: the first runs the server, the others work for it (llmapi/trtllm-llmapi-launch of 1.2).

    mpirun starts its daemons on the other nodes through the site's command, in place of ssh; OpenMPI 4 and 5 have different names for it.
    """
    devices = deployment.parallelism.devices
    hosts = ",".join(f"{node.address}:{devices // len(site.nodes)}" for node in site.nodes)
    launcher = "trtllm-llmapi-launch" if install.binary is None else str(install.binary.with_name("trtllm-llmapi-launch"))
    shared = [word for name in env for word in ("-x", name)]
    mpirun = ("mpirun", "--allow-run-as-root", "-np", str(devices), "--host", hosts, "--bind-to", "none", *shared)
    through = " ".join(site.on_node)
    return (*mpirun, launcher, *argv), {**env, "OMPI_MCA_plm_rsh_agent": through, "PRTE_MCA_plm_ssh_agent": through}


def speculative_config(asked: eb.Speculation | None, draft: str) -> dict[str, eb.JSON] | None:
    if asked is None:
        return None
    length = "num_nextn_predict_layers" if asked.method == "mtp" else "max_draft_len"
    config: dict[str, eb.JSON] = {"decoding_type": SPECULATION[asked.method], length: asked.tokens, "max_matching_ngram_size": asked.match}
    return eb.given(config | {"speculative_model": draft or None})


def _accepted(asked: eb.Speculation | None) -> float:
    """Proposed tokens of a step that are accepted by force; 0: none are."""
    return asked.forced_length - 1 if asked is not None and asked.forced_length is not None else 0.0


def _last_iteration(get: eb.Get) -> eb.Fields:
    """The latest of the iteration records of /metrics; empty where there was none since it was last read."""
    records = eb.as_list(get("/metrics").json())
    return eb.Fields(records[-1] if records else None)
