"""Ollama: `ollama serve` with a store of its own, the model made from the scenario's GGUF, loaded and kept before it counts as ready.

Ollama is a manager: it starts one llama.cpp server per model and passes requests on, so a cell of it beside one of llama.cpp compares
defaults and a hop more than two engines. It is configured by environment; the model comes in over its API, which our worker does
after the start. Knows nothing of which slots Ollama grants: for some families (qwen3vl, qwen3next, lfm2, nemotron_h and kin) it runs
one request at a time whatever it is told, and does not say so.

Not yet run, on a GPU or without: everything here was read in the source of 0.33.0-rc2, and tried against a stand-in for its API only.
LLAMA_ARG_* variables (cpu_moe, n_cpu_moe, override_tensor, fit) reach llama.cpp because Ollama hands its environment on and gives no such
flag itself.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from enginebench.adapter import (
    JSON,
    PROTOCOLS,
    WORKERS,
    Adapter,
    Deployment,
    Dialect,
    Get,
    Install,
    Launch,
    Load,
    Parallelism,
    Readiness,
    Resolved,
    Site,
    Unsupported,
    only,
    options_as,
)

READY = "enginebench-ready"
"""The worker gives the model this second name once everything is loaded: what /api/tags then lists is a sign that outlives the worker."""

PLAN = "ollama.json"
PLAIN = frozenset({"f32", "f16", "bf16", "mxfp4", "nvfp4", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"})
K_QUANTS = frozenset({"q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k", "q2_k_s"})
I_QUANTS = frozenset({"iq4_nl", "iq4_xs", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s"})


@dataclass(frozen=True)
class OllamaOptions:
    """Engine options; None leaves Ollama's own default."""

    also: tuple[str, ...] = ()
    """Absolute paths of further GGUF files that stay loaded beside the model (OLLAMA_MAX_LOADED_MODELS); they get no requests."""
    flash_attention: bool | None = None
    """Flash attention on or off (OLLAMA_FLASH_ATTENTION); None: where the device has it."""
    kv_type: Literal["f16", "q8_0", "q4_0"] | None = None
    """Element type of K and V (OLLAMA_KV_CACHE_TYPE). A quantised one needs flash attention."""
    threads: int | None = None
    """CPU threads (num_thread)."""
    batch: int | None = None
    """Tokens of one forward pass in prefill (num_batch, 512)."""
    gpu_layers: int | None = None
    """Layers whose weights go to the GPU (num_gpu); None: as many as fit."""
    main_gpu: int | None = None
    """The one GPU to use (main_gpu)."""
    mmap: bool | None = None
    """Map the weights from the file instead of reading them (use_mmap)."""
    spread: bool = False
    """Spread the layers over all GPUs even where one would do (OLLAMA_SCHED_SPREAD)."""
    gpu_overhead: int | None = None
    """Bytes per GPU to leave alone (OLLAMA_GPU_OVERHEAD)."""
    cpu_moe: bool = False
    """Keep the routed experts of every layer in host memory (LLAMA_ARG_CPU_MOE)."""
    n_cpu_moe: int | None = None
    """Keep the routed experts of the first N layers in host memory (LLAMA_ARG_N_CPU_MOE)."""
    override_tensor: str | None = None
    """Which tensors go where, as 'pattern=buffer type,...' (LLAMA_ARG_OVERRIDE_TENSOR)."""
    fit: bool | None = None
    """Let llama.cpp choose what was left open so that the model fits (LLAMA_ARG_FIT); it does by default."""


class Ollama(Adapter):
    name = "ollama"
    title = "Ollama"
    checkpoint_format = "gguf"
    precisions = PLAIN | K_QUANTS | I_QUANTS
    apis = ("completions", "chat")
    options = OllamaOptions
    prompt_form = "text"
    length_control = "cap"

    def find(self, python: Path | None) -> Sequence[Install]:
        binary = shutil.which("ollama")
        # The worker needs no engine beside it, so any Python will do: ours.
        return [Install("ollama", "unknown", python=Path(sys.executable), binary=Path(binary))] if binary else []

    def check(self, deployment: Deployment) -> None:
        if deployment.parallelism != Parallelism():
            raise Unsupported(
                "Ollama has no tensor, pipeline, data or expert parallelism to ask for: "
                "it puts whole layers on the GPUs it finds, on all of them with the option spread"
            )
        options = options_as(OllamaOptions, deployment)
        if options.cpu_moe and options.n_cpu_moe is not None:
            raise Unsupported("cpu_moe keeps every layer's experts in host memory, so n_cpu_moe has nothing left to say")
        if options.flash_attention is False and options.kv_type not in (None, "f16"):
            raise Unsupported(f"a {options.kv_type} V cache needs flash attention, which is switched off")
        if options.main_gpu is not None and options.spread:
            raise Unsupported("main_gpu uses one GPU and spread uses all of them")
        if relative := [path for path in options.also if not Path(path).is_absolute()]:
            raise Unsupported(f"`also` takes absolute paths of GGUF files, not {relative[0]}")

    def check_loads(self, deployment: Deployment, loads: Sequence[Load]) -> None:
        super().check_loads(deployment, loads)
        for load in loads:
            if load.prefix_cache == "cold" and (load.prefix_groups or load.turns > 1):
                what = "a conversation repeats" if load.turns > 1 else "these prompts share"
                raise Unsupported(f"Ollama's prompt cache cannot be switched off, and {what} a beginning: write prefix_cache: allowed")

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        self.check(deployment)
        options = options_as(OllamaOptions, deployment)
        name = served_name(deployment)
        files = {name: site.checkpoint, **{f"also-{i}": path for i, path in enumerate(options.also)}}
        models: list[JSON] = [{"name": each, "file": file} for each, file in files.items()]
        plan: dict[str, JSON] = {"models": models, "ready": READY, "load": {**_constant(deployment), "stream": False}}
        command = (str(install.python), str(WORKERS / "ollama_worker.py"), "--host", site.host, "--port", str(site.port))
        notes = [
            "the prompt cache cannot be switched off: prompts are cold only by their own first tokens",
            "the output may end before its length: Ollama has no way to go on after an end-of-sequence token",
        ]
        if deployment.max_concurrency > 1:
            notes.append("for some model families Ollama runs one request at a time, whatever OLLAMA_NUM_PARALLEL says")
        if offloads := list(_llama_cpp(options)):
            notes.append(f"{', '.join(offloads)}: handed to llama.cpp through the environment, which Ollama does not promise")
        return Launch(
            (*command, str(install.binary), str(site.folder / PLAN)),
            name,
            env=environment(deployment, site),
            files={PLAN: json.dumps(plan, indent=1)},
            notes=tuple(notes),
            ready_timeout_s=1800.0,  # the weights are hashed, copied into the store and then read
        )

    def readiness(self, get: Get) -> Readiness:
        reply = get("/api/tags")
        if reply.status != 200:
            return "loading" if reply.status in (0, 503) else "broken"
        listed = _models(reply.json())
        return "ready" if listed is None or any(_is_ready(model) for model in listed) else "loading"

    def resolved(self, get: Get) -> Resolved:
        replies = {path: get(path).json() for path in ("/api/version", "/api/ps", "/api/tags")}
        told, listed, loaded = replies["/api/version"], _models(replies["/api/tags"]) or [], _models(replies["/api/ps"]) or []
        ours = next((model.get("digest") for model in listed if _is_ready(model)), None)
        model = next((each for each in loaded if ours is not None and each.get("digest") == ours), {})
        details = model.get("details")
        file_type = details.get("quantization_level") if isinstance(details, dict) else None
        context = model.get("context_length")
        return Resolved(
            version=only(str, told.get("version")) if isinstance(told, dict) else None,
            model=only(str, model.get("name")),
            precision=file_type.lower().removesuffix("_moe") if isinstance(file_type, str) else None,
            context=context if isinstance(context, int) else None,
            prefix_cache=True,
            stream_interval=1,
            raw=replies,
        )

    def dialect(self, deployment: Deployment, load: Load) -> Dialect:
        return PROTOCOLS["ollama"][load.api]

    def request_fields(self, deployment: Deployment, load: Load, served_name: str) -> Mapping[str, JSON]:
        # Ollama's own sampling (top_k 40, top_p 0.9) would be another experiment; a prompt too long must be an error, not cut.
        fields = _constant(deployment)
        options = fields["options"]
        sampling: dict[str, JSON] = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}
        return {**fields, "options": {**(options if isinstance(options, dict) else {}), **sampling}, "truncate": False, "think": False}


def served_name(deployment: Deployment) -> str:
    """The model's name in Ollama's store: at most 80 letters, digits, '_', '-', '.', and the precision as its tag."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", deployment.model).lstrip("-.")[:80] or "model"
    return f"{name}:{deployment.precision}"


def environment(deployment: Deployment, site: Site) -> dict[str, str]:
    """Everything that `ollama serve` is told."""
    options = options_as(OllamaOptions, deployment)
    env = {
        "HOME": str(site.folder),  # its key pair and its server.json, which would be options that no scenario names
        "OLLAMA_HOST": f"{site.host}:{site.port}",
        "OLLAMA_MODELS": str(site.folder / "models"),
        "OLLAMA_NUM_PARALLEL": str(deployment.max_concurrency),
        "OLLAMA_CONTEXT_LENGTH": str(deployment.max_context),
        "OLLAMA_MAX_LOADED_MODELS": str(1 + len(options.also)),
        "OLLAMA_MAX_QUEUE": str(max(512, 2 * deployment.max_concurrency)),
        "OLLAMA_KEEP_ALIVE": "-1",
        "OLLAMA_LOAD_TIMEOUT": "0",  # without end: how long loading may take is for the harness to say
        "OLLAMA_NO_CLOUD": "1",
        "OLLAMA_NOPRUNE": "1",
    }
    if options.flash_attention is not None:
        env["OLLAMA_FLASH_ATTENTION"] = "1" if options.flash_attention else "0"
    if options.kv_type is not None:
        env["OLLAMA_KV_CACHE_TYPE"] = options.kv_type
    if options.spread:
        env["OLLAMA_SCHED_SPREAD"] = "1"
    if options.gpu_overhead is not None:
        env["OLLAMA_GPU_OVERHEAD"] = str(options.gpu_overhead)
    return env | _llama_cpp(options)


def _llama_cpp(options: OllamaOptions) -> dict[str, str]:
    """What is meant for the llama.cpp server that Ollama starts."""
    given = {
        "LLAMA_ARG_CPU_MOE": "1" if options.cpu_moe else None,
        "LLAMA_ARG_N_CPU_MOE": options.n_cpu_moe,
        "LLAMA_ARG_OVERRIDE_TENSOR": options.override_tensor,
        "LLAMA_ARG_FIT": None if options.fit is None else "on" if options.fit else "off",
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def _constant(deployment: Deployment) -> dict[str, JSON]:
    """What every request carries, the loading one included: whatever of it differs makes Ollama load the model again."""
    options = options_as(OllamaOptions, deployment)
    given: Mapping[str, JSON] = {
        "num_ctx": deployment.max_context,
        "num_thread": options.threads,
        "num_batch": options.batch,
        "num_gpu": options.gpu_layers,
        "main_gpu": options.main_gpu,
        "use_mmap": options.mmap,
    }
    return {"options": {name: value for name, value in given.items() if value is not None}, "shift": False, "keep_alive": -1}


def _models(body: JSON) -> list[dict[str, JSON]] | None:
    """The models that /api/tags or /api/ps lists; None when the reply is none of theirs."""
    models = body.get("models") if isinstance(body, dict) else None
    return [model for model in models if isinstance(model, dict)] if isinstance(models, list) else None


def _is_ready(model: Mapping[str, JSON]) -> bool:
    return str(model.get("name")).partition(":")[0] == READY
