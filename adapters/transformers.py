"""Transformers: `transformers serve` with continuous batching, and generate_batch in-process; alone or under torchrun.

Our worker builds the server out of transformers' own parts, because `transformers serve` has no flag for the experts implementation, for
sharding, or for switching prefix sharing off. The server keeps the sampling of its first request, so one launch serves one temperature, and
priming must carry the fields of the measured requests. Does not know a model's layers: continuous batching of 5.23 has no cache for chunked
attention (Llama 4), nor for keys and values of different width (DeepSeek-V3), and the worker exits with that reason.

Tested on CPU: tp and ep of two ranks, server and in-process, dummy weights, MXFP4 weights expanded to bf16. Not yet run on a GPU: pp, CUDA
graphs, flash attention, and MXFP4 weights that stay MXFP4 (without the packages `kernels` and `triton` transformers expands them).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import enginebench.adapter as eb

PRECISIONS: Mapping[str, str] = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "mxfp4": "bfloat16"}
"""Precision -> dtype of everything that the checkpoint does not quantize."""
Attention = Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"]
PAGE_TOKENS = 256
"""transformers' default page size."""
GRAPHS = {(False, False): "off", (True, True): "all", (False, True): "decode", (True, False): "mixed"}
"""Whether (mixed batches, pure decodes) run as CUDA graphs."""


@dataclass(frozen=True)
class TransformersOptions:
    """Engine options; None leaves transformers' default in place."""

    device: str = eb.option("--device", "auto")
    """Where the weights go: cpu, cuda:0, ...; auto: an accelerator if there is one, else the CPU. Several come with tp or pp."""
    load_format: Literal["auto", "dummy"] = "auto"
    """dummy: weights drawn from a seed; only the checkpoint's configuration and tokenizer are read."""
    dequantize: bool = False
    """Expand an MXFP4 checkpoint (gpt-oss) to bf16 while it loads; its precision then is bf16."""
    parallel_loading: bool | None = None
    """Read weights in several threads, as transformers does by default; off sets HF_DEACTIVATE_ASYNC_LOAD. The older variables
    HF_ENABLE_PARALLEL_LOADING and HF_PARALLEL_LOADING_WORKERS are no longer read."""
    loading_workers: int | None = eb.option("--loading-workers")
    """How many threads read weights; None: 4, or the CPUs if there are fewer."""
    experts_implementation: Literal["eager", "batched_mm", "grouped_mm"] | None = eb.option("--experts-implementation")
    """How the routed experts of a layer are computed: a loop, one batched product, or one grouped product (the default)."""
    attn_implementation: Attention | None = eb.option("--attn-implementation")
    """Attention kernel, in its paged form; None: flash attention where it is installed, else sdpa."""
    threads: int | None = None
    """CPU threads of torch's operators (OMP_NUM_THREADS), in each rank."""
    prefix_cache: bool = False
    """Let requests share the KV pages of an equal prefix. `transformers serve` always does; off, every prompt is computed."""
    cb_page_size: int | None = eb.option("--cb-page-size")
    """Tokens per KV page."""
    cb_num_blocks: int | Literal["auto"] | None = eb.option("--cb-num-blocks")
    """KV blocks of cb_page_size tokens. None: twice what max_concurrency requests of max_context tokens need, because the scheduler stops
    admitting requests below a share of free blocks; auto: a share of the free memory, as in `transformers serve`."""
    cb_max_batch_tokens: int | None = eb.option("--cb-max-batch-tokens")
    """Tokens of one forward pass, prefill and decode together."""
    cb_max_memory_percent: float | None = eb.option("--cb-max-memory-percent")
    """The share (0 to 1) of free memory for KV when cb_num_blocks is auto."""
    cb_default_compile_level: int | None = None
    """torch.compile of the forward pass: 0 (off) to 3."""
    cb_use_cuda_graph: bool | None = None
    """CUDA graphs on or off."""
    cb_use_async_batching: bool | None = None
    """Prepare the next batch while this one runs, at twice the buffers."""


def worker_flags(deployment: eb.Deployment, options: TransformersOptions, draft: str = "") -> list[str]:
    """Our worker's flags but for the address; `transformers serve` has the same names where it has the flag."""
    pages = -(-deployment.max_context // (options.cb_page_size or PAGE_TOKENS))
    blocks = None if options.cb_num_blocks == "auto" else options.cb_num_blocks or 2 * deployment.max_concurrency * pages
    first: dict[str, eb.JSON] = {
        "--dtype": PRECISIONS[deployment.precision],
        "--device": None,  # its place; the value is the option's
        **eb.spread_flags(deployment.parallelism, tp="--tp", ep="--ep", pp="--pp"),
        "--load-format": options.load_format if options.load_format != "auto" else None,
    }
    derived: dict[str, eb.JSON] = {
        "--cb-num-blocks": blocks,
        "--cb-max-requests-per-batch": deployment.max_concurrency,
        "--cb-default-compile-level": options.cb_default_compile_level,
        **eb.on_off("--cb-use-cuda-graph", options.cb_use_cuda_graph),
        **eb.on_off("--cb-use-async-batching", options.cb_use_async_batching),
        "--prefix-cache": options.prefix_cache,
        "--dequantize": options.dequantize,
        **_speculation(deployment.speculation, draft),
    }
    return eb.flags_of({**first, **eb.declared_flags(options), **derived})


def _speculation(asked: eb.Speculation | None, draft: str) -> dict[str, eb.JSON]:
    """generate's own names."""
    if asked is None:
        return {}
    if asked.method == "ngram":
        return {"--prompt-lookup-num-tokens": asked.tokens, "--max-matching-ngram-size": asked.match}
    return {"--assistant-model": draft, "--num-assistant-tokens": asked.tokens}


class Transformers(eb.Adapter):
    name = "transformers"
    title = "Transformers"
    requirements = ("torch==2.13.0", "transformers[serving]==5.23.0")
    checkpoint_format = "safetensors"
    precisions = frozenset(PRECISIONS)
    runtimes = ("process", "in-process")
    speculates = frozenset({"draft", "ngram"})
    options = TransformersOptions
    scores = eb.scoring.own_route()

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        options = eb.options_as(TransformersOptions, deployment)
        return eb.Traits(
            gpus=0 if options.device == "cpu" else deployment.parallelism.devices,
            extra_ports=1 if deployment.parallelism.tp > 1 else 0,  # where torchrun's ranks meet
            takes_ids=False,
            random_weights=options.load_format == "dummy",
        )

    def check(self, deployment: eb.Deployment) -> None:
        options, spread, precision = eb.options_as(TransformersOptions, deployment), deployment.parallelism, deployment.precision
        dummy, sharded = options.load_format == "dummy", spread.tp > 1 or spread.pp > 1
        no_threads, share = options.parallel_loading is False or dummy, options.cb_max_memory_percent is not None
        speculates, server = deployment.speculation is not None, deployment.runtime != "in-process"
        eb.refuse(
            (precision not in PRECISIONS, f"{self.title} runs {', '.join(PRECISIONS)} here, not {precision}"),
            (spread.dp_replicas > 1, "transformers has no replicas: its data parallelism (FSDP) does not work with continuous batching"),
            (spread.attention_dp > 1, "transformers has no attention data parallelism: all its ranks work on the same batch"),
            (spread.ep not in (1, spread.tp), f"transformers spreads experts over all the tp ranks or none: ep is 1 or {spread.tp}"),
            (spread.pp > 1 and spread.tp > 1, "pp is one process that uses its devices in turn, so it cannot be combined with tp"),
            (
                sharded and options.device not in ("auto", "cpu"),
                f"{options.device} is one device: drop it where tp or pp take several",
            ),
            (spread.pp > 1 and options.device == "cpu", "there is only one CPU to put layers on: pp needs several GPUs"),
            (speculates and server, "transformers speculates in `generate` only, not in its server: write runtime: in-process"),
            (speculates and deployment.max_concurrency > 1, "transformers speculates for one request at a time: write concurrency: 1"),
            (speculates and sharded, "transformers speculates on one device here, not over tp or pp"),
            (options.dequantize and precision != "bf16", "dequantize expands MXFP4 weights to bf16: list the checkpoint under bf16"),
            (dummy and (options.dequantize or precision == "mxfp4"), "load_format dummy makes plain weights, and none in MXFP4"),
            (dummy and sharded, "load_format dummy is not sharded: transformers shards weights while it reads them"),
            (options.loading_workers is not None and no_threads, "loading_workers counts threads that read weights, and here none do"),
            (share and options.cb_num_blocks != "auto", "cb_max_memory_percent sizes the KV cache only with cb_num_blocks: auto"),
        )

    def check_loads(self, deployment: eb.Deployment, loads: Sequence[eb.Load]) -> None:
        super().check_loads(deployment, loads)
        temperatures = sorted({load.temperature for load in loads})
        if deployment.runtime == "process" and len(temperatures) > 1:
            raise eb.Unsupported(
                f"one server start keeps the temperature of its first request, and these loads have {', '.join(map(str, temperatures))}: "
                "write one entry with a `label` per temperature, and `only: {label: ...}` in its loads"
            )

    def tunables(self, deployment: eb.Deployment, room: eb.Room) -> Sequence[eb.Tunable]:
        return (
            eb.Tunable("experts_implementation", ("eager", "batched_mm"), default="grouped_mm"),
            eb.Tunable("attn_implementation", ("eager", "sdpa")),
            eb.Tunable("threads", room.threads),
            eb.Tunable("cb_page_size", (16, 32, 64, 128), default=PAGE_TOKENS),
            eb.Tunable("cb_max_batch_tokens", (64, 128, 256, 512, 1024, 2048)),
            eb.Tunable("cb_use_async_batching", (False, True)),
            *room.on_devices(
                eb.Tunable("cb_use_cuda_graph", (False, True), cost="compile"),
                eb.Tunable("cb_default_compile_level", (0, 1, 2, 3), cost="compile"),
            ),
            *room.degrees("tp", "ep", "pp"),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        return eb.find_package(python, "transformers", variant="serve")

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        self.check(deployment)
        eb.refuse((site.is_local and "@" in site.checkpoint, f"transformers reads '@' in the path {site.checkpoint} as a revision"))
        options, spread = eb.options_as(TransformersOptions, deployment), deployment.parallelism
        offline = deployment.runtime == "in-process"
        ranks = ("-m", "torch.distributed.run", "--nproc-per-node", str(spread.tp), "--master-addr", site.host, "--master-port")
        torchrun = (*ranks, str(site.ports[0])) if spread.tp > 1 else ()
        worker = (str(install.python), *torchrun, str(eb.WORKERS / "transformers_worker.py"), "offline" if offline else "serve")
        env = {"TOKENIZERS_PARALLELISM": "false"}
        if site.is_local:  # a cache of its own keeps other downloads out of /v1/models
            env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(site.folder / "huggingface")}
        env |= {"OMP_NUM_THREADS": str(options.threads)} if options.threads is not None else {}
        env |= {"HF_DEACTIVATE_ASYNC_LOAD": "1"} if options.parallel_loading is False else {}
        notes = eb.holding(
            (not offline, "the chat route streams plain text: reasoning and tool calls are not parsed out of it"),
            (spread.pp > 1, f"the {spread.pp} devices hold whole layers and work in turn: one computes at a time"),
            (spread.tp > 1 and options.threads is None, "torchrun gives every rank one CPU thread (OMP_NUM_THREADS); threads changes that"),
            (options.dequantize, "the MXFP4 weights were expanded to bf16 while loading"),
        )
        argv = (*worker, site.checkpoint, *(() if offline else site.address), *worker_flags(deployment, options, site.draft))
        # Requests must name the model exactly as the command line does.
        return eb.Launch(argv, site.checkpoint, env=env, notes=notes)

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        # Any unknown field is a 422. Only eos_token_id -1 forces the length: null falls back to the model's own, and min_new_tokens
        # has no effect under continuous batching. do_sample is off by default.
        generation: dict[str, eb.JSON] = {"max_new_tokens": load.output_tokens, "eos_token_id": -1, "do_sample": load.temperature > 0}
        if load.temperature > 0:
            generation |= {"temperature": load.temperature, "top_k": 0, "top_p": 1.0}
        return {"generation_config": json.dumps(generation)}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        live = eb.Fields(get("/enginebench").json())
        if not live.value:
            return eb.Resolved()
        batch = eb.Fields(live.at("continuous_batching"))
        page, blocks, graphs = batch.whole("page_size"), batch.whole("num_blocks"), eb.as_list(batch.at("use_cuda_graph"))
        kv_tokens = page * blocks if page is not None and blocks is not None else None
        limits = [limit for limit in (live.whole("max_position_embeddings"), kv_tokens) if limit is not None]
        ran, attention = eb.as_list(live.at("experts_ran")), live.text("attn_implementation")
        used: dict[str, eb.JSON] = {"experts_implementation": "+".join(map(str, ran)) or None}  # what the layers ran, not what was set
        used["attn_implementation"] = attention.removeprefix("paged|") if attention else None
        return eb.Resolved(
            version=live.text("version"),
            model=live.text("model"),
            precision=eb.from_torch(live.text("weights")) or None,
            context=min(limits, default=None),
            slots=batch.whole("max_requests_per_batch"),
            prefix_cache=live.flag("prefix_cache"),
            prefix_rule=eb.PrefixRule(page, "computed") if page and live.flag("prefix_cache") else None,
            kv_dtype=eb.from_torch(live.text("dtype")) or None,  # the paged cache has the model's dtype
            kv_tokens=kv_tokens,
            chunked_prefill=True if batch.value else None,  # its scheduler always splits a prompt that does not fit into the batch
            batch_tokens=batch.whole("max_batch_tokens"),
            graphs=GRAPHS[bool(graphs[0]), bool(graphs[1])] if len(graphs) == 2 else None,
            options=eb.given(used),
            raw={"/enginebench": live.value},
        )

    def counters(self, get: eb.Get) -> Mapping[str, float]:
        now = eb.as_object(get("/enginebench/counters").json())
        found = {name: now.get(name) for name in ("cached_tokens", *eb.GAUGES)}
        return {name: value for name, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)}

    def scoring(self, deployment: eb.Deployment) -> eb.Scoring:
        if deployment.parallelism.tp > 1:
            raise eb.Unsupported("the ranks of a sharded model follow continuous batching only, which returns no logits of a prompt")
        return super().scoring(deployment)
