"""llama.cpp's options: what a scenario may write, and the flags of llama-server and of llama-cpp-python's server that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import enginebench.adapter as eb

NOT_IN_PYTHON = (
    "cpu_moe", "n_cpu_moe", "tensor_overrides", "moe_cache_mib", "kv_type", "load_mode", "numa", "op_offload", "unified_kv",
    "prefix_cache", "devices", "split_mode", "tensor_split", "main_gpu", "mmproj",
)  # fmt: skip
"""Options without a flag in llama_cpp.server. Its slot always keeps the last prompt, which unique prompts never match."""

SPECULATION: Mapping[eb.SpeculationMethod, str] = {
    "draft": "draft-simple", "ngram": "ngram-simple", "mtp": "draft-mtp", "eagle3": "draft-eagle3",
}  # fmt: skip
"""Method of `speculation` -> llama.cpp's."""

SPARE_CONNECTIONS = 24
"""More than an open loop and what scrapes the server keep open. Each holds a thread of its HTTP server even when idle, and requests beyond
them wait until one is closed, after 5 s."""

Server = Literal["xllamacpp", "llama-server", "llama-cpp-python"]
KVType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


@dataclass(frozen=True)
class LlamaCppOptions:
    """Engine options; None leaves llama.cpp's default in place."""

    server: Server | None = None
    """Which server runs; None: xllamacpp, else llama-server, whichever is installed."""
    threads: int | None = eb.option("-t")
    """CPU threads for decode, and for prefill unless threads_batch is set."""
    threads_batch: int | None = eb.option("-tb")
    """CPU threads for prefill."""
    batch: int | None = eb.option("-b")
    """Logical batch: tokens per scheduling step."""
    ubatch: int | None = eb.option("-ub")
    """Physical batch: the prefill chunk. 2048 or more where experts are computed away from their weights."""
    flash_attention: bool | None = None
    """Flash attention on or off; None: the engine decides (-fa auto)."""
    gpu_layers: int | Literal["all", "auto"] = "all"
    """Layers whose weights go to the GPU (-ngl)."""
    cpu_moe: bool = False
    """Keep the routed experts of every layer in host memory (-cmoe)."""
    n_cpu_moe: int | None = eb.option("-ncmoe")
    """Keep the routed experts of the first N layers in host memory."""
    tensor_overrides: tuple[str, ...] = ()
    """Which tensors go where, each as 'pattern=buffer type' (-ot), e.g. ['blk\\.[0-9]\\.ffn_.*_exps=CPU']. Applied before cpu_moe."""
    split_mode: Literal["layer", "row", "tensor"] | None = None
    """How several GPUs share the model (-sm); None: by layer with pp, by row with tp. tensor is experimental, and needs tp too."""
    devices: tuple[str, ...] = ()
    """The devices by name (-dev), e.g. [CUDA0, CUDA1], as many as tp x pp; empty: the first ones. Only llama-server can choose."""
    tensor_split: tuple[float, ...] = ()
    """Share of the model for each GPU (-ts), as many as tp x pp; empty: the same for each."""
    main_gpu: int | None = None
    """The GPU for intermediate results and KV when layers are split by row (-mg)."""
    op_offload: bool | None = None
    """Compute large batches on the GPU even for weights in host memory; None: yes, unless gpu_layers is 0."""
    kv_offload: bool = True
    """KV cache on the GPU with its layer; off keeps it in host memory (-nkvo)."""
    moe_cache_mib: int | None = eb.option("--moe-cache-mib")
    """GPU cache for experts in host memory, MiB; only recent builds have the flag."""
    kv_type: KVType | None = eb.option("-ctk")
    """Element type of both K and V (-ctk, -ctv). A quantized one needs flash attention."""
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"] | None = eb.option("-lm")
    """How the file becomes weights: mapped, read, or read past the page cache. Only recent builds have the flag."""
    numa: Literal["distribute", "isolate", "numactl"] | None = eb.option("--numa")
    """Placement of threads on machines with several memory nodes."""
    cuda_graphs: bool = True
    """CUDA graphs where the build has them; off sets GGML_CUDA_DISABLE_GRAPHS."""
    unified_kv: bool = False
    """One KV pool shared by all slots instead of an equal part for each; a long request can then starve the others."""
    prefix_cache: bool = False
    """Let a prompt reuse the KV of an earlier one. Off: a repeated prompt is computed again, every time."""
    mmproj: str | None = None
    """The projector that lets the model see images (--mmproj), a GGUF file: its path, or its name in the folder of the checkpoint."""
    extra: tuple[str, ...] = ()
    """Further llama-server flags, passed through unchanged (e.g. ["--swa-full"]). The wheel xllamacpp has no parser of its own: there our
    worker reads those that docs/speculation.md lists, and names the flag that it does not know."""

    @property
    def offloads(self) -> bool:
        """Whether a GPU takes part at all. Without weights on it, it still computes large batches unless op_offload is off."""
        return self.gpu_layers != 0 or self.op_offload is True


def server_flags(deployment: eb.Deployment, options: LlamaCppOptions, checkpoint: str, draft: str = "") -> list[str]:
    slots = deployment.max_concurrency
    # -c is the total over all slots. Without -np the server takes 4 slots and one unified pool, whatever the load needs, and
    # without `-fit off` it silently lowers context or offload until the model fits.
    flags = ["-m", checkpoint, "-a", deployment.model, "-c", str(slots * deployment.max_context), "-np", str(slots)]
    flags += ["--threads-http", str(slots + SPARE_CONNECTIONS)]
    flags += ["--kv-unified" if options.unified_kv else "--no-kv-unified", "-fit", "off", "--metrics", "--offline"]
    if not options.prefix_cache:
        flags += ["--no-cache-prompt", "--cache-ram", "0"]  # two caches: the slots' KV, and finished prompts in host RAM
    flags += _projector(options, checkpoint)
    flags += ["--no-slots"] if options.unified_kv else []  # each slot would report the whole pool as its own
    flags += ["-ngl", str(options.gpu_layers), *_placement(deployment, options)]
    if options.flash_attention is not None:
        flags += ["-fa", "on" if options.flash_attention else "off"]
    flags += [word for override in options.tensor_overrides for word in ("-ot", override)]
    flags += ["-cmoe"] if options.cpu_moe else []
    order = dict.fromkeys(("-t", "-tb", "-b", "-ub", "-ncmoe", "--moe-cache-mib", "-ctk", "-ctv"))
    flags += [
        *eb.flags_of({**order, **eb.declared_flags(options), "-ctv": options.kv_type}),
        *speculation_flags(deployment.speculation, draft),
    ]
    return [*flags, *options.extra]


def _projector(options: LlamaCppOptions, checkpoint: str) -> list[str]:
    """It is computed on the GPU if the model is."""
    if options.mmproj is None:
        return []
    file = str(Path(checkpoint).parent / options.mmproj)  # an absolute path stays as it is
    return ["--mmproj", file, *([] if options.offloads else ["--no-mmproj-offload"])]


def speculation_flags(asked: eb.Speculation | None, draft: str) -> list[str]:
    """llama-server's flags. A draft always has as many tokens as were asked for: llama.cpp's default ends it at an unlikely one."""
    if asked is None:
        return []
    values: dict[str, eb.JSON] = {
        "--spec-type": SPECULATION[asked.method],
        "--spec-draft-model": draft or None,
        "--spec-draft-n-max": asked.tokens,
        "--spec-draft-p-min": 0 if asked.method != "ngram" else None,
        "--spec-ngram-simple-size-n": asked.match,
        "--spec-ngram-simple-size-m": asked.tokens if asked.method == "ngram" else None,
        "--spec-synth-rates": ",".join(f"{rate:.6g}" for rate in asked.rates) if asked.acceptance is not None else None,
    }
    return eb.flags_of(values)


def _placement(deployment: eb.Deployment, options: LlamaCppOptions) -> list[str]:
    """Which GPUs are used, and how. Always explicit: llama.cpp's default is every GPU it sees."""
    if not options.offloads:
        return ["--no-op-offload"]
    spread = deployment.parallelism
    gpus = spread.tp * spread.pp
    flags = ["-sm", options.split_mode or ("row" if spread.tp > 1 else "layer")] if gpus > 1 else []
    # A GPU without a share is not used. Devices by name leave out all others already.
    shares = options.tensor_split or ((1,) * gpus if not options.devices else ())
    flags += ["-ts", ",".join(f"{share:g}" for share in shares)] if shares else []
    flags += ["-dev", ",".join(options.devices)] if options.devices else []
    flags += ["-mg", str(options.main_gpu)] if options.main_gpu is not None else []
    flags += ["--no-op-offload"] if options.op_offload is False else []
    return flags if options.kv_offload else [*flags, "-nkvo"]


def python_server_flags(deployment: eb.Deployment, options: LlamaCppOptions, checkpoint: str) -> list[str]:
    """llama_cpp.server's flags for everything but the address. Its defaults are no GPU layers and all logits kept."""
    asked = deployment.speculation
    valued: Mapping[str, eb.JSON] = {
        "--model": checkpoint,
        "--model_alias": deployment.model,
        "--n_ctx": deployment.max_context,
        "--n_gpu_layers": -1 if isinstance(options.gpu_layers, str) else options.gpu_layers,
        "--logits_all": "false",
        "--offload_kqv": str(options.kv_offload).lower(),
        "--n_threads": options.threads,
        "--n_threads_batch": options.threads_batch,
        "--n_batch": options.batch,
        "--n_ubatch": options.ubatch,
        "--flash_attn": None if options.flash_attention is None else str(options.flash_attention).lower(),
        **({} if asked is None else {"--draft_model": "prompt-lookup-decoding", "--draft_model_num_pred_tokens": asked.tokens}),
    }
    return [*eb.flags_of(valued), *options.extra]
