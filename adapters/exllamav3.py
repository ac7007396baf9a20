"""ExLlamaV3: its Generator behind our own thin server, as an in-process batch, or inside TabbyAPI.

Our server takes token ids, forces the length and reports the configuration in force; TabbyAPI (`server: tabbyapi`) is the usual one,
takes text only and pins a library version of its own. The precision is the checkpoint's: a folder quantized to so many bits per weight
(`exl3_3.5bpw`), rounded to quarters here. `pp` is ExLlamaV3's layer split (one GPU after another, one batch under way), `tp` its
tensor-parallel mode, under which the experts of a layer are divided whole (`ep` = `tp`) or each is cut into slices (`ep` = 1).

Not yet run, because it needs a GPU. The package 1.6.5 was imported with a stand-in for its CUDA extension (flags and signatures hold), our
server was run over a stand-in for the Generator, TabbyAPI's configuration classes and request handling were read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Literal

import enginebench.adapter as eb

Bits = Literal[2, 3, 4, 5, 6, 7, 8]
QUARTERS = range(4, 33)
"""Bits per weight of EXL3 in quarters: 1 to 8."""
PAGE_TOKENS = 256
DRAFT_ROOM = 31
"""Tokens past its output that a request may claim, besides the one that ExLlamaV3 always adds: a drafter's window."""
LOADING_S = 1800.0
"""Compiling the CUDA extension at the first start takes minutes."""
COUNTERS = {name: f"exllamav3_{name}" for name in eb.GAUGES} | {name: f"exllamav3_{name}_total" for name in eb.TOTALS}


@dataclass(frozen=True)
class ExLlamaV3Options:
    """Engine options; None leaves ExLlamaV3's default in place."""

    server: Literal["generator", "tabbyapi"] = "generator"
    """What serves: our own loopback server around the Generator, or TabbyAPI."""
    tabbyapi_folder: str | None = None
    """The checkout of TabbyAPI, whose dependencies must be in ExLlamaV3's environment."""
    gpu_split: tuple[float, ...] | None = eb.option("-gs")
    """GB that each GPU may take; None: one is filled before the next is used, or divided by free memory under tensor parallelism."""
    tp_backend: Literal["native", "nccl"] = "native"
    """How tensor-parallel ranks communicate (-tpb)."""
    k_bits: Bits | None = eb.option("-cq")
    """Bits of an element of the K cache; None: f16."""
    v_bits: Bits | None = None
    """Bits of an element of the V cache; None: as k_bits."""
    cache_tokens: int | None = None
    """Tokens of the whole KV cache (-cs), a multiple of 256. None: what max_concurrency requests of max_context tokens can claim."""
    chunk_size: int = 2048
    """Tokens of a prompt in one forward pass (-chunk_size), a multiple of 256."""
    moe_cpu_layers: int | None = eb.option("-mcl")
    """Compute the routed experts of the first N layers on the CPU. Needs a layer split and the mul1 codebook."""
    moe_cpu_experts: int | None = eb.option("-mcs")
    """Compute N routed experts of every layer on the CPU, the rest on the GPU at the same time. As above; one of the two."""
    moe_cpu_threads: int | None = eb.option("-mct")
    """CPU threads for either."""
    moe_cpu_pinned: bool = False
    """Keep those experts in page-locked memory, from where prefill streams them and often-used ones move to the GPU (-mcpa)."""
    ngram_match: int | None = eb.option("-ngram")
    """Draft from earlier text where at least N tokens match."""
    draft_tokens: int | None = eb.option("-ndt")
    """Tokens drafted per step."""
    mtp: bool = False
    """Draft with the model's own multi-token prediction head (-mtp)."""
    warmup: bool = True
    """Compile and tune kernels after loading, not at the first requests (off: -nw)."""
    extra: tuple[str, ...] = ()
    """Further flags of ExLlamaV3's model_init, passed through unchanged (e.g. ["-ccs", "16"])."""

    @property
    def kv_bits(self) -> str | None:
        """'8,6' for K and V; None: f16."""
        return None if self.k_bits is None else f"{self.k_bits},{self.v_bits or self.k_bits}"


def drafting(deployment: eb.Deployment) -> ExLlamaV3Options:
    """The options, with what the neutral key `speculation` says in their words."""
    options, asked = eb.options_as(ExLlamaV3Options, deployment), deployment.speculation
    if asked is None:
        return options
    return replace(options, draft_tokens=asked.tokens, ngram_match=asked.match, mtp=asked.method == "mtp")


def generator_flags(deployment: eb.Deployment, options: ExLlamaV3Options, checkpoint: str, draft: str = "") -> list[str]:
    spread = deployment.parallelism
    values: dict[str, eb.JSON] = {
        "-m": checkpoint,
        "-cs": cache_tokens(deployment, options),
        "-chunk_size": options.chunk_size,
        "-ambs": deployment.max_concurrency,  # the automatic split and the states of recurrent layers are sized for one request by default
        "-tp": spread.tp > 1,
        "-tpb": options.tp_backend if spread.tp > 1 else None,
        "-tp_moe_ts": spread.tp > 1 and spread.ep == 1,
        **eb.declared_flags(options),
        "-gs": ",".join(f"{gb:g}" for gb in options.gpu_split) if options.gpu_split else None,
        "-cq": options.kv_bits,
        "-mcpa": options.moe_cpu_pinned,
        "-mtp": options.mtp,
        "-dm": draft or None,
        "-nw": not options.warmup,
    }
    return [*eb.flags_of(values), *options.extra]


def tabbyapi_config(deployment: eb.Deployment, options: ExLlamaV3Options, site: eb.Site) -> dict[str, eb.JSON]:
    """TabbyAPI's config.yml. Everything that its sample file does not set neutrally is set here, above all the sampling preset."""
    tokens = cache_tokens(deployment, options)
    model: dict[str, eb.JSON] = {
        "model_dir": str(PurePath(site.checkpoint).parent),
        "model_name": PurePath(site.checkpoint).name,
        "backend": "exllamav3",
        "max_seq_len": min(tokens, request_tokens(deployment)),
        "cache_size": tokens,
        "cache_mode": options.kv_bits or "FP16",
        "max_batch_size": deployment.max_concurrency,
        "chunk_size": options.chunk_size,
        # In chunks, a long output leaves the batch and comes back, and finds its own pages as cached ones.
        "output_chunking": False,
        "tensor_parallel": deployment.parallelism.tp > 1,
        "tensor_parallel_backend": options.tp_backend,
        "gpu_split_auto": options.gpu_split is None,
        "gpu_split": list(options.gpu_split or ()),
        "cpu_moe_offload_layers": options.moe_cpu_layers or 0,
    }
    mode = "mtp" if options.mtp else "ngram" if options.ngram_match is not None else "disabled"
    draft = {"draft_mode": mode, "ngram_match_min": options.ngram_match, "draft_num_tokens": options.draft_tokens}
    return {
        "network": {"host": site.host, "port": site.port, "disable_auth": True, "sse_ping_interval": 0, "api_servers": ["OAI"]},
        "model": model,
        "draft_model": eb.given(draft),
    }


def request_tokens(deployment: eb.Deployment) -> int:
    """Tokens of KV that a request of max_context tokens claims when it starts: whole pages."""
    return -(-(deployment.max_context + 1 + DRAFT_ROOM) // PAGE_TOKENS) * PAGE_TOKENS


def cache_tokens(deployment: eb.Deployment, options: ExLlamaV3Options) -> int:
    return options.cache_tokens or deployment.max_concurrency * request_tokens(deployment)


class ExLlamaV3(eb.Adapter):
    name = "exllamav3"
    title = "ExLlamaV3"
    requirements = ("exllamav3==1.6.5", "torch==2.13.0", "transformers==5.23.0")
    checkpoint_format = "safetensors"
    precisions = frozenset({"f16", "bf16", *(f"exl3_{quarters / 4:g}bpw" for quarters in QUARTERS)})
    runtimes = ("process", "in-process")
    speculates = frozenset({"draft", "ngram", "mtp"})
    speculation_options = ("mtp", "ngram_match", "draft_tokens")
    options = ExLlamaV3Options
    scores = eb.scoring.own_route()

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        return eb.Traits(gpus=deployment.parallelism.devices, takes_ids=eb.options_as(ExLlamaV3Options, deployment).server == "generator")

    def check(self, deployment: eb.Deployment) -> None:
        options, spread = eb.options_as(ExLlamaV3Options, deployment), deployment.parallelism
        tp, ep, gpus, claimed = spread.tp, spread.ep, spread.tp * spread.pp, request_tokens(deployment)
        split, sizes = options.gpu_split, (("cache_tokens", options.cache_tokens), ("chunk_size", options.chunk_size))
        on_cpu, asked = options.moe_cpu_layers or options.moe_cpu_experts, deployment.speculation
        cached = claimed if options.cache_tokens is None else options.cache_tokens
        eb.refuse(
            (spread.dp_replicas > 1 or spread.attention_dp > 1, "ExLlamaV3 has no replicas and no attention data parallelism"),
            (tp > 1 and spread.pp > 1, "ExLlamaV3 splits a model by layers (pp) or within them (tp), not both"),
            (
                ep not in (1, tp),
                f"ExLlamaV3 divides the experts over all tp ranks (ep = tp) or slices each (ep = 1), not ep = {ep}",
            ),
            (split is not None and len(split) != gpus, f"gpu_split names {len(split or ())} GPUs, tp and pp ask for {gpus}"),
            (tp > 1 and on_cpu, "ExLlamaV3 computes experts on the CPU only without tensor parallelism"),
            *(
                (tokens < PAGE_TOKENS or tokens % PAGE_TOKENS, f"{name}: {tokens} is not in pages of {PAGE_TOKENS}")
                for name, tokens in sizes
                if tokens is not None
            ),
            (cached < claimed, f"cache_tokens: one request of {deployment.max_context} tokens claims {claimed}"),
            (
                options.moe_cpu_layers is not None and options.moe_cpu_experts is not None,
                "moe_cpu_layers and moe_cpu_experts do the same in two ways: ExLlamaV3 takes one of them",
            ),
            (options.v_bits is not None and options.k_bits is None, "v_bits needs k_bits: ExLlamaV3 quantizes both caches or neither"),
            (asked and asked.tokens > DRAFT_ROOM, f"speculation: ExLlamaV3 has room for {DRAFT_ROOM} proposed tokens"),
            (options.mtp and options.ngram_match is not None, "mtp and ngram_match: ExLlamaV3 drafts in one way at a time"),
        )
        if options.server == "generator":
            eb.refuse((options.tabbyapi_folder is not None, "tabbyapi_folder is TabbyAPI's checkout, and server is not tabbyapi"))
            return
        missing = [name for name in ("moe_cpu_experts", "moe_cpu_threads", "moe_cpu_pinned", "extra") if getattr(options, name)]
        eb.refuse(
            (deployment.runtime == "in-process", "TabbyAPI is a server; without server: tabbyapi the Generator runs in-process"),
            (options.tabbyapi_folder is None, "tabbyapi_folder: write the folder of TabbyAPI's checkout"),
            (missing, f"TabbyAPI's configuration has no key for {', '.join(missing)}"),
            (asked and asked.draft, "speculation by a draft model is mapped for the Generator only: leave server out"),
            (ep != tp, "TabbyAPI has no key that cuts experts into slices: under tensor parallelism it divides them whole (ep = tp)"),
        )

    def check_loads(self, deployment: eb.Deployment, loads: Sequence[eb.Load]) -> None:
        super().check_loads(deployment, loads)
        if eb.options_as(ExLlamaV3Options, deployment).server == "generator":
            return
        if any(load.output_length is None for load in loads):
            raise eb.Unsupported("TabbyAPI forces one length per load, with min_tokens: write a number for output_tokens")

    def tunables(self, deployment: eb.Deployment, room: eb.Room) -> Sequence[eb.Tunable]:
        return (
            eb.Tunable("chunk_size", (256, 512, 1024, 4096, 8192), default=2048),
            eb.Tunable("moe_cpu_layers", (4, 8, 16), default=0),
            eb.Tunable("moe_cpu_experts", (8, 16, 32), default=0),
            eb.Tunable("moe_cpu_threads", room.threads),
            eb.Tunable("k_bits", (6, 8), exact=False),
            *room.degrees("tp", "ep", "pp"),
            *((eb.Tunable("tp_backend", ("nccl",), default="native"),) if room.devices > 1 else ()),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        return eb.find_package(python, "exllamav3")

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        self.check(deployment)
        eb.refuse((not site.is_local, f"ExLlamaV3 loads a folder, and '{site.checkpoint}' is a hub id: write hf:{site.checkpoint}"))
        options = drafting(deployment)
        tabbyapi = options.server == "tabbyapi"
        gpus = ("--gpus", str(deployment.parallelism.devices))
        worker = (str(install.python), str(eb.WORKERS / "exllamav3_worker.py"))
        notes = eb.holding(
            (
                deployment.runtime == "process",
                "pages of 256 equal leading tokens are always shared: only unique prompts are cold",
            ),
            (deployment.precision == "bf16", "ExLlamaV3 converts bf16 weights to f16 as it loads them"),
            (deployment.parallelism.pp > 1, "pp is a layer split: the GPUs work one after another on the same batch"),
            (tabbyapi, "TabbyAPI ignores seeds, does not warm up, and its checkout may pin another ExLlamaV3 than the installed one"),
        )
        if tabbyapi:
            program = str(PurePath(options.tabbyapi_folder or "") / "main.py")
            argv = (*worker, "tabbyapi", *gpus, program, "--config", str(site.folder / "config.yml"))
            files = {"config.yml": json.dumps(tabbyapi_config(deployment, options, site), indent=1) + "\n"}  # JSON is YAML
            return eb.Launch(argv, PurePath(site.checkpoint).name, files=files, notes=notes, ready_timeout_s=LOADING_S)
        batch, flags = (
            (*gpus, "--slots", str(deployment.max_concurrency)),
            generator_flags(deployment, options, site.checkpoint, site.draft),
        )
        serve = ("serve", *batch, *site.address, "--served-name", deployment.model)
        mode = ("offline", *batch) if deployment.runtime == "in-process" else serve
        return eb.Launch((*worker, *mode, *flags), deployment.model, notes=notes, ready_timeout_s=LOADING_S)

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        fields: dict[str, eb.JSON] = {"stream_options": {"include_usage": True}, **eb.NEUTRAL_SAMPLING}
        if self.traits(deployment).takes_ids:
            return fields | {"ignore_eos": True}
        # TabbyAPI ignores ignore_eos. It ends an output that repeats itself, as long greedy ones do, unless loop detection is off.
        return fields | {"min_tokens": load.output_tokens, "loop_detect_window": 0}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        ours = get("/enginebench").json()
        if isinstance(ours, dict):
            return _resolved_generator(eb.Fields(ours))
        card = get("/v1/model").json()
        return _resolved_tabbyapi(eb.Fields(card)) if isinstance(card, dict) else eb.Resolved()

    def counters(self, get: eb.Get) -> Mapping[str, float]:
        return eb.renamed(eb.prometheus_totals(get("/metrics").text), COUNTERS)

    def scoring(self, deployment: eb.Deployment) -> eb.Scoring:
        if deployment.runtime != "in-process":
            raise eb.Unsupported("a server of ExLlamaV3 keeps its model busy with the Generator; runtime: in-process scores tokens")
        return super().scoring(deployment)


def _resolved_generator(live: eb.Fields) -> eb.Resolved:
    bits, kv = live.at("bits"), live.text("cache_bits")
    cache, trained = live.whole("cache_tokens"), live.whole("max_position_embeddings")
    options = {name: live.at(name) or None for name in ("moe_cpu_layers", "moe_cpu_experts", "chunk_size")}
    return eb.Resolved(
        version=live.text("version"),
        model=live.text("model"),
        precision=f"exl3_{bits:g}bpw" if isinstance(bits, int | float) else eb.from_torch(live.text("dtype")),
        context=min((limit for limit in (cache, trained) if limit is not None), default=None),
        slots=live.whole("slots"),
        prefix_cache=live.flag("prefix_cache") or None,
        kv_dtype=f"q{kv}" if kv is not None else "f16" if cache is not None else None,
        kv_tokens=cache,
        chunked_prefill=True if "chunk_size" in live.value else None,
        batch_tokens=live.whole("chunk_size"),
        options=eb.given(options),
        raw={"/enginebench": live.value},
    )


def _resolved_tabbyapi(card: eb.Fields) -> eb.Resolved:
    """TabbyAPI's /v1/model, which reports neither versions nor the precision."""
    loaded = eb.Fields(card.at("parameters"))
    mode = loaded.text("cache_mode")
    return eb.Resolved(
        model=card.text("id"),
        context=loaded.whole("max_seq_len"),
        slots=loaded.whole("max_batch_size"),
        prefix_cache=True if loaded.value else None,
        kv_dtype="f16" if mode == "FP16" else f"q{mode}" if mode else None,
        kv_tokens=loaded.whole("cache_size"),
        chunked_prefill=True if "chunk_size" in loaded.value else None,
        batch_tokens=loaded.whole("chunk_size"),
        raw={"/v1/model": card.value},
    )
