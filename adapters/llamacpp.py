"""llama.cpp: its C++ server, from the xllamacpp wheel, a llama-server binary, or llama-cpp-python's server.

The three are one engine at different builds and with different doors, so the variant and its version belong beside every
figure. The flags are those of llama-server; our worker gives the wheel the same ones. Knows nothing of what a build was
compiled for: a CPU-only build accepts -ngl all and offloads nothing.

Unverified, because only read in its documentation: everything about llama-cpp-python. It is never chosen unasked: no /health,
no /metrics, no usage in its streams (so nothing proves the token counts), text prompts only, one request at a time.
"""

from __future__ import annotations

import shutil
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
    NotInstalled,
    Readiness,
    Resolved,
    Site,
    Unsupported,
    installed_version,
    options_as,
    prometheus_totals,
)

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
    moe_cache_mib: int | None = None
    """GPU cache for host-side experts, MiB (--moe-cache-mib); only recent builds know the flag."""
    kv_type: KVType | None = None
    """Element type of both K and V (-ctk, -ctv). A quantised one needs flash attention."""
    unified_kv: bool = False
    """One KV pool shared by all slots instead of an equal part for each; a long request can then starve the others."""
    prefix_cache: bool = False
    """Let a prompt reuse the KV of an earlier one. Off: a repeated prompt is computed again, every time."""
    extra: tuple[str, ...] = ()
    """Further llama-server flags, passed through as they are (e.g. ["-sm", "row", "-ot", "..."])."""


def server_flags(deployment: Deployment, options: LlamaCppOptions, checkpoint: str) -> list[str]:
    """llama-server's flags for everything but the address."""
    slots = deployment.max_concurrency
    # -c is the total over all slots. Without -np the server takes 4 slots and one unified pool, whatever the load needs, and
    # without `-fit off` it lowers context or offload silently until the model fits.
    flags = ["-m", checkpoint, "-a", deployment.model, "-c", str(slots * deployment.max_context), "-np", str(slots)]
    flags += ["--kv-unified" if options.unified_kv else "--no-kv-unified", "-fit", "off", "--metrics", "--offline"]
    if not options.prefix_cache:
        flags += ["--no-cache-prompt", "--cache-ram", "0"]  # two caches: the slots' KV, and finished prompts in host RAM
    flags += ["-ngl", str(options.gpu_layers)]
    if options.flash_attention is not None:
        flags += ["-fa", "on" if options.flash_attention else "off"]
    if options.cpu_moe:
        flags += ["-cmoe"]
    valued: Mapping[str, int | str | None] = {
        "-t": options.threads,
        "-tb": options.threads_batch,
        "-b": options.batch,
        "-ub": options.ubatch,
        "-ncmoe": options.n_cpu_moe,
        "--moe-cache-mib": options.moe_cache_mib,
        "-ctk": options.kv_type,
        "-ctv": options.kv_type,
    }
    for flag, value in valued.items():
        if value is not None:
            flags += [flag, str(value)]
    return [*flags, *options.extra]


def python_server_flags(deployment: Deployment, options: LlamaCppOptions, checkpoint: str) -> list[str]:
    """llama_cpp.server's flags for everything but the address. Its defaults are hostile: no GPU layers, all logits kept."""
    layers = -1 if isinstance(options.gpu_layers, str) else options.gpu_layers
    flags = ["--model", checkpoint, "--model_alias", deployment.model, "--n_ctx", str(deployment.max_context)]
    flags += ["--n_gpu_layers", str(layers), "--logits_all", "false"]
    valued: Mapping[str, int | str | None] = {
        "--n_threads": options.threads,
        "--n_threads_batch": options.threads_batch,
        "--n_batch": options.batch,
        "--n_ubatch": options.ubatch,
        "--flash_attn": None if options.flash_attention is None else str(options.flash_attention).lower(),
    }
    for flag, value in valued.items():
        if value is not None:
            flags += [flag, str(value)]
    return [*flags, *options.extra]


class LlamaCpp(Adapter):
    name = "llamacpp"
    title = "llama.cpp"
    requirements = ("xllamacpp==2026.10.11549",)
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
        asked = options_as(LlamaCppOptions, deployment).server
        wanted = ("xllamacpp",) if deployment.runtime == "in-process" else (asked,) if asked else ("xllamacpp", "llama-server")
        usable = [install for install in installs if install.variant in wanted]
        if not usable:
            raise NotInstalled(f"{self.title}: {' or '.join(wanted)} is not installed here")
        return usable[0]

    def forces_length(self, deployment: Deployment) -> bool:
        return self.takes_ids(deployment)  # llama-cpp-python has neither ids nor ignore_eos

    def takes_ids(self, deployment: Deployment) -> bool:
        return options_as(LlamaCppOptions, deployment).server != "llama-cpp-python"

    def check(self, deployment: Deployment) -> None:
        super().check(deployment)
        options = options_as(LlamaCppOptions, deployment)
        if options.cpu_moe and options.n_cpu_moe is not None:
            raise Unsupported("cpu_moe keeps every layer's experts in host memory, so n_cpu_moe has nothing left to say")
        if options.flash_attention is False and options.kv_type not in (None, "f32", "f16", "bf16"):
            raise Unsupported(f"a {options.kv_type} V cache needs flash attention, which is switched off")
        if deployment.runtime == "in-process" and options.server not in (None, "xllamacpp"):
            raise Unsupported(f"only xllamacpp runs in-process, not {options.server}")
        if options.server == "llama-cpp-python":
            _check_python_server(deployment, options)

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        options = options_as(LlamaCppOptions, deployment)
        if options.server not in (None, install.variant):
            raise Unsupported(f"the scenario asks for {options.server}, found was {install.variant}")
        address = ("--host", site.host, "--port", str(site.port))
        if install.variant == "llama-cpp-python":
            argv = (str(install.python), "-m", "llama_cpp.server", *address, *python_server_flags(deployment, options, site.checkpoint))
            return Launch(argv, deployment.model, notes=("llama-cpp-python neither reports token counts nor forces a length",))
        flags = server_flags(deployment, options, site.checkpoint)
        notes = ("all slots share one KV pool",) if options.unified_kv else ()
        if install.variant == "llama-server":
            return Launch((str(install.binary), *address, *flags), deployment.model, notes=notes)
        worker = (str(install.python), str(WORKERS / "llamacpp_worker.py"))
        argv = (*worker, "offline", *flags) if deployment.runtime == "in-process" else (*worker, "serve", *address, *flags)
        return Launch(argv, deployment.model, notes=notes)

    def readiness(self, get: Get) -> Readiness:
        # 503 "Loading model", then 200. llama-cpp-python has no /health: it listens only once the model is loaded.
        status = get("/health").status
        if status == 404:
            status = get("/v1/models").status
        return "ready" if status == 200 else "loading" if status in (0, 503) else "broken"

    def resolved(self, get: Get) -> Resolved:
        replies = {path: get(path).json() for path in ("/props", "/slots", "/v1/models")}
        props, slots = _object(replies["/props"]), replies["/slots"]
        first = _object(slots[0]) if isinstance(slots, list) and slots else {}
        build, ftype = props.get("build_info"), props.get("model_ftype")
        return Resolved(
            version=build if isinstance(build, str) and build != "b0-unknown" else None,  # a wheel built outside git
            model=_text(props.get("model_alias")),
            precision=precision(ftype) if isinstance(ftype, str) else None,
            context=_count(first.get("n_ctx")),
            slots=_count(props.get("total_slots")),
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
        computed, cached = totals.get("llamacpp:prompt_tokens_total"), totals.get("llamacpp:prompt_tokens_cached_total", 0.0)
        if computed is None:
            return {}
        # prompt_tokens_total leaves cached tokens out; the neutral name counts every token of every prompt.
        return {
            "prompt_tokens": computed + cached,
            "cached_tokens": cached,
            "output_tokens": totals.get("llamacpp:tokens_predicted_total", 0.0),
        }


def _check_python_server(deployment: Deployment, options: LlamaCppOptions) -> None:
    if deployment.max_concurrency > 1:
        raise Unsupported("llama-cpp-python answers one request at a time: above concurrency 1 it would measure a queue")
    refused = [name for name in ("cpu_moe", "n_cpu_moe", "moe_cache_mib", "kv_type") if getattr(options, name)]
    if refused:
        raise Unsupported(f"llama-cpp-python's server has no flag for {', '.join(refused)}")


def precision(ftype: str) -> str:
    """llama.cpp's name of a file type as a precision: 'Q4_K - Medium' -> q4_k_m, 'all F32' -> f32, 'MXFP4 MoE' -> mxfp4."""
    head, _, tail = ftype.removeprefix("(guessed) ").removeprefix("all ").lower().partition(" - ")
    name = head.split()[0] if head.split() else ftype
    size = {"small": "_s", "medium": "_m", "large": "_l"}.get(tail, "")
    return "q2_k" if (name, size) == ("q2_k", "_m") else name + size  # Q2_K has no sizes, yet calls itself medium


def _object(value: JSON) -> dict[str, JSON]:
    return value if isinstance(value, dict) else {}


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: JSON) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
