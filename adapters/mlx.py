"""MLX: `mlx_lm.server`, and mlx-lm's continuous batching without a wire, on one Apple Silicon machine (or a CPU).

Both are started by our worker, which takes the server's own flags and makes up for what it lacks: output of exactly the length asked
for (no token ends a generation), a /health that waits for the model, and a route that reads the live model back. Knows nothing of
power or of the wired-memory limit that decides whether a model larger than it starts to swap.

Verified on Linux with mlx's CPU backend, which multiplies routed experts in f32 only. Not yet run on a GPU: everything on Apple Silicon
itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
)

DTYPES: Mapping[str, str] = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
AFFINE = frozenset({"2bit", "3bit", "4bit", "5bit", "6bit", "8bit"})
MICROSCALED = frozenset({"mxfp4", "mxfp8", "nvfp4"})
PROMPTS_AT_ONCE = 8
"""The server's own --prompt-concurrency."""


@dataclass(frozen=True)
class MlxOptions:
    """Engine options; None leaves the server's own default."""

    prompt_concurrency: int | None = None
    """Prompts that are prefilled together (--prompt-concurrency). None: 8, or max_concurrency where that is less."""
    prefill_step_size: int | None = None
    """Tokens of one prompt in one forward pass: the prefill chunk (--prefill-step-size, 2048)."""
    prefix_cache: bool = False
    """Keep the KV of the last 10 prompts and reuse it for an equal beginning. Off: every prompt is computed."""
    prompt_cache_bytes: int | None = None
    """Most bytes of KV that the prefix cache keeps (--prompt-cache-bytes)."""
    kv_bits: int | None = None
    """Bits per element of the KV cache (--kv-bits: 4 or 8). Requests then run one at a time."""
    kv_group_size: int | None = None
    """Elements that share a scale in a quantised KV cache (--kv-group-size, 64)."""
    quantized_kv_start: int | None = None
    """Tokens of a request that stay unquantised in the KV cache (--quantized-kv-start)."""
    draft_model: str | None = None
    """Path of a smaller model that proposes tokens (--draft-model). Requests then run one at a time."""
    num_draft_tokens: int | None = None
    """Tokens that the draft model proposes at a time (--num-draft-tokens, 3)."""


class Mlx(Adapter):
    name = "mlx"
    title = "MLX"
    # On macOS the extra asks for nothing; on Linux mlx has no backend without it.
    requirements = ("mlx-lm[cpu]==0.32.2",)
    checkpoint_format = "safetensors"
    precisions = frozenset(DTYPES.values()) | AFFINE | MICROSCALED
    runtimes = ("process", "in-process")
    apis = ("completions", "chat")
    options = MlxOptions
    prompt_form = "text"

    def find(self, python: Path | None) -> Sequence[Install]:
        version = installed_version(python, "mlx-lm") if python is not None else None
        return [Install("mlx-lm", version, python=python)] if version else []

    def takes_ids(self, deployment: Deployment) -> bool:
        return deployment.runtime == "in-process"  # the server answers 404 to token ids

    def gpus(self, deployment: Deployment) -> int:
        return 1

    def check(self, deployment: Deployment) -> None:
        if deployment.parallelism != Parallelism():
            raise Unsupported(
                "MLX spreads a model over machines only (mlx.launch, over ssh), which is not started from here: "
                "start it yourself and name its address with engine: openai, runtime: attach"
            )
        options = options_as(MlxOptions, deployment)
        serial = [name for name in ("kv_bits", "draft_model") if getattr(options, name) is not None]
        if serial and deployment.runtime == "in-process":
            raise Unsupported(f"only mlx_lm.server has {serial[0]}: batched generation in-process has none")
        if serial and deployment.max_concurrency > 1:
            raise Unsupported(f"with {serial[0]} mlx_lm.server answers one request at a time: above concurrency 1 it would measure a queue")
        if (options.prompt_concurrency or 0) > deployment.max_concurrency:
            raise Unsupported(
                f"prompt_concurrency {options.prompt_concurrency} is more than the {deployment.max_concurrency} requests in flight, "
                "and mlx-lm decodes as many together as it prefills"
            )
        for name in ("kv_group_size", "quantized_kv_start"):
            if getattr(options, name) is not None and options.kv_bits is None:
                raise Unsupported(f"{name} shapes a quantised KV cache: it needs kv_bits")
        if options.num_draft_tokens is not None and options.draft_model is None:
            raise Unsupported("num_draft_tokens needs a draft_model")
        if options.prompt_cache_bytes is not None and not options.prefix_cache:
            raise Unsupported("prompt_cache_bytes sizes the prefix cache, which is off: it needs prefix_cache: true")

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        offline = deployment.runtime == "in-process"
        address = () if offline else ("--host", site.host, "--port", str(site.port))
        worker = (str(install.python), str(WORKERS / "mlx_worker.py"), "offline" if offline else "serve")
        env = {"TOKENIZERS_PARALLELISM": "false"}
        if Path(site.checkpoint).is_absolute():  # nothing is left to fetch
            env["HF_HUB_OFFLINE"] = "1"
        notes = ["tokens that end a sequence are generated and end nothing"]
        if not offline:
            notes.append("mlx-lm drops a space that begins an answer")
            notes.append("sampled requests carry no seed: a seed would make the server answer them one by one")
        # The server loads another model when a request names another: this one must be named exactly as the command line does.
        return Launch((*worker, *_flags(deployment, site.checkpoint), *address), site.checkpoint, env=env, notes=tuple(notes))

    def resolved(self, get: Get) -> Resolved:
        live = get("/enginebench").json()
        if not isinstance(live, dict) or not live:
            return Resolved()
        kept, kv_bits = only(int, live.get("prompt_cache_size")), only(int, live.get("kv_bits"))
        dtype = live.get("dtype")
        return Resolved(
            version=only(str, live.get("version")),
            model=only(str, live.get("model")),
            precision=_precision(live),
            context=only(int, live.get("max_position_embeddings")),
            slots=only(int, live.get("decode_concurrency")) if live.get("batchable") is True else 1,
            prefix_cache=None if kept is None else kept > 0,
            kv_dtype=f"{kv_bits}bit" if kv_bits else DTYPES.get(dtype) if isinstance(dtype, str) else None,
            chunked_prefill=True,  # by prefill_step_size, and batches of other requests go on in between
            stream_interval=1,
            options={name: live[name] for name in ("prompt_concurrency", "prefill_step_size", "kv_bits") if live.get(name) is not None},
            raw={"/enginebench": live},
        )

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        # A seed takes the request out of the batch: the server then answers such requests one after another.
        return {"stream_options": {"include_usage": True}, "seed": None, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def _flags(deployment: Deployment, checkpoint: str) -> list[str]:
    """mlx_lm.server's flags for everything but the address."""
    options = options_as(MlxOptions, deployment)
    valued: Mapping[str, int | str | None] = {
        "--model": checkpoint,
        "--decode-concurrency": deployment.max_concurrency,
        "--prompt-concurrency": options.prompt_concurrency or min(PROMPTS_AT_ONCE, deployment.max_concurrency),
        "--prefill-step-size": options.prefill_step_size,
        "--prompt-cache-size": None if options.prefix_cache else 0,
        "--prompt-cache-bytes": options.prompt_cache_bytes,
        "--kv-bits": options.kv_bits,
        "--kv-group-size": options.kv_group_size,
        "--quantized-kv-start": options.quantized_kv_start,
        "--draft-model": options.draft_model,
        "--num-draft-tokens": options.num_draft_tokens,
    }
    return flags_of(valued)


def _precision(live: Mapping[str, JSON]) -> str | None:
    """'4bit' for affine groups, 'mxfp4' and the like by their mode, several joined by '+'; else the dtype."""
    layers, dtype = live.get("quantization"), live.get("dtype")
    if isinstance(layers, list) and layers:
        words = [str(layer).split() for layer in layers]
        return "+".join(sorted({f"{bits}bit" if mode == "affine" else mode for mode, bits, *_ in (w for w in words if len(w) > 1)}))
    return DTYPES.get(dtype, dtype) if isinstance(dtype, str) else None
