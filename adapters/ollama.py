"""Ollama: `ollama serve` with a store of its own; the scenario's GGUF is imported, loaded and kept before the server counts as ready.

Ollama is a manager: it starts one llama.cpp server per model and passes requests on, so comparing it with llama.cpp compares defaults and
one more hop rather than two engines. Does not know how many slots Ollama grants: for some families (qwen3vl, qwen3next, lfm2, nemotron_h
and similar) it runs one request at a time whatever is asked, and does not report it.

It has no option for speculative decoding, so `speculation` is refused.

Not yet run: everything here was read in the source of 0.33.0-rc2, and tested against a stand-in for its API only.
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

import enginebench.adapter as eb

READY = "enginebench-ready"
"""The worker gives the model this second name once everything is loaded; /api/tags lists it even after the worker has ended."""
PLAN = "ollama.json"


@dataclass(frozen=True)
class OllamaOptions:
    """Engine options; None leaves Ollama's default in place."""

    also: tuple[str, ...] = ()
    """Absolute paths of further GGUF files that stay loaded with the model (OLLAMA_MAX_LOADED_MODELS); they get no requests."""
    flash_attention: bool | None = None
    """Flash attention on or off (OLLAMA_FLASH_ATTENTION); None: where the device has it."""
    kv_type: Literal["f16", "q8_0", "q4_0"] | None = None
    """Element type of K and V (OLLAMA_KV_CACHE_TYPE). A quantized one needs flash attention."""
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
    """Bytes per GPU that Ollama leaves free (OLLAMA_GPU_OVERHEAD)."""
    cpu_moe: bool = False
    """Keep the routed experts of every layer in host memory (LLAMA_ARG_CPU_MOE)."""
    n_cpu_moe: int | None = None
    """Keep the routed experts of the first N layers in host memory (LLAMA_ARG_N_CPU_MOE)."""
    override_tensor: str | None = None
    """Which tensors go where, as 'pattern=buffer type,...' (LLAMA_ARG_OVERRIDE_TENSOR)."""
    fit: bool | None = None
    """Let llama.cpp choose unset sizes so that the model fits (LLAMA_ARG_FIT); it does by default."""


def served_name(deployment: eb.Deployment) -> str:
    """The model's name in Ollama's store: at most 80 letters, digits, '_', '-', '.', and the precision as its tag."""
    name = re.sub(r"[^A-Za-z0-9_.-]", "-", deployment.model).lstrip("-.")[:80] or "model"
    return f"{name}:{deployment.precision}"


def environment(deployment: eb.Deployment, options: OllamaOptions, site: eb.Site) -> dict[str, str]:
    values: dict[str, eb.JSON] = {
        "HOME": str(site.folder),  # its key pair and its server.json would be options that no scenario names
        "OLLAMA_HOST": f"{site.host}:{site.port}",
        "OLLAMA_MODELS": str(site.folder / "models"),
        "OLLAMA_NUM_PARALLEL": deployment.max_concurrency,
        "OLLAMA_CONTEXT_LENGTH": deployment.max_context,
        "OLLAMA_MAX_LOADED_MODELS": 1 + len(options.also),
        "OLLAMA_MAX_QUEUE": max(512, 2 * deployment.max_concurrency),
        "OLLAMA_KEEP_ALIVE": -1,
        "OLLAMA_LOAD_TIMEOUT": 0,  # none: the harness limits the time that loading may take
        "OLLAMA_NO_CLOUD": 1,
        "OLLAMA_NOPRUNE": 1,
        "OLLAMA_FLASH_ATTENTION": None if options.flash_attention is None else int(options.flash_attention),
        "OLLAMA_KV_CACHE_TYPE": options.kv_type,
        "OLLAMA_SCHED_SPREAD": 1 if options.spread else None,
        "OLLAMA_GPU_OVERHEAD": options.gpu_overhead,
    }
    return {name: str(value) for name, value in eb.given(values).items()} | _llama_cpp(options)


def _llama_cpp(options: OllamaOptions) -> dict[str, str]:
    values: dict[str, eb.JSON] = {
        "LLAMA_ARG_CPU_MOE": 1 if options.cpu_moe else None,
        "LLAMA_ARG_N_CPU_MOE": options.n_cpu_moe,
        "LLAMA_ARG_OVERRIDE_TENSOR": options.override_tensor,
        "LLAMA_ARG_FIT": None if options.fit is None else "on" if options.fit else "off",
    }
    return {name: str(value) for name, value in eb.given(values).items()}


def model_options(deployment: eb.Deployment, options: OllamaOptions) -> dict[str, eb.JSON]:
    """`options` of every request, the loading one included: where they differ, Ollama loads the model again."""
    values: dict[str, eb.JSON] = {
        "num_ctx": deployment.max_context,
        "num_thread": options.threads,
        "num_batch": options.batch,
        "num_gpu": options.gpu_layers,
        "main_gpu": options.main_gpu,
        "use_mmap": options.mmap,
    }
    return eb.given(values)


class Ollama(eb.Adapter):
    name = "ollama"
    title = "Ollama"
    checkpoint_format = "gguf"
    precisions = eb.GGUF_PRECISIONS - {"tq1_0", "tq2_0"}
    options = OllamaOptions

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        return eb.Traits(gpus=deployment.parallelism.devices, protocol="ollama", takes_ids=False, forces_length=False)

    def check(self, deployment: eb.Deployment) -> None:
        options = eb.options_as(OllamaOptions, deployment)
        relative = next((path for path in options.also if not Path(path).is_absolute()), None)
        quantized = options.kv_type not in (None, "f16")
        spread = "Ollama has no tensor, pipeline, data or expert parallelism; the option spread puts whole layers on all GPUs"
        eb.refuse(
            (deployment.parallelism != eb.Parallelism(), spread),
            (options.cpu_moe and options.n_cpu_moe is not None, "cpu_moe covers the experts of every layer: drop n_cpu_moe"),
            (options.flash_attention is False and quantized, f"a {options.kv_type} V cache needs flash attention, which is switched off"),
            (options.main_gpu is not None and options.spread, "main_gpu uses one GPU and spread uses all of them"),
            (relative, f"`also` takes absolute paths of GGUF files, not {relative}"),
        )

    def check_loads(self, deployment: eb.Deployment, loads: Sequence[eb.Load]) -> None:
        super().check_loads(deployment, loads)
        for load in loads:
            shared = "a conversation repeats its beginning" if load.turns > 1 else "these prompts share a beginning"
            needs_cold = load.prefix_cache == "cold" and (load.prefix_groups or load.turns > 1)
            eb.refuse((needs_cold, f"Ollama's prompt cache cannot be switched off, and {shared}: write prefix_cache: allowed"))

    def tunables(self, deployment: eb.Deployment, room: eb.Room) -> Sequence[eb.Tunable]:
        return (
            eb.Tunable("threads", room.threads),
            eb.Tunable("batch", (64, 128, 256, 1024, 2048), default=512),
            eb.Tunable("flash_attention", (False, True)),
            eb.Tunable("mmap", (False, True)),
            eb.Tunable("kv_type", ("q8_0",), default="f16", exact=False),
            *room.on_devices(eb.Tunable("gpu_layers", (0, 8, 16, 32)), eb.Tunable("n_cpu_moe", (4, 8, 16, 32), default=0)),
            *((eb.Tunable("spread", (True,), default=False),) if room.devices > 1 else ()),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        binary = shutil.which("ollama")
        # The worker imports no engine, so it runs with our own interpreter.
        return [eb.Install("ollama", "unknown", python=Path(sys.executable), binary=Path(binary))] if binary else []

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        self.check(deployment)
        options, name = eb.options_as(OllamaOptions, deployment), served_name(deployment)
        files = {name: site.checkpoint, **{f"also-{i}": path for i, path in enumerate(options.also)}}
        models: list[eb.JSON] = [{"name": each, "file": file} for each, file in files.items()]
        load: dict[str, eb.JSON] = {"options": model_options(deployment, options), "shift": False, "keep_alive": -1, "stream": False}
        plan: dict[str, eb.JSON] = {"models": models, "ready": READY, "load": load}
        passed_on = ", ".join(_llama_cpp(options))
        notes = eb.holding(
            (True, "the prompt cache cannot be switched off: prompts are cold only by their own first tokens"),
            (True, "the output may end early: Ollama has no way to continue after an end-of-sequence token"),
            (
                deployment.max_concurrency > 1,
                "some model families run one request at a time, whatever OLLAMA_NUM_PARALLEL says",
            ),
            (passed_on, f"{passed_on}: passed to llama.cpp through the environment, which Ollama does not guarantee"),
        )
        argv = (str(install.python), str(eb.WORKERS / "ollama_worker.py"), *site.address, str(install.binary), str(site.folder / PLAN))
        # The weights are hashed, copied into the store and then read.
        return eb.Launch(argv, name, environment(deployment, options, site), {PLAN: json.dumps(plan, indent=1)}, notes, 1800.0)

    def readiness(self, get: eb.Get) -> eb.Readiness:
        reply = get("/api/tags")
        if reply.status != 200:
            return "loading" if reply.status in (0, 503) else "broken"
        listed = _models(reply.json())
        return "ready" if listed is None or any(_is_ready(model) for model in listed) else "loading"

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        # Ollama's own sampling (top_k 40, top_p 0.9) would be another experiment; a prompt that is too long must be an error, not cut.
        fixed = model_options(deployment, eb.options_as(OllamaOptions, deployment))
        sampling = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "typical_p": 1.0, "repeat_penalty": 1.0}
        return {"options": {**fixed, **sampling}, "shift": False, "keep_alive": -1, "truncate": False, "think": False}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        replies = {path: get(path).json() for path in ("/api/version", "/api/ps", "/api/tags")}
        listed, loaded = _models(replies["/api/tags"]) or [], _models(replies["/api/ps"]) or []
        digest = next((model.text("digest") for model in listed if _is_ready(model)), None)
        model = next((each for each in loaded if digest is not None and each.text("digest") == digest), eb.Fields(None))
        file_type = model.text("details.quantization_level")
        return eb.Resolved(
            version=eb.Fields(replies["/api/version"]).text("version"),
            model=model.text("name"),
            precision=file_type.lower().removesuffix("_moe") if file_type is not None else None,
            context=model.whole("context_length"),
            prefix_cache=True,
            stream_interval=1,
            raw=replies,
        )


def _models(body: eb.JSON) -> list[eb.Fields] | None:
    """The models that /api/tags or /api/ps lists; None where the reply is something else."""
    models = eb.Fields(body).at("models")
    return [eb.Fields(model) for model in models if isinstance(model, dict)] if isinstance(models, list) else None


def _is_ready(model: eb.Fields) -> bool:
    return str(model.at("name")).partition(":")[0] == READY
