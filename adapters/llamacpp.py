"""llama.cpp: its C++ server, from the xllamacpp wheel, a llama-server binary, or llama-cpp-python (server and in-process).

The three are one engine at different builds and with different doors, so the variant and its version belong beside every
figure. The flags are those of llama-server; our worker gives the wheel the same ones. Metal and CUDA need no flag of their own:
knows nothing of what a build was compiled for, and a CPU-only build accepts -ngl all and offloads nothing.

pp is llama.cpp's split by layer, tp its split of each layer by rows or as a tensor. Not yet run on a GPU (CUDA or Metal): every spread
over devices, and every placement of experts between a GPU and the host, is known to be accepted by a CPU build and no more.
llama-cpp-python (0.3.36, seen on a CPU) is never chosen unasked: its server has no /health, no /metrics, no usage in its streams (so
nothing proves the token counts), text prompts only and one request at a time. In-process it takes ids and forces the length, one sequence
at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from enginebench.adapter import (
    JSON,
    WORKERS,
    Adapter,
    Deployment,
    Get,
    Install,
    Launch,
    Load,
    NotInstalled,
    Parallelism,
    Readiness,
    Resolved,
    Site,
    Unsupported,
    as_object,
    flags_of,
    installed_version,
    only,
    options_as,
    prometheus_totals,
)

COUNTERS: Mapping[str, str] = {
    "prompt_tokens": "llamacpp:prompt_tokens_total",
    "cached_tokens": "llamacpp:prompt_tokens_cached_total",
    "output_tokens": "llamacpp:tokens_predicted_total",
    "draft_tokens": "llamacpp:spec_decode_num_draft_tokens_total",
    "accepted_tokens": "llamacpp:spec_decode_num_accepted_tokens_total",
    "running": "llamacpp:requests_processing",
    "waiting": "llamacpp:requests_deferred",
}
"""Neutral name -> llama-server's; a slot never loses its KV to another, so there are no preemptions to count."""

NOT_IN_PYTHON = (
    "cpu_moe", "n_cpu_moe", "tensor_overrides", "moe_cache_mib", "kv_type", "load_mode", "numa", "op_offload", "unified_kv",
    "prefix_cache", "devices", "split_mode", "tensor_split", "main_gpu",
)  # fmt: skip
"""Options without a flag in llama_cpp.server; its slot always keeps the last prompt, which the load's unique prompts do not meet."""

Server = Literal["xllamacpp", "llama-server", "llama-cpp-python"]
KVType = Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"]


PLAIN = frozenset({"f32", "f16", "bf16", "mxfp4", "nvfp4", "tq1_0", "tq2_0"})
LEGACY = frozenset({"q8_0", "q5_1", "q5_0", "q4_1", "q4_0"})
K_QUANTS = frozenset({"q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k", "q2_k_s"})
I_QUANTS = frozenset({"iq4_nl", "iq4_xs", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s"})


@dataclass(frozen=True)
class LlamaCppOptions:
    """Engine options; None leaves llama.cpp's own default."""

    server: Server | None = None
    """Which server runs; None: xllamacpp, else llama-server, whichever is found first."""
    threads: int | None = None
    """CPU threads for decode, and for prefill unless threads_batch says otherwise (-t)."""
    threads_batch: int | None = None
    """CPU threads for prefill (-tb)."""
    batch: int | None = None
    """Logical batch: tokens per scheduling step (-b)."""
    ubatch: int | None = None
    """Physical batch: the prefill chunk (-ub). 2048 or more where experts are computed away from their weights."""
    flash_attention: bool | None = None
    """Flash attention on or off; None: the engine decides (-fa auto)."""
    gpu_layers: int | Literal["all", "auto"] = "all"
    """Layers whose weights go to the GPU (-ngl)."""
    cpu_moe: bool = False
    """Keep the routed experts of every layer in host memory (-cmoe)."""
    n_cpu_moe: int | None = None
    """Keep the routed experts of the first N layers in host memory (-ncmoe)."""
    tensor_overrides: tuple[str, ...] = ()
    """Which tensors go where, each as 'pattern=buffer type' (-ot), e.g. ['blk\\.[0-9]\\.ffn_.*_exps=CPU']. Come before cpu_moe."""
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
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"] | None = None
    """How the file becomes weights (-lm): mapped, read, or read past the page cache. Only recent builds know the flag."""
    numa: Literal["distribute", "isolate", "numactl"] | None = None
    """Placement of threads on machines with several memory nodes."""
    cuda_graphs: bool = True
    """CUDA graphs where the build has them; off sets GGML_CUDA_DISABLE_GRAPHS."""
    moe_cache_mib: int | None = None
    """GPU cache for host-side experts, MiB (--moe-cache-mib); only recent builds know the flag."""
    kv_type: KVType | None = None
    """Element type of both K and V (-ctk, -ctv). A quantised one needs flash attention."""
    unified_kv: bool = False
    """One KV pool shared by all slots instead of an equal part for each; a long request can then starve the others."""
    prefix_cache: bool = False
    """Let a prompt reuse the KV of an earlier one. Off: a repeated prompt is computed again, every time."""
    extra: tuple[str, ...] = ()
    """Further llama-server flags, passed through as they are (e.g. ["--swa-full"])."""


def server_flags(deployment: Deployment, options: LlamaCppOptions, checkpoint: str) -> list[str]:
    """llama-server's flags for everything but the address."""
    slots = deployment.max_concurrency
    # -c is the total over all slots. Without -np the server takes 4 slots and one unified pool, whatever the load needs, and
    # without `-fit off` it lowers context or offload silently until the model fits.
    flags = ["-m", checkpoint, "-a", deployment.model, "-c", str(slots * deployment.max_context), "-np", str(slots)]
    flags += ["--kv-unified" if options.unified_kv else "--no-kv-unified", "-fit", "off", "--metrics", "--offline"]
    if not options.prefix_cache:
        flags += ["--no-cache-prompt", "--cache-ram", "0"]  # two caches: the slots' KV, and finished prompts in host RAM
    flags += ["--no-slots"] if options.unified_kv else []  # each slot then reports the whole pool as its own
    flags += ["-ngl", str(options.gpu_layers), *_placement(deployment, options)]
    if options.flash_attention is not None:
        flags += ["-fa", "on" if options.flash_attention else "off"]
    flags += [word for override in options.tensor_overrides for word in ("-ot", override)]
    flags += ["-cmoe"] if options.cpu_moe else []
    valued: Mapping[str, int | str | None] = {
        "-t": options.threads,
        "-tb": options.threads_batch,
        "-b": options.batch,
        "-ub": options.ubatch,
        "-ncmoe": options.n_cpu_moe,
        "--moe-cache-mib": options.moe_cache_mib,
        "-ctk": options.kv_type,
        "-ctv": options.kv_type,
        "-lm": options.load_mode,
        "--numa": options.numa,
    }
    return [*flags, *flags_of(valued), *options.extra]


def _placement(deployment: Deployment, options: LlamaCppOptions) -> list[str]:
    """Which GPUs take part, and how. Always said: llama.cpp's default is every GPU it sees."""
    if not offloads(options):
        return ["--no-op-offload"]
    spread = deployment.parallelism
    gpus = spread.tp * spread.pp
    flags = ["-sm", options.split_mode or ("row" if spread.tp > 1 else "layer")] if gpus > 1 else []
    # A share of nothing keeps a GPU out; with devices by name there is nobody left to keep out.
    shares = options.tensor_split or ((1,) * gpus if not options.devices else ())
    flags += ["-ts", ",".join(f"{share:g}" for share in shares)] if shares else []
    flags += ["-dev", ",".join(options.devices)] if options.devices else []
    flags += ["-mg", str(options.main_gpu)] if options.main_gpu is not None else []
    flags += ["--no-op-offload"] if options.op_offload is False else []
    return flags if options.kv_offload else [*flags, "-nkvo"]


def offloads(options: LlamaCppOptions) -> bool:
    """Whether a GPU takes part at all. Without weights on it, it still computes large batches unless told not to."""
    return options.gpu_layers != 0 or options.op_offload is True


def python_server_flags(deployment: Deployment, options: LlamaCppOptions, checkpoint: str) -> list[str]:
    """llama_cpp.server's flags for everything but the address. Its defaults are hostile: no GPU layers, all logits kept."""
    layers = -1 if isinstance(options.gpu_layers, str) else options.gpu_layers
    flags = ["--model", checkpoint, "--model_alias", deployment.model, "--n_ctx", str(deployment.max_context)]
    flags += ["--n_gpu_layers", str(layers), "--logits_all", "false", "--offload_kqv", str(options.kv_offload).lower()]
    valued: Mapping[str, int | str | None] = {
        "--n_threads": options.threads,
        "--n_threads_batch": options.threads_batch,
        "--n_batch": options.batch,
        "--n_ubatch": options.ubatch,
        "--flash_attn": None if options.flash_attention is None else str(options.flash_attention).lower(),
    }
    return [*flags, *flags_of(valued), *options.extra]


class LlamaCpp(Adapter):
    name = "llamacpp"
    title = "llama.cpp"
    requirements = ("xllamacpp==2026.10.11549",)
    variants: ClassVar[Mapping[str, tuple[str, ...]]] = {"python": ("llama-cpp-python[server]==0.3.36",)}
    checkpoint_format = "gguf"
    precisions = PLAIN | LEGACY | K_QUANTS | I_QUANTS
    runtimes = ("process", "in-process")
    apis = ("completions", "chat")
    options = LlamaCppOptions

    def find(self, python: Path | None) -> Sequence[Install]:
        found: list[Install] = []
        if python is not None and (version := installed_version(python, "xllamacpp")):
            found.append(Install("xllamacpp", version, python=python))
        if binary := shutil.which("llama-server"):
            # The binary tells its build only when it runs; the server's /props says it once it is up.
            found.append(Install("llama-server", "unknown", binary=Path(binary)))
        if python is not None and (version := installed_version(python, "llama-cpp-python")):
            found.append(Install("llama-cpp-python", version, python=python))
        return found

    def choose(self, deployment: Deployment, installs: Sequence[Install]) -> Install:
        options = options_as(LlamaCppOptions, deployment)
        wanted: tuple[str, ...] = ("xllamacpp", "llama-server") if deployment.runtime == "process" else ("xllamacpp",)
        if options.devices:
            wanted = ("llama-server",)
        wanted = (options.server,) if options.server else wanted
        usable = [install for install in installs if install.variant in wanted]
        if not usable:
            raise NotInstalled(f"{self.title}: {' or '.join(wanted)} is not installed here")
        return usable[0]

    def forces_length(self, deployment: Deployment) -> bool:
        return self.takes_ids(deployment)  # llama-cpp-python's server has neither ids nor ignore_eos

    def takes_ids(self, deployment: Deployment) -> bool:
        return deployment.runtime == "in-process" or options_as(LlamaCppOptions, deployment).server != "llama-cpp-python"

    def check(self, deployment: Deployment) -> None:
        options = options_as(LlamaCppOptions, deployment)
        _check_spread(deployment.parallelism, options)
        _check_overrides(options)
        if options.flash_attention is False and options.kv_type not in (None, "f32", "f16", "bf16"):
            raise Unsupported(f"a {options.kv_type} V cache needs flash attention, which is switched off")
        if deployment.runtime == "in-process" and options.server == "llama-server":
            raise Unsupported("llama-server is a program of its own: xllamacpp and llama-cpp-python run in-process")
        if options.devices and (deployment.runtime == "in-process" or options.server not in (None, "llama-server")):
            raise Unsupported("only llama-server can choose devices by name; elsewhere set CUDA_VISIBLE_DEVICES")
        if options.server == "llama-cpp-python":
            _check_python(deployment, options)

    def gpus(self, deployment: Deployment) -> int:
        return super().gpus(deployment) if offloads(options_as(LlamaCppOptions, deployment)) else 0

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        options, offline = options_as(LlamaCppOptions, deployment), deployment.runtime == "in-process"
        if options.server not in (None, install.variant):
            raise Unsupported(f"the scenario asks for {options.server}, found was {install.variant}")
        env = {} if options.cuda_graphs else {"GGML_CUDA_DISABLE_GRAPHS": "1"}  # only its presence counts
        address = () if offline else ("--host", site.host, "--port", str(site.port))
        if install.variant == "llama-cpp-python":
            program = (str(WORKERS / "llamacpp_python_worker.py"),) if offline else ("-m", "llama_cpp.server")
            argv = (str(install.python), *program, *address, *python_server_flags(deployment, options, site.checkpoint))
            notes = () if offline else ("llama-cpp-python neither reports token counts nor forces a length",)
            return Launch(argv, deployment.model, env=env, notes=notes)
        flags = server_flags(deployment, options, site.checkpoint)
        notes = ("all slots share one KV pool",) if options.unified_kv else ()
        if install.variant == "llama-server":
            return Launch((str(install.binary), *address, *flags), deployment.model, env=env, notes=notes)
        worker = (str(install.python), str(WORKERS / "llamacpp_worker.py"), "offline" if offline else "serve")
        return Launch((*worker, *address, *flags), deployment.model, env=env, notes=notes)

    def readiness(self, get: Get) -> Readiness:
        # 503 "Loading model", then 200. llama-cpp-python has no /health: it listens only once the model is loaded.
        status = get("/health").status
        if status == 404:
            status = get("/v1/models").status
        return "ready" if status == 200 else "loading" if status in (0, 503) else "broken"

    def resolved(self, get: Get) -> Resolved:
        replies = {path: get(path).json() for path in ("/props", "/slots", "/v1/models")}
        props, slots = as_object(replies["/props"]), _slots(replies["/slots"])
        build, ftype = props.get("build_info"), props.get("model_ftype")
        each = only(int, as_object(props.get("default_generation_settings")).get("n_ctx"))
        return Resolved(
            version=build if isinstance(build, str) and build != "b0-unknown" else None,  # a wheel built outside git
            model=only(str, props.get("model_alias")),
            precision=precision(ftype) if isinstance(ftype, str) else None,
            context=each,
            slots=only(int, props.get("total_slots")),
            kv_tokens=sum(size for size, _ in slots) or each,  # without /slots the pool is one, and every slot may fill it
            chunked_prefill=True if props else None,  # it has no other way: a prompt goes through in batches of -b
            stream_interval=1 if props else None,  # nor here: an event per token
            raw=replies,
        )

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        # The server's own sampling defaults (top_k 40, top_p 0.95, min_p 0.05) would be another experiment.
        reuse = options_as(LlamaCppOptions, deployment).prefix_cache and load.prefix_cache == "allowed"
        return {
            "ignore_eos": True,
            "cache_prompt": reuse,
            "stream_options": {"include_usage": True},
            "top_k": 0,
            "top_p": 1.0,
            "min_p": 0.0,
        }

    def counters(self, get: Get) -> Mapping[str, float]:
        totals = prometheus_totals(get("/metrics").body.decode(errors="replace"))
        told = {ours: totals[theirs] for ours, theirs in COUNTERS.items() if theirs in totals}
        if "prompt_tokens" not in told:
            return {}
        told["prompt_tokens"] += told.get("cached_tokens", 0.0)  # llama.cpp leaves cached tokens out of the prompts'
        slots = _slots(get("/slots").json())
        return told | ({"kv_use": sum(held for _, held in slots) / sum(size for size, _ in slots)} if slots else {})


def _check_spread(spread: Parallelism, options: LlamaCppOptions) -> None:
    """llama.cpp spreads one model over the GPUs of one process, in one of its split modes. Raises Unsupported."""
    gpus, mode = spread.tp * spread.pp, options.split_mode
    if spread.dp_replicas > 1 or spread.attention_dp > 1:
        raise Unsupported("llama.cpp has no data parallelism: its slots share one copy of the model")
    if spread.ep > 1:
        raise Unsupported("llama.cpp has no expert parallelism: its GPUs share every expert by row (tp), or hold whole layers (pp)")
    if spread.tp > 1 and spread.pp > 1:
        raise Unsupported("llama.cpp splits by layer (pp) or within layers (tp), not both at once")
    if mode is not None and (gpus == 1 or (mode == "layer") != (spread.pp > 1)):
        raise Unsupported(f"split_mode {mode} needs {'pp' if mode == 'layer' else 'tp'} to say over how many GPUs, and no other spread")
    if gpus > 1 and not offloads(options):
        raise Unsupported("gpu_layers 0 keeps the model off the GPUs, so there is nothing to spread over them")
    for name, given in (("devices", options.devices), ("tensor_split", options.tensor_split)):
        if given and len(given) != gpus:
            raise Unsupported(f"{name} names {len(given)}, but tp x pp is {gpus}")
    if options.main_gpu is not None and not 0 <= options.main_gpu < gpus:
        raise Unsupported(f"main_gpu {options.main_gpu} is none of the {gpus} (tp x pp), counted from 0")


def _check_overrides(options: LlamaCppOptions) -> None:
    if options.cpu_moe and options.n_cpu_moe is not None:
        raise Unsupported("cpu_moe keeps every layer's experts in host memory, so n_cpu_moe has nothing left to say")
    for override in options.tensor_overrides:
        if "," in override or "=" not in override:
            raise Unsupported(f"tensor_overrides: '{override}' is not one 'pattern=buffer type'; llama.cpp splits at every comma")


def _check_python(deployment: Deployment, options: LlamaCppOptions) -> None:
    if deployment.max_concurrency > 1:
        raise Unsupported("llama-cpp-python answers one request at a time: above concurrency 1 it would measure a queue")
    spread = deployment.parallelism
    if spread.tp * spread.pp > 1:
        raise Unsupported("llama-cpp-python is run on one GPU here; xllamacpp and llama-server spread over several")
    refused = [name for name in NOT_IN_PYTHON if getattr(options, name) != getattr(LlamaCppOptions(), name)]
    if refused:
        raise Unsupported(f"llama-cpp-python has no flag for {', '.join(refused)}")


def precision(ftype: str) -> str:
    """llama.cpp's name of a file type as a precision: 'Q4_K - Medium' -> q4_k_m, 'all F32' -> f32, 'MXFP4 MoE' -> mxfp4."""
    head, _, tail = ftype.removeprefix("(guessed) ").removeprefix("all ").lower().partition(" - ")
    name = head.split()[0] if head.split() else ftype
    size = {"small": "_s", "medium": "_m", "large": "_l"}.get(tail, "")
    return "q2_k" if (name, size) == ("q2_k", "_m") else name + size  # Q2_K has no sizes, yet calls itself medium


def _slots(value: JSON) -> list[tuple[int, int]]:
    """(tokens it can hold, tokens of the request it works on) for each slot of /slots; [] when that is no list of slots."""
    slots = [as_object(each) for each in value] if isinstance(value, list) else []
    sizes = [only(int, slot.get("n_ctx")) for slot in slots]
    held = [(only(int, slot.get("n_prompt_tokens")) or 0) if slot.get("is_processing") is True else 0 for slot in slots]
    return [(size, tokens) for size, tokens in zip(sizes, held, strict=True) if size]
