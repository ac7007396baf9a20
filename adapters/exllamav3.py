"""ExLlamaV3: its Generator behind our own thin server, as an in-process batch, or inside TabbyAPI.

ExLlamaV3 is a library without a server. Our worker puts one around it that takes token ids, forces the length and tells the
configuration in force; TabbyAPI (`server: tabbyapi`) is what its users run, takes text only and pins a library version of its own.
The precision is the checkpoint's: a folder quantised to so many bits per weight (`exl3_3.5bpw`), rounded to quarters here; the engine's
own figure is compared with it. Knows nothing of what fits: without `gpu_split` the loader fills one GPU before it uses the next.

`pp` is ExLlamaV3's layer split (one GPU after another, one batch under way), `tp` its tensor-parallel mode. Under it the experts
of a layer are divided whole (`ep` = `tp`) or each is cut into slices (`ep` = 1, the neutral default, which is not the engine's).
Replicas, attention data parallelism, experts over a part of the ranks and random weights do not exist.

KV pages of equal prefixes are always shared. A batch starts with an empty cache; a server's prompts must differ in their first page.

Not yet run on a GPU, and so not at all. The package 1.6.5 was imported with a stand-in for its CUDA extension (flags and signatures
hold), our server was run over a stand-in for the Generator, TabbyAPI's configuration classes and request handling were read. The first
import compiles the extension (nvcc, minutes) unless a built wheel is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
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
    Parallelism,
    Resolved,
    Site,
    Unsupported,
    flags_of,
    installed_version,
    only,
    options_as,
    prometheus_totals,
)

Bits = Literal[2, 3, 4, 5, 6, 7, 8]
QUARTERS = range(4, 33)
"""Bits per weight of EXL3 in quarters: 1 to 8."""
PAGE_TOKENS = 256
DRAFT_ROOM = 31
"""Tokens past its answer that a request may claim, beside the one that ExLlamaV3 always adds: a drafter's window."""
LOADING_S = 1800.0
"""Compiling the CUDA extension at the first start takes minutes."""


@dataclass(frozen=True)
class ExLlamaV3Options:
    """Engine options; None leaves ExLlamaV3's own default."""

    server: Literal["generator", "tabbyapi"] = "generator"
    """What serves: our own loopback server around the Generator, or TabbyAPI."""
    tabbyapi_folder: str | None = None
    """The checkout of TabbyAPI, whose dependencies must be in ExLlamaV3's environment."""
    gpu_split: tuple[float, ...] | None = None
    """GB that each GPU may take (-gs); None: one is filled before the next is used, or divided by free memory under tensor parallelism."""
    tp_backend: Literal["native", "nccl"] = "native"
    """How tensor-parallel ranks talk (-tpb)."""
    k_bits: Bits | None = None
    """Bits of an element of the K cache (-cq); None: f16."""
    v_bits: Bits | None = None
    """Bits of an element of the V cache; None: as k_bits."""
    cache_tokens: int | None = None
    """Tokens of the whole KV cache (-cs), a multiple of 256. None: what max_concurrency requests of max_context tokens can claim."""
    chunk_size: int = 2048
    """Tokens of a prompt in one forward pass (-chunk_size), a multiple of 256."""
    moe_cpu_layers: int | None = None
    """Compute the routed experts of the first N layers on the CPU (-mcl). Needs a layer split and the mul1 codebook."""
    moe_cpu_experts: int | None = None
    """Compute N routed experts of every layer on the CPU, the rest on the GPU at the same time (-mcs). As above; one of the two."""
    moe_cpu_threads: int | None = None
    """CPU threads for either (-mct)."""
    moe_cpu_pinned: bool = False
    """Keep those experts in page-locked memory, from where prefill streams them and often-used ones move to the GPU (-mcpa)."""
    mtp: bool = False
    """Draft with the model's own multi-token prediction head (-mtp)."""
    ngram_match: int | None = None
    """Draft from earlier text where at least N tokens match (-ngram)."""
    draft_tokens: int | None = None
    """Tokens drafted per step (-ndt)."""
    warmup: bool = True
    """Compile and tune kernels after loading, not at the first requests (off: -nw)."""
    extra: tuple[str, ...] = ()
    """Further flags of ExLlamaV3's model_init, passed through as they are (e.g. ["-ccs", "16"])."""


class ExLlamaV3(Adapter):
    name = "exllamav3"
    title = "ExLlamaV3"
    requirements = ("exllamav3==1.6.5", "torch==2.13.0", "transformers==5.23.0")
    checkpoint_format = "safetensors"
    precisions = frozenset({"f16", "bf16", *(f"exl3_{quarters / 4:g}bpw" for quarters in QUARTERS)})
    runtimes = ("process", "in-process")
    apis = ("completions", "chat")
    options = ExLlamaV3Options

    def find(self, python: Path | None) -> Sequence[Install]:
        version = installed_version(python, "exllamav3") if python is not None else None
        return [Install("exllamav3", version, python=python)] if version else []

    def takes_ids(self, deployment: Deployment) -> bool:
        return options_as(ExLlamaV3Options, deployment).server == "generator"

    def check(self, deployment: Deployment) -> None:
        options = options_as(ExLlamaV3Options, deployment)
        _check_spread(deployment.parallelism, options)
        _check_sizes(deployment, options)
        if options.moe_cpu_layers is not None and options.moe_cpu_experts is not None:
            raise Unsupported("moe_cpu_layers and moe_cpu_experts are two ways to do the same: ExLlamaV3 takes one of them")
        if options.v_bits is not None and options.k_bits is None:
            raise Unsupported("v_bits without k_bits: ExLlamaV3 quantises both caches or neither")
        if options.mtp and options.ngram_match is not None:
            raise Unsupported("mtp and ngram_match: ExLlamaV3 drafts in one way at a time")
        if options.server == "tabbyapi":
            _check_tabbyapi(deployment, options)
        elif options.tabbyapi_folder is not None:
            raise Unsupported("tabbyapi_folder says where TabbyAPI is, and server is not tabbyapi")

    def check_loads(self, deployment: Deployment, loads: Sequence[Load]) -> None:
        super().check_loads(deployment, loads)
        if options_as(ExLlamaV3Options, deployment).server == "generator":
            return
        if any(load.output_length is None for load in loads):
            raise Unsupported(
                "TabbyAPI forces a length with min_tokens, which all requests of a load share: write a number for output_tokens"
            )

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        if not PurePath(site.checkpoint).is_absolute():
            raise Unsupported(f"ExLlamaV3 loads a folder, and '{site.checkpoint}' is a hub id: download it and write the folder's path")
        options = options_as(ExLlamaV3Options, deployment)
        gpus = ("--gpus", str(self.gpus(deployment)))
        worker = (str(install.python), str(WORKERS / "exllamav3_worker.py"))
        notes = _notes(deployment, options)
        if options.server == "tabbyapi":
            config = site.folder / "config.yml"
            argv = (*worker, "tabbyapi", *gpus, str(PurePath(options.tabbyapi_folder or "") / "main.py"), "--config", str(config))
            files = {"config.yml": json.dumps(tabbyapi_config(deployment, options, site), indent=1) + "\n"}  # JSON is YAML
            return Launch(argv, PurePath(site.checkpoint).name, files=files, notes=notes, ready_timeout_s=LOADING_S)
        batch = (*gpus, "--slots", str(deployment.max_concurrency))
        flags = generator_flags(deployment, options, site.checkpoint)
        if deployment.runtime == "in-process":
            return Launch((*worker, "offline", *batch, *flags), deployment.model, notes=notes, ready_timeout_s=LOADING_S)
        address = ("--host", site.host, "--port", str(site.port), "--served-name", deployment.model)
        return Launch((*worker, "serve", *batch, *address, *flags), deployment.model, notes=notes, ready_timeout_s=LOADING_S)

    def resolved(self, get: Get) -> Resolved:
        ours = get("/enginebench").json()
        if isinstance(ours, dict):
            return _resolved_generator(ours)
        card = get("/v1/model").json()
        return _resolved_tabbyapi(card) if isinstance(card, dict) else Resolved()

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        fields: dict[str, JSON] = {"stream_options": {"include_usage": True}, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
        if self.takes_ids(deployment):
            return fields | {"ignore_eos": True}
        # TabbyAPI reads ignore_eos and drops it. It ends an answer that repeats itself, as long greedy ones do, unless told not to.
        return fields | {"min_tokens": load.output_tokens, "loop_detect_window": 0}

    def counters(self, get: Get) -> Mapping[str, float]:
        totals = prometheus_totals(get("/metrics").body.decode(errors="replace"))
        return {_neutral(name): value for name, value in totals.items() if name.startswith("exllamav3_")}


def generator_flags(deployment: Deployment, options: ExLlamaV3Options, checkpoint: str) -> list[str]:
    """The flags of ExLlamaV3's `model_init`."""
    flags = ["-m", checkpoint, "-cs", str(cache_tokens(deployment, options)), "-chunk_size", str(options.chunk_size)]
    # The automatic split and the states of recurrent layers are sized for one request unless told.
    flags += ["-ambs", str(deployment.max_concurrency)]
    spread = deployment.parallelism
    if spread.tp > 1:
        flags += ["-tp", "-tpb", options.tp_backend] + (["-tp_moe_ts"] if spread.ep == 1 else [])
    valued: Mapping[str, int | str | None] = {
        "-gs": ",".join(f"{gb:g}" for gb in options.gpu_split) if options.gpu_split else None,
        "-cq": kv_bits(options),
        "-mcl": options.moe_cpu_layers,
        "-mcs": options.moe_cpu_experts,
        "-mct": options.moe_cpu_threads,
        "-ngram": options.ngram_match,
        "-ndt": options.draft_tokens,
    }
    flags += flags_of(valued)
    switches = {"-mcpa": options.moe_cpu_pinned, "-mtp": options.mtp, "-nw": not options.warmup}
    return [*flags, *(flag for flag, on in switches.items() if on), *options.extra]


def tabbyapi_config(deployment: Deployment, options: ExLlamaV3Options, site: Site) -> dict[str, JSON]:
    """TabbyAPI's config.yml. Everything that its sample file sets differently from neutral is set here: above all no sampling preset."""
    tokens = cache_tokens(deployment, options)
    model: dict[str, JSON] = {
        "model_dir": str(PurePath(site.checkpoint).parent),
        "model_name": PurePath(site.checkpoint).name,
        "backend": "exllamav3",
        "max_seq_len": min(tokens, request_tokens(deployment)),
        "cache_size": tokens,
        "cache_mode": kv_bits(options) or "FP16",
        "max_batch_size": deployment.max_concurrency,
        "chunk_size": options.chunk_size,
        # In chunks, a long answer leaves the batch and comes back, and finds its own pages as cached ones.
        "output_chunking": False,
        "tensor_parallel": deployment.parallelism.tp > 1,
        "tensor_parallel_backend": options.tp_backend,
        "gpu_split_auto": options.gpu_split is None,
        "gpu_split": list(options.gpu_split or ()),
        "cpu_moe_offload_layers": options.moe_cpu_layers or 0,
    }
    mode = "mtp" if options.mtp else "ngram" if options.ngram_match is not None else "disabled"
    draft: dict[str, JSON] = {"draft_mode": mode}
    draft |= {"ngram_match_min": options.ngram_match} if options.ngram_match is not None else {}
    draft |= {"draft_num_tokens": options.draft_tokens} if options.draft_tokens is not None else {}
    return {
        "network": {"host": site.host, "port": site.port, "disable_auth": True, "sse_ping_interval": 0, "api_servers": ["OAI"]},
        "model": model,
        "draft_model": draft,
    }


def kv_bits(options: ExLlamaV3Options) -> str | None:
    """'8,6' for K and V; None: f16."""
    return None if options.k_bits is None else f"{options.k_bits},{options.v_bits or options.k_bits}"


def request_tokens(deployment: Deployment) -> int:
    """Tokens of KV that a request of max_context tokens claims when it starts: whole pages."""
    return -(-(deployment.max_context + 1 + DRAFT_ROOM) // PAGE_TOKENS) * PAGE_TOKENS


def cache_tokens(deployment: Deployment, options: ExLlamaV3Options) -> int:
    """Tokens of the whole KV cache."""
    return options.cache_tokens or deployment.max_concurrency * request_tokens(deployment)


def _check_spread(spread: Parallelism, options: ExLlamaV3Options) -> None:
    if spread.dp_replicas > 1 or spread.attention_dp > 1:
        raise Unsupported("ExLlamaV3 has no replicas and no attention data parallelism")
    if spread.tp > 1 and spread.pp > 1:
        raise Unsupported("ExLlamaV3 splits a model by layers (pp) or within them (tp), not both")
    if spread.ep not in (1, spread.tp):
        raise Unsupported(
            f"ExLlamaV3 divides the experts over all tensor-parallel ranks (ep = tp) or cuts each into slices (ep = 1): "
            f"not ep = {spread.ep} with tp = {spread.tp}"
        )
    gpus = spread.tp * spread.pp
    if options.gpu_split is not None and len(options.gpu_split) != gpus:
        raise Unsupported(f"gpu_split names {len(options.gpu_split)} GPUs, tp and pp ask for {gpus}")
    if spread.tp > 1 and (options.moe_cpu_layers or options.moe_cpu_experts):
        raise Unsupported("ExLlamaV3 computes experts on the CPU only without tensor parallelism")


def _check_sizes(deployment: Deployment, options: ExLlamaV3Options) -> None:
    for name, tokens in (("cache_tokens", options.cache_tokens), ("chunk_size", options.chunk_size)):
        if tokens is not None and (tokens < PAGE_TOKENS or tokens % PAGE_TOKENS):
            raise Unsupported(f"{name}: ExLlamaV3 counts in pages of {PAGE_TOKENS} tokens, {tokens} is no multiple")
    if options.cache_tokens is not None and options.cache_tokens < request_tokens(deployment):
        raise Unsupported(f"cache_tokens: one request of {deployment.max_context} tokens claims {request_tokens(deployment)}")


def _check_tabbyapi(deployment: Deployment, options: ExLlamaV3Options) -> None:
    if deployment.runtime == "in-process":
        raise Unsupported("TabbyAPI is a server; without server: tabbyapi the Generator runs in-process")
    if options.tabbyapi_folder is None:
        raise Unsupported("tabbyapi_folder: where is the checkout of TabbyAPI?")
    names = ("moe_cpu_experts", "moe_cpu_threads", "moe_cpu_pinned", "extra")
    refused = [name for name in names if getattr(options, name)]
    if refused:
        raise Unsupported(f"TabbyAPI's configuration has no key for {', '.join(refused)}")
    if deployment.parallelism.ep != deployment.parallelism.tp:
        raise Unsupported("TabbyAPI has no key that cuts experts into slices: under tensor parallelism it divides them whole (ep = tp)")


def _notes(deployment: Deployment, options: ExLlamaV3Options) -> tuple[str, ...]:
    notes: list[str] = []
    if deployment.runtime == "process":
        notes.append("pages of 256 equal leading tokens are always shared: cold only because prompts differ, as cached_tokens must show")
    if deployment.precision == "bf16":
        notes.append("ExLlamaV3 converts bf16 weights to f16 as it loads them")
    if deployment.parallelism.pp > 1:
        notes.append("pp is a layer split: the GPUs work one after another on the same batch")
    if options.server == "tabbyapi":
        notes.append("TabbyAPI ignores seeds, does not warm up, and its checkout may pin another ExLlamaV3 than was found")
    return tuple(notes)


def _resolved_generator(told: Mapping[str, JSON]) -> Resolved:
    """Our worker's /enginebench."""
    bits, dtype, kv = told.get("bits"), told.get("dtype"), told.get("cache_bits")
    precision = {"float16": "f16", "bfloat16": "bf16"}.get(dtype, dtype) if isinstance(dtype, str) else None
    cache, trained = only(int, told.get("cache_tokens")), only(int, told.get("max_position_embeddings"))
    options = {name: told.get(name) or None for name in ("moe_cpu_layers", "moe_cpu_experts", "chunk_size")}
    return Resolved(
        version=only(str, told.get("version")),
        model=only(str, told.get("model")),
        precision=f"exl3_{bits:g}bpw" if isinstance(bits, int | float) else precision,
        context=min((limit for limit in (cache, trained) if limit is not None), default=None),
        slots=only(int, told.get("slots")),
        prefix_cache=True if told.get("prefix_cache") is True else None,
        kv_dtype=f"q{kv}" if isinstance(kv, str) else "f16" if cache is not None else None,
        kv_tokens=cache,
        chunked_prefill=True if "chunk_size" in told else None,
        batch_tokens=only(int, told.get("chunk_size")),
        options={name: value for name, value in options.items() if value is not None},
        raw={"/enginebench": dict(told)},
    )


def _resolved_tabbyapi(card: Mapping[str, JSON]) -> Resolved:
    """TabbyAPI's /v1/model, which tells neither versions nor the precision."""
    found = card.get("parameters")
    told = found if isinstance(found, dict) else {}
    mode = only(str, told.get("cache_mode"))
    return Resolved(
        model=only(str, card.get("id")),
        context=only(int, told.get("max_seq_len")),
        slots=only(int, told.get("max_batch_size")),
        prefix_cache=True if told else None,
        kv_dtype="f16" if mode == "FP16" else f"q{mode}" if mode else None,
        kv_tokens=only(int, told.get("cache_size")),
        chunked_prefill=True if "chunk_size" in told else None,
        batch_tokens=only(int, told.get("chunk_size")),
        raw={"/v1/model": dict(card)},
    )


def _neutral(name: str) -> str:
    """'exllamav3_prompt_tokens_total' -> 'prompt_tokens'."""
    return name.removeprefix("exllamav3_").removesuffix("_total")
