"""Transformers: `transformers serve` with continuous batching, and generate_batch without a wire.

Both are started by our worker, which builds the server out of transformers' own parts: `transformers serve` has no flag for
the experts implementation, nor for switching prefix sharing off. Knows nothing of whether a model class honours the experts
implementation; the worker reports what its layers really ran.

The server builds its batching manager from the sampling of the first request and keeps it for life. One launch therefore
serves one temperature, and priming must carry the fields of the measured requests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    installed_version,
    options_as,
)

DTYPES: Mapping[str, str] = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}
PAGE_TOKENS = 256
"""transformers' default page size."""


@dataclass(frozen=True)
class TransformersOptions:
    """Engine options; None leaves transformers' own default."""

    experts_implementation: Literal["eager", "batched_mm", "grouped_mm"] | None = None
    """How the routed experts of a layer are computed: a loop, one batched product, or one grouped product (the default)."""
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = None
    """Attention kernel; continuous batching runs its paged form, and may switch sdpa to flash where that is installed."""
    threads: int | None = None
    """CPU threads of torch's operators (OMP_NUM_THREADS)."""
    device: str = "auto"
    """Where the weights go: auto, cpu, cuda:0, ... With several GPUs, auto splits by layer and uses them in turn."""
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


class Transformers(Adapter):
    name = "transformers"
    title = "Transformers"
    requirements = ("torch==2.13.0", "transformers[serving]==5.23.0")
    checkpoint_format = "safetensors"
    precisions = frozenset(DTYPES)
    runtimes = ("process", "in-process")
    apis = ("completions", "chat")
    options = TransformersOptions
    prompt_form = "text"

    def find(self, python: Path | None) -> Sequence[Install]:
        version = installed_version(python, "transformers") if python is not None else None
        return [Install("serve", version, python=python)] if version else []

    def check(self, deployment: Deployment) -> None:
        super().check(deployment)
        options = options_as(TransformersOptions, deployment)
        if deployment.precision not in DTYPES:
            raise Unsupported(f"{self.title} runs {', '.join(DTYPES)} here, not {deployment.precision}")
        if options.cb_max_memory_percent is not None and options.cb_num_blocks != "auto":
            raise Unsupported("cb_max_memory_percent sizes the KV cache only with cb_num_blocks: auto")

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
        worker = (str(install.python), str(WORKERS / "transformers_worker.py"), "offline" if offline else "serve")
        env = {"TOKENIZERS_PARALLELISM": "false"}
        if local:  # nothing is left to fetch; a cache of its own keeps other downloads out of /v1/models
            env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(site.folder / "huggingface")}
        if options.threads is not None:
            env["OMP_NUM_THREADS"] = str(options.threads)
        argv = (*worker, site.checkpoint, *address, *_flags(deployment, options))
        notes = () if offline else ("the chat route streams plain text: reasoning and tool calls are not parsed out of it",)
        return Launch(argv, site.checkpoint, env=env, notes=notes)  # requests must name the model exactly as the command line does

    def resolved(self, get: Get) -> Resolved:
        live = get("/enginebench").json()
        if not isinstance(live, dict):
            return Resolved()
        dtypes = {name: precision for precision, name in DTYPES.items()}
        dtype, model, version, sharing = (live.get(key) for key in ("dtype", "model", "version", "prefix_cache"))
        precision = dtypes.get(dtype, dtype) if isinstance(dtype, str) else None
        batching, ran = live.get("continuous_batching"), live.get("experts_ran")
        slots = batching.get("max_requests_per_batch") if isinstance(batching, dict) else None
        return Resolved(
            version=version if isinstance(version, str) else None,
            model=model if isinstance(model, str) else None,
            precision=precision,
            context=_context(live),
            slots=slots if isinstance(slots, int) else None,
            prefix_cache=sharing if isinstance(sharing, bool) else None,
            kv_dtype=precision,  # the paged cache has the model's dtype
            options={"experts_implementation": "+".join(map(str, ran))} if isinstance(ran, list) and ran else {},
            raw={"/enginebench": live},
        )

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        # Any field outside the whitelist is a 422. Only eos_token_id -1 forces the length: null falls back to the model's own,
        # and min_new_tokens has no effect under continuous batching. do_sample is off unless said.
        generation: dict[str, JSON] = {"max_new_tokens": load.output_tokens, "eos_token_id": -1, "do_sample": load.temperature > 0}
        if load.temperature > 0:
            generation |= {"temperature": load.temperature, "top_k": 0, "top_p": 1.0}
        return {"generation_config": json.dumps(generation)}


def _flags(deployment: Deployment, options: TransformersOptions) -> list[str]:
    page = options.cb_page_size or PAGE_TOKENS
    enough = 2 * deployment.max_concurrency * -(-deployment.max_context // page)
    blocks = None if options.cb_num_blocks == "auto" else options.cb_num_blocks or enough
    valued: Mapping[str, int | float | str | None] = {
        "--dtype": DTYPES[deployment.precision],
        "--device": options.device,
        "--experts-implementation": options.experts_implementation,
        "--attn-implementation": options.attn_implementation,
        "--cb-page-size": options.cb_page_size,
        "--cb-num-blocks": blocks,
        "--cb-max-batch-tokens": options.cb_max_batch_tokens,
        "--cb-max-memory-percent": options.cb_max_memory_percent,
        "--cb-max-requests-per-batch": deployment.max_concurrency,
    }
    flags = [text for flag, value in valued.items() if value is not None for text in (flag, str(value))]
    if options.prefix_cache:
        flags.append("--prefix-cache")
    if options.cb_use_cuda_graph is not None:
        flags.append("--cb-use-cuda-graph" if options.cb_use_cuda_graph else "--no-cb-use-cuda-graph")
    return flags


def _context(live: Mapping[str, JSON]) -> int | None:
    """Tokens one request may hold: what the model was trained for or the whole KV cache, whichever is less."""
    batching = live.get("continuous_batching")
    limits: list[int] = []
    if isinstance(batching, dict):
        page, blocks = batching.get("page_size"), batching.get("num_blocks")
        if isinstance(page, int) and isinstance(blocks, int):
            limits.append(page * blocks)
    trained = live.get("max_position_embeddings")
    if isinstance(trained, int):
        limits.append(trained)
    return min(limits, default=None)
