"""Transformers: `transformers serve` with continuous batching, and generate_batch without a wire; alone or under torchrun.

Both are started by our worker, which builds the server out of transformers' own parts: `transformers serve` has no flag for
the experts implementation, for sharding, or for switching prefix sharing off. Knows nothing of whether a model class honours
the experts implementation, or has a sharding plan; the worker reports what its layers really ran. Nor of what a model's layers
are: continuous batching of 5.23 has no cache for chunked attention (Llama 4), nor for keys and values of different width
(DeepSeek-V3), and the worker ends with that reason once it has loaded such a model.

The server builds its batching manager from the sampling of the first request and keeps it for life. One launch therefore
serves one temperature, and priming must carry the fields of the measured requests.

Seen on CPU: tp and ep of two ranks, served and offline, dummy weights, MXFP4 weights expanded to bf16. Not yet run on a GPU, which leaves
unverified what needs one, or kernels from a hub: pp, CUDA graphs, flash attention, and MXFP4 weights that stay MXFP4 (they need the
packages `kernels` and `triton`, which `requirements` leaves out; without them transformers expands the weights, and `resolved` says
bf16).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from enginebench.adapter import (
    GAUGES,
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
)

DTYPES: Mapping[str, str] = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
PRECISIONS: Mapping[str, str] = {**DTYPES, "mxfp4": "bfloat16"}
"""Precision -> dtype of whatever the checkpoint does not quantise."""
PAGE_TOKENS = 256
"""transformers' default page size."""


@dataclass(frozen=True)
class TransformersOptions:
    """Engine options; None leaves transformers' own default."""

    experts_implementation: Literal["eager", "batched_mm", "grouped_mm"] | None = None
    """How the routed experts of a layer are computed: a loop, one batched product, or one grouped product (the default)."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = None
    """Attention kernel, in its paged form; None: flash attention where that is installed, else sdpa."""
    threads: int | None = None
    """CPU threads of torch's operators (OMP_NUM_THREADS), in each rank."""
    device: str = "auto"
    """Where the weights go: cpu, cuda:0, ...; auto: an accelerator if there is one, else the CPU. Several come with tp or pp."""
    load_format: Literal["auto", "dummy"] = "auto"
    """dummy: weights drawn from a seed; of the checkpoint only its configuration and tokenizer are read."""
    dequantize: bool = False
    """Expand an MXFP4 checkpoint (gpt-oss) to bf16 while it loads; its precision then is bf16."""
    parallel_loading: bool | None = None
    """Read weights in several threads, as transformers does by default; off sets HF_DEACTIVATE_ASYNC_LOAD. The older variables
    HF_ENABLE_PARALLEL_LOADING and HF_PARALLEL_LOADING_WORKERS are no longer read."""
    loading_workers: int | None = None
    """How many threads read weights; None: 4, or the CPUs if there are fewer."""
    prefix_cache: bool = False
    """Let requests share the KV pages of an equal prefix. `transformers serve` always does; off, every prompt is computed."""
    cb_page_size: int | None = None
    """Tokens per KV page."""
    cb_num_blocks: int | Literal["auto"] | None = None
    """KV blocks of cb_page_size tokens. None: twice what max_concurrency requests of max_context tokens need, since below a
    share of free blocks the scheduler stops admitting requests; auto: a share of the free memory, as `transformers serve`."""
    cb_max_batch_tokens: int | None = None
    """Tokens of one forward pass, prefill and decode together."""
    cb_max_memory_percent: float | None = None
    """The share (0 to 1) of free memory for KV when cb_num_blocks is auto."""
    cb_use_cuda_graph: bool | None = None
    """CUDA graphs on or off."""
    cb_use_async_batching: bool | None = None
    """Prepare the next batch while this one runs, at twice the buffers."""
    cb_default_compile_level: int | None = None
    """torch.compile of the forward pass: 0 (off) to 3."""


class Transformers(Adapter):
    name = "transformers"
    title = "Transformers"
    requirements = ("torch==2.13.0", "transformers[serving]==5.23.0")
    checkpoint_format = "safetensors"
    precisions = frozenset(PRECISIONS)
    runtimes = ("process", "in-process")
    apis = ("completions", "chat")
    options = TransformersOptions
    prompt_form = "text"

    def find(self, python: Path | None) -> Sequence[Install]:
        version = installed_version(python, "transformers") if python is not None else None
        return [Install("serve", version, python=python)] if version else []

    def check(self, deployment: Deployment) -> None:
        options = options_as(TransformersOptions, deployment)
        if deployment.precision not in PRECISIONS:
            raise Unsupported(f"{self.title} runs {', '.join(PRECISIONS)} here, not {deployment.precision}")
        _check_spread(deployment.parallelism, options)
        _check_weights(deployment, options)
        if options.cb_max_memory_percent is not None and options.cb_num_blocks != "auto":
            raise Unsupported("cb_max_memory_percent sizes the KV cache only with cb_num_blocks: auto")

    def gpus(self, deployment: Deployment) -> int:
        return 0 if options_as(TransformersOptions, deployment).device == "cpu" else super().gpus(deployment)

    def extra_ports(self, deployment: Deployment) -> int:
        return 1 if deployment.parallelism.tp > 1 else 0  # where torchrun's ranks meet

    def random_weights(self, deployment: Deployment) -> bool:
        return options_as(TransformersOptions, deployment).load_format == "dummy"

    def check_loads(self, deployment: Deployment, loads: Sequence[Load]) -> None:
        super().check_loads(deployment, loads)
        temperatures = sorted({load.temperature for load in loads})
        if deployment.runtime == "process" and len(temperatures) > 1:
            raise Unsupported(
                f"one server start keeps the temperature of its first request, and these loads have {', '.join(map(str, temperatures))}: "
                "write one entry with a `label` per temperature, and `only: {label: ...}` in its loads"
            )

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        local = Path(site.checkpoint).is_absolute()
        if local and "@" in site.checkpoint:
            raise Unsupported(f"transformers reads '@' in the path {site.checkpoint} as a revision")
        options = options_as(TransformersOptions, deployment)
        offline = deployment.runtime == "in-process"
        address = () if offline else ("--host", site.host, "--port", str(site.port))
        worker = (*_interpreter(deployment, install, site), str(WORKERS / "transformers_worker.py"), "offline" if offline else "serve")
        env = {"TOKENIZERS_PARALLELISM": "false"}
        if local:  # nothing is left to fetch; a cache of its own keeps other downloads out of /v1/models
            env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(site.folder / "huggingface")}
        if options.threads is not None:
            env["OMP_NUM_THREADS"] = str(options.threads)
        if options.parallel_loading is False:
            env["HF_DEACTIVATE_ASYNC_LOAD"] = "1"
        argv = (*worker, site.checkpoint, *address, *_flags(deployment, options))
        # requests must name the model exactly as the command line does
        return Launch(argv, site.checkpoint, env=env, notes=tuple(_notes(deployment, options)))

    def resolved(self, get: Get) -> Resolved:
        live = get("/enginebench").json()
        if not isinstance(live, dict):
            return Resolved()
        names = {name: precision for precision, name in DTYPES.items()}
        dtype, held = only(str, live.get("dtype")), only(str, live.get("weights"))
        batching, sharing = live.get("continuous_batching"), live.get("prefix_cache")
        batch: Mapping[str, JSON] = batching if isinstance(batching, dict) else {}
        page, blocks = only(int, batch.get("page_size")), only(int, batch.get("num_blocks"))
        kv_tokens = page * blocks if page is not None and blocks is not None else None
        limits = [limit for limit in (only(int, live.get("max_position_embeddings")), kv_tokens) if limit is not None]
        return Resolved(
            version=only(str, live.get("version")),
            model=only(str, live.get("model")),
            precision=names.get(held, held) if held else None,
            context=min(limits, default=None),
            slots=only(int, batch.get("max_requests_per_batch")),
            prefix_cache=sharing if isinstance(sharing, bool) else None,
            kv_dtype=names.get(dtype, dtype) if dtype else None,  # the paged cache has the model's dtype
            kv_tokens=kv_tokens,
            chunked_prefill=True if batch else None,  # its scheduler always splits a prompt that does not fit into the batch
            batch_tokens=only(int, batch.get("max_batch_tokens")),
            graphs=_graphs(batch.get("use_cuda_graph")),
            options=_ran(live),
            raw={"/enginebench": live},
        )

    def counters(self, get: Get) -> Mapping[str, float]:
        now = get("/enginebench/counters").json()
        if not isinstance(now, dict):
            return {}
        told = {name: now.get(name) for name in ("cached_tokens", *GAUGES)}
        return {name: value for name, value in told.items() if isinstance(value, int | float) and not isinstance(value, bool)}

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        # Any field outside the whitelist is a 422. Only eos_token_id -1 forces the length: null falls back to the model's own,
        # and min_new_tokens has no effect under continuous batching. do_sample is off unless said.
        generation: dict[str, JSON] = {"max_new_tokens": load.output_tokens, "eos_token_id": -1, "do_sample": load.temperature > 0}
        if load.temperature > 0:
            generation |= {"temperature": load.temperature, "top_k": 0, "top_p": 1.0}
        return {"generation_config": json.dumps(generation)}


def _check_spread(spread: Parallelism, options: TransformersOptions) -> None:
    """Under torchrun the ranks of one mesh answer one stream of requests together. Raises Unsupported."""
    if spread.dp_replicas > 1:
        raise Unsupported("transformers serves no replicas: its data parallelism (FSDP) shards weights, and continuous batching refuses it")
    if spread.attention_dp > 1:
        raise Unsupported("transformers has no attention data parallelism: all its ranks work on the same batch")
    if spread.ep not in (1, spread.tp):
        raise Unsupported(f"transformers shares experts over all the tp ranks or none when it generates: ep is 1 or {spread.tp}")
    if spread.pp > 1 and spread.tp > 1:
        raise Unsupported("pp here is one process that uses its devices in turn, so it cannot be combined with tp")
    if (spread.pp > 1 or spread.tp > 1) and options.device not in ("auto", "cpu"):
        raise Unsupported(f"device {options.device} is one device; leave it out where tp or pp take several")
    if spread.pp > 1 and options.device == "cpu":
        raise Unsupported("there is only one CPU to put layers on: pp takes several GPUs")


def _check_weights(deployment: Deployment, options: TransformersOptions) -> None:
    """Ways of loading that exclude each other. Raises Unsupported."""
    spread, dummy = deployment.parallelism, options.load_format == "dummy"
    if options.dequantize and deployment.precision != "bf16":
        raise Unsupported("dequantize expands MXFP4 weights to bf16, so the precision is bf16: list the checkpoint under bf16")
    if dummy and (options.dequantize or deployment.precision == "mxfp4"):
        raise Unsupported("load_format dummy makes plain weights, and none in MXFP4")
    if dummy and (spread.tp > 1 or spread.pp > 1):
        raise Unsupported("load_format dummy is not sharded: transformers shards weights while it reads them")
    if options.loading_workers is not None and (options.parallel_loading is False or dummy):
        raise Unsupported("loading_workers counts threads that read weights, and here none do")


def _interpreter(deployment: Deployment, install: Install, site: Site) -> Sequence[str]:
    """The engine's Python, or torchrun with one process for each rank on this host."""
    if deployment.parallelism.tp == 1:
        return (str(install.python),)
    ranks = ("--nproc-per-node", str(deployment.parallelism.tp))
    return (str(install.python), "-m", "torch.distributed.run", *ranks, "--master-addr", site.host, "--master-port", str(site.ports[0]))


def _notes(deployment: Deployment, options: TransformersOptions) -> Iterator[str]:
    spread = deployment.parallelism
    if deployment.runtime == "process":
        yield "the chat route streams plain text: reasoning and tool calls are not parsed out of it"
    if spread.pp > 1:
        yield f"the {spread.pp} devices hold whole layers and work in turn: one computes at a time"
    if spread.tp > 1 and options.threads is None:
        yield "torchrun gives every rank one CPU thread (OMP_NUM_THREADS); threads changes that"
    if options.dequantize:
        yield "the MXFP4 weights were expanded to bf16 while loading"


def _flags(deployment: Deployment, options: TransformersOptions) -> list[str]:
    page, spread = options.cb_page_size or PAGE_TOKENS, deployment.parallelism
    enough = 2 * deployment.max_concurrency * -(-deployment.max_context // page)
    blocks = None if options.cb_num_blocks == "auto" else options.cb_num_blocks or enough
    valued: Mapping[str, int | float | str | None] = {
        "--dtype": PRECISIONS[deployment.precision],
        "--device": options.device,
        "--tp": spread.tp if spread.tp > 1 else None,
        "--ep": spread.ep if spread.ep > 1 else None,
        "--pp": spread.pp if spread.pp > 1 else None,
        "--load-format": options.load_format if options.load_format != "auto" else None,
        "--loading-workers": options.loading_workers,
        "--experts-implementation": options.experts_implementation,
        "--attn-implementation": options.attn_implementation,
        "--cb-page-size": options.cb_page_size,
        "--cb-num-blocks": blocks,
        "--cb-max-batch-tokens": options.cb_max_batch_tokens,
        "--cb-max-memory-percent": options.cb_max_memory_percent,
        "--cb-max-requests-per-batch": deployment.max_concurrency,
        "--cb-default-compile-level": options.cb_default_compile_level,
    }
    switches: Mapping[str, bool | None] = {
        "cb-use-cuda-graph": options.cb_use_cuda_graph,
        "cb-use-async-batching": options.cb_use_async_batching,
    }
    flags = flags_of(valued)
    flags += [f"--{'' if on else 'no-'}{name}" for name, on in switches.items() if on is not None]
    flags += ["--prefix-cache"] if options.prefix_cache else []
    return [*flags, "--dequantize"] if options.dequantize else flags


def _ran(live: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """The kernels in use, under the names of the options: what the layers were handed, not what was configured."""
    experts, attention = live.get("experts_ran"), only(str, live.get("attn_implementation"))
    told: dict[str, JSON] = {"experts_implementation": "+".join(map(str, experts))} if isinstance(experts, list) and experts else {}
    return told | ({"attn_implementation": attention.removeprefix("paged|")} if attention else {})


def _graphs(used: JSON) -> str | None:
    """Which forward passes run as CUDA graphs: transformers answers with a pair, (mixed batches, pure decode)."""
    if not isinstance(used, list) or len(used) != 2:
        return None
    return {(False, False): "off", (True, True): "all", (False, True): "decode", (True, False): "mixed"}.get((bool(used[0]), bool(used[1])))
