"""MLX: `mlx_lm.server`, and mlx-lm's continuous batching in-process, on one Apple Silicon machine (or a CPU).

Does not know the wired-memory limit that decides whether a model larger than it starts to swap. Tested on Linux with mlx's CPU backend,
which multiplies routed experts in f32 only. Not yet run on a GPU: anything on Apple Silicon.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import enginebench.adapter as eb

AFFINE = frozenset({"2bit", "3bit", "4bit", "5bit", "6bit", "8bit"})
MICROSCALED = frozenset({"mxfp4", "mxfp8", "nvfp4"})
PROMPTS_AT_ONCE = 8
"""The server's own --prompt-concurrency."""


@dataclass(frozen=True)
class MlxOptions:
    """Engine options; None leaves the server's default in place."""

    prompt_concurrency: int | None = eb.option("--prompt-concurrency", reported="prompt_concurrency")
    """Prompts that are prefilled together. None: 8, or max_concurrency where that is less."""
    prefill_step_size: int | None = eb.option("--prefill-step-size", reported="prefill_step_size")
    """Tokens of one prompt in one forward pass: the prefill chunk (2048)."""
    prefix_cache: bool = eb.option("--prompt-cache-size", default=False)
    """Keep the KV of the last 10 prompts and reuse it for an equal beginning. Off: every prompt is computed."""
    prompt_cache_bytes: int | None = eb.option("--prompt-cache-bytes")
    """Most bytes of KV that the prefix cache keeps."""
    kv_bits: int | None = eb.option("--kv-bits", reported="kv_bits")
    """Bits per element of the KV cache (4 or 8). Requests then run one at a time."""
    kv_group_size: int | None = eb.option("--kv-group-size")
    """Elements that share a scale in a quantized KV cache (64)."""
    quantized_kv_start: int | None = eb.option("--quantized-kv-start")
    """Tokens of a request that stay unquantized in the KV cache."""
    draft_model: str | None = eb.option("--draft-model")
    """Path of a smaller model that proposes tokens. Requests then run one at a time."""
    num_draft_tokens: int | None = eb.option("--num-draft-tokens")
    """Tokens that the draft model proposes at a time (3)."""


def server_flags(deployment: eb.Deployment, checkpoint: str, draft: str = "") -> list[str]:
    options = eb.options_as(MlxOptions, deployment)
    derived: dict[str, eb.JSON] = {
        "--prompt-concurrency": options.prompt_concurrency or min(PROMPTS_AT_ONCE, deployment.max_concurrency),
        "--prompt-cache-size": None if options.prefix_cache else 0,
        **({"--draft-model": draft, "--num-draft-tokens": asked.tokens} if (asked := deployment.speculation) is not None else {}),
    }
    first: dict[str, eb.JSON] = {"--model": checkpoint, "--decode-concurrency": deployment.max_concurrency}
    return eb.flags_of({**first, **eb.declared_flags(options), **derived})


class Mlx(eb.Adapter):
    name = "mlx"
    title = "MLX"
    # On macOS the extra asks for nothing; on Linux mlx has no backend without it.
    requirements = ("mlx-lm[cpu]==0.32.2",)
    checkpoint_format = "safetensors"
    casts = False
    precisions = frozenset(eb.TORCH_DTYPES) | AFFINE | MICROSCALED
    runtimes = ("process", "in-process")
    speculates = frozenset({"draft"})
    speculation_options = ("draft_model",)
    options = MlxOptions
    scores = eb.scoring.own_route()

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        return eb.Traits(gpus=1, takes_ids=deployment.runtime == "in-process")  # the server answers 404 to token ids

    def check(self, deployment: eb.Deployment) -> None:
        options, many, offline = eb.options_as(MlxOptions, deployment), deployment.max_concurrency, deployment.runtime == "in-process"
        asked = deployment.speculation
        serial = next((name for name in ("kv_bits", "draft_model") if getattr(options, name) is not None), "speculation" if asked else None)
        shaped = next((name for name in ("kv_group_size", "quantized_kv_start") if getattr(options, name) is not None), None)
        prompts = options.prompt_concurrency or 0
        eb.refuse(
            (deployment.parallelism != eb.Parallelism(), "MLX spreads a model over machines only: start mlx.launch, and attach to it"),
            (serial and offline, f"only mlx_lm.server has {serial}: batched generation in-process has none"),
            (serial and many > 1, f"with {serial} mlx_lm.server answers one request at a time: above concurrency 1 there is a queue"),
            (prompts > many, f"prompt_concurrency {prompts} is more than the {many} requests in flight: mlx-lm decodes as many"),
            (shaped and options.kv_bits is None, f"{shaped} shapes a quantized KV cache: it needs kv_bits"),
            (options.num_draft_tokens is not None and options.draft_model is None, "num_draft_tokens needs a draft_model"),
            (options.prompt_cache_bytes is not None and not options.prefix_cache, "prompt_cache_bytes needs prefix_cache: true"),
        )

    def tunables(self, deployment: eb.Deployment, room: eb.Room) -> Sequence[eb.Tunable]:
        at_once = tuple(n for n in (1, 2, 4, 8, 16, 32) if n <= room.streams)
        return (
            eb.Tunable("prompt_concurrency", at_once, min(PROMPTS_AT_ONCE, room.streams)),
            eb.Tunable("prefill_step_size", (128, 256, 512, 1024, 4096), default=2048),
            eb.Tunable("kv_bits", (4, 8), exact=False),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        return eb.find_package(python, "mlx-lm")

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        self.check(deployment)
        offline = deployment.runtime == "in-process"
        worker = (str(install.python), str(eb.WORKERS / "mlx_worker.py"), "offline" if offline else "serve")
        env = {"TOKENIZERS_PARALLELISM": "false"} | ({"HF_HUB_OFFLINE": "1"} if site.is_local else {})
        notes = eb.holding(
            (True, "tokens that end a sequence are generated and end nothing"),
            (not offline, "mlx-lm drops a space that begins an output"),
            (not offline, "sampled requests carry no seed: a seed would make the server answer them one by one"),
        )
        argv = (*worker, *server_flags(deployment, site.checkpoint, site.draft), *(() if offline else site.address))
        # The server loads another model when a request names another, so requests name this one as the command line does.
        return eb.Launch(argv, site.checkpoint, env=env, notes=notes)

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        # A seed takes the request out of the batch: the server then answers such requests one after another.
        return {"stream_options": {"include_usage": True}, "seed": None, **eb.NEUTRAL_SAMPLING}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        live = eb.Fields(get("/enginebench").json())
        if not live.value:
            return eb.Resolved()
        kept, kv_bits, dtype = live.whole("prompt_cache_size"), live.whole("kv_bits"), eb.from_torch(live.text("dtype"))
        return eb.Resolved(
            version=live.text("version"),
            model=live.text("model"),
            precision=_quantization(live) or dtype,
            context=live.whole("max_position_embeddings"),
            slots=live.whole("decode_concurrency") if live.flag("batchable") else 1,
            prefix_cache=None if kept is None else kept > 0,
            kv_dtype=f"{kv_bits}bit" if kv_bits else dtype if dtype in eb.TORCH_DTYPES else None,
            chunked_prefill=True,  # by prefill_step_size; batches of other requests run in between
            stream_interval=1,
            options=eb.reported_options(MlxOptions, live.at),
            raw={"/enginebench": live.value},
        )

    def counters(self, get: eb.Get) -> Mapping[str, float]:
        """What our worker counts of a draft model: mlx_lm.server has no counters."""
        counted = eb.as_object(get("/enginebench/counters").json())
        return {name: float(value) for name, value in counted.items() if isinstance(value, int)}


def _quantization(live: eb.Fields) -> str | None:
    """'4bit' for affine groups, else the mode ('mxfp4'), several joined by '+'; None for an unquantized model."""
    layers = [str(layer).split() for layer in eb.as_list(live.at("quantization"))]
    names = {f"{bits}bit" if mode == "affine" else mode for mode, bits, *_ in (words for words in layers if len(words) > 1)}
    return "+".join(sorted(names)) if layers else None
