"""llama.cpp: its C++ server, from the xllamacpp wheel, a llama-server binary, or llama-cpp-python (server and in-process).

pp is llama.cpp's split by layer, tp its split of each layer by rows or as a tensor. Not yet run on a GPU (CUDA or Metal): all that is known
of spreading over devices, and of placing experts between a GPU and the host, is that a CPU build accepts the flags. llama-cpp-python
(0.3.36, tested on a CPU) runs only when a scenario names it: its server has no /health, no /metrics, no usage in its streams, text prompts
only and one request at a time. In-process it takes ids and forces the length, one sequence at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import enginebench.adapter as eb

from .options import NOT_IN_PYTHON, SPECULATION, LlamaCppOptions, python_server_flags, server_flags

COUNTERS: Mapping[str, str] = {
    "prompt_tokens": "llamacpp:prompt_tokens_total", "cached_tokens": "llamacpp:prompt_tokens_cached_total",
    "output_tokens": "llamacpp:tokens_predicted_total", "drafts": "llamacpp:spec_decode_num_drafts_total",
    "draft_tokens": "llamacpp:spec_decode_num_draft_tokens_total",
    "accepted_tokens": "llamacpp:spec_decode_num_accepted_tokens_total", "running": "llamacpp:requests_processing",
    "waiting": "llamacpp:requests_deferred",
}  # fmt: skip
"""Neutral name -> llama-server's. A slot never loses its KV to another, so there are no preemptions to count."""
PYTHON_MATCH = 2
"""Tokens that llama-cpp-python's server looks up; it has no flag for them."""


class LlamaCpp(eb.Adapter):
    name = "llamacpp"
    title = "llama.cpp"
    apis = ("completions", "chat", "responses", "messages")
    requirements = ("xllamacpp==2026.10.11549",)
    variants: ClassVar[Mapping[str, tuple[str, ...]]] = {"python": ("llama-cpp-python[server]==0.3.36",)}
    checkpoint_format = "gguf"
    precisions = eb.GGUF_PRECISIONS
    runtimes = ("process", "in-process")
    speculates = frozenset(SPECULATION)
    forces_acceptance = frozenset(SPECULATION)
    takes_loras = True
    options = LlamaCppOptions
    scores = eb.scoring.forced_tokens()
    ready_paths = ("/health", "/v1/models")  # llama-cpp-python has no /health; it listens only when the model is loaded

    def traits(self, deployment: eb.Deployment) -> eb.Traits:
        options = eb.options_as(LlamaCppOptions, deployment)
        # llama-cpp-python's server has neither ids nor ignore_eos
        takes_ids = deployment.runtime == "in-process" or options.server != "llama-cpp-python"
        return eb.Traits(deployment.parallelism.devices if options.offloads else 0, takes_ids=takes_ids, forces_length=takes_ids)

    def check(self, deployment: eb.Deployment) -> None:
        options, offline = eb.options_as(LlamaCppOptions, deployment), deployment.runtime == "in-process"
        _check_spread(deployment.parallelism, options)
        named = bool(options.devices) and (offline or options.server not in (None, "llama-server"))
        quantized = options.kv_type not in (None, "f32", "f16", "bf16")
        eb.refuse(
            (options.cpu_moe and options.n_cpu_moe is not None, "cpu_moe covers the experts of every layer: drop n_cpu_moe"),
            *(
                ("," in override or "=" not in override, f"tensor_overrides: '{override}' is not one 'pattern=buffer type' without a comma")
                for override in options.tensor_overrides
            ),
            (options.flash_attention is False and quantized, f"a {options.kv_type} V cache needs flash attention, which is switched off"),
            (offline and options.server == "llama-server", "llama-server does not run in-process: xllamacpp and llama-cpp-python do"),
            (named, "only llama-server can choose devices by name; elsewhere set CUDA_VISIBLE_DEVICES"),
        )
        if options.server == "llama-cpp-python":
            missing = [name for name in NOT_IN_PYTHON if getattr(options, name) != getattr(LlamaCppOptions(), name)]
            devices = deployment.parallelism.tp * deployment.parallelism.pp
            eb.refuse(
                (deployment.max_concurrency > 1, "llama-cpp-python answers one request at a time: above concurrency 1 there is a queue"),
                (devices > 1, "llama-cpp-python runs on one GPU here; xllamacpp and llama-server spread over several"),
                (missing, f"llama-cpp-python has no flag for {', '.join(missing)}"),
                (deployment.loras, "llama-cpp-python applies one LoRA adapter to all requests: write server: xllamacpp"),
                (offline and deployment.speculation, "llama-cpp-python speculates in its server only: write runtime: process"),
                *_python_speculation(deployment.speculation),
            )

    def check_loads(self, deployment: eb.Deployment, loads: Sequence[eb.Load]) -> None:
        super().check_loads(deployment, loads)
        options, pictures = eb.options_as(LlamaCppOptions, deployment), any(load.images for load in loads)
        sees = options.mmproj or deployment.runtime == "attach" or {"--mmproj", "-mm"} & {*options.extra}
        eb.refuse(
            (pictures and not sees, "llama.cpp sees images through a projector, a second GGUF file: write options: {mmproj: FILE.gguf}")
        )

    def tunables(self, deployment: eb.Deployment, room: eb.Room) -> Sequence[eb.Tunable]:
        return (
            eb.Tunable("threads", room.threads),
            eb.Tunable("threads_batch", room.threads),
            eb.Tunable("batch", (256, 512, 1024, 4096), default=2048),
            eb.Tunable("ubatch", (64, 128, 256, 1024, 2048), default=512),
            eb.Tunable("flash_attention", (False, True)),
            eb.Tunable("unified_kv", (True,), default=False),
            eb.Tunable("kv_type", ("q8_0",), default="f16", exact=False),
            *room.on_devices(
                eb.Tunable("n_cpu_moe", (4, 8, 16, 32), default=0),
                eb.Tunable("gpu_layers", (0, 8, 16, 32), default="all"),
                eb.Tunable("kv_offload", (False,), default=True),
                eb.Tunable("op_offload", (False,), default=True),
                eb.Tunable("cuda_graphs", (False,), default=True),
            ),
            *room.degrees("tp", "pp"),
        )

    def find(self, python: Path | None) -> Sequence[eb.Install]:
        binary = shutil.which("llama-server")
        # The binary reports its build only when it runs: /props of the server has it.
        server = [eb.Install("llama-server", "unknown", binary=Path(binary))] if binary else []
        return [*eb.find_package(python, "xllamacpp"), *server, *eb.find_package(python, "llama-cpp-python")]

    def choose(self, deployment: eb.Deployment, installs: Sequence[eb.Install]) -> eb.Install:
        options = eb.options_as(LlamaCppOptions, deployment)
        wanted: tuple[str, ...] = ("xllamacpp", "llama-server") if deployment.runtime == "process" else ("xllamacpp",)
        if options.devices:
            wanted = ("llama-server",)
        wanted = (options.server,) if options.server else wanted
        usable = [install for install in installs if install.variant in wanted]
        if not usable:
            raise eb.NotInstalled(f"{self.title}: {' or '.join(wanted)} is not installed here")
        return usable[0]

    def launch(self, deployment: eb.Deployment, install: eb.Install, site: eb.Site) -> eb.Launch:
        self.check(deployment)
        options, offline = eb.options_as(LlamaCppOptions, deployment), deployment.runtime == "in-process"
        other = options.server not in (None, install.variant)
        eb.refuse((other, f"the scenario asks for {options.server}, and {install.variant} is installed"))
        env = {} if options.cuda_graphs else {"GGML_CUDA_DISABLE_GRAPHS": "1"}  # set is enough, whatever the value
        address = () if offline else site.address
        if install.variant == "llama-cpp-python":
            program = (str(eb.WORKERS / "llamacpp_python_worker.py"),) if offline else ("-m", "llama_cpp.server")
            argv = (str(install.python), *program, *address, *python_server_flags(deployment, options, site.checkpoint))
            notes = eb.holding((not offline, "llama-cpp-python neither reports token counts nor forces a length"))
            return eb.Launch(argv, deployment.model, env=env, notes=notes)
        worker = (str(install.python), str(eb.WORKERS / "llamacpp_worker.py"), "offline" if offline else "serve")
        command = (str(install.binary),) if install.variant == "llama-server" else worker
        loras = [word for path in site.loras.values() for word in ("--lora", path)]
        argv = (*command, *address, *server_flags(deployment, options, site.checkpoint, site.draft), *loras)
        return eb.Launch(argv, deployment.model, env=env, notes=eb.holding((options.unified_kv, "all slots share one KV pool")))

    def request_fields(self, deployment: eb.Deployment, load: eb.Load) -> Mapping[str, eb.JSON]:
        # The server's own sampling defaults (top_k 40, top_p 0.95, min_p 0.05) would be another experiment.
        reuse = eb.options_as(LlamaCppOptions, deployment).prefix_cache and load.prefix_cache != "cold"
        none = self.lora_fields(deployment, "") if deployment.loras else {}  # without scales all adapters would apply
        return {"ignore_eos": True, "cache_prompt": reuse, "stream_options": {"include_usage": True}, **eb.NEUTRAL_SAMPLING, **none}

    def lora_fields(self, deployment: eb.Deployment, name: str) -> Mapping[str, eb.JSON]:
        return {"lora": [{"id": number, "scale": float(each == name)} for number, each in enumerate(deployment.loras)]}

    def resolved(self, get: eb.Get) -> eb.Resolved:
        replies = {path: get(path).json() for path in ("/props", "/slots", "/v1/models")}
        props, slots = eb.Fields(replies["/props"]), _slots(replies["/slots"])
        build, ftype = props.text("build_info"), props.text("model_ftype")
        context = props.whole("default_generation_settings.n_ctx")
        return eb.Resolved(
            version=build if build != "b0-unknown" else None,  # a wheel built outside git
            model=props.text("model_alias"),
            precision=precision(ftype) if ftype is not None else None,
            context=context,
            slots=props.whole("total_slots"),
            prefix_rule=eb.PrefixRule(since="answered") if props.value else None,  # a slot serves one request at a time
            kv_tokens=sum(size for size, _ in slots) or context,  # without /slots there is one pool, and every slot may fill it
            chunked_prefill=True if props.value else None,  # always: a prompt is processed in batches of -b
            stream_interval=1 if props.value else None,  # always: one event per token
            raw=replies,
        )

    def counters(self, get: eb.Get) -> Mapping[str, float]:
        metrics = get("/metrics").text
        found = eb.renamed(eb.prometheus_totals(metrics), COUNTERS)
        if "prompt_tokens" not in found:
            return {}
        found["prompt_tokens"] += found.get("cached_tokens", 0.0)  # llama.cpp does not count cached tokens as prompt tokens
        found |= eb.accepted_per_position(metrics, "llamacpp:spec_decode_num_accepted_tokens_per_pos_total")
        slots = _slots(get("/slots").json())
        return found | ({"kv_use": sum(held for _, held in slots) / sum(size for size, _ in slots)} if slots else {})

    def scoring(self, deployment: eb.Deployment) -> eb.Scoring:
        if eb.options_as(LlamaCppOptions, deployment).server == "llama-cpp-python":
            raise eb.Unsupported("llama-cpp-python takes no token ids in its server; xllamacpp and llama-server score tokens")
        return super().scoring(deployment)


def _check_spread(spread: eb.Parallelism, options: LlamaCppOptions) -> None:
    """llama.cpp spreads one model over the GPUs of one process, in one of its split modes. Raises Unsupported."""
    gpus, mode, main = spread.tp * spread.pp, options.split_mode, options.main_gpu
    misplaced = mode is not None and (gpus == 1 or (mode == "layer") != (spread.pp > 1))
    named, shares = len(options.devices), len(options.tensor_split)
    eb.refuse(
        (spread.dp_replicas > 1 or spread.attention_dp > 1, "llama.cpp has no data parallelism: its slots share one copy of the model"),
        (spread.ep > 1, "llama.cpp has no expert parallelism: its GPUs share every expert by row (tp), or hold whole layers (pp)"),
        (spread.tp > 1 and spread.pp > 1, "llama.cpp splits by layer (pp) or within layers (tp), not both at once"),
        (misplaced, f"split_mode {mode} needs {'pp' if mode == 'layer' else 'tp'} above 1, and no other spread"),
        (gpus > 1 and not options.offloads, "gpu_layers 0 keeps the model off the GPUs: there is nothing to spread over them"),
        (named and named != gpus, f"devices names {named}, but tp x pp is {gpus}"),
        (shares and shares != gpus, f"tensor_split names {shares}, but tp x pp is {gpus}"),
        (main is not None and not 0 <= main < gpus, f"main_gpu {main} is none of the {gpus} (tp x pp), counted from 0"),
    )


def precision(ftype: str) -> str:
    """llama.cpp's name of a file type as a precision: 'Q4_K - Medium' -> q4_k_m, 'all F32' -> f32, 'MXFP4 MoE' -> mxfp4."""
    head, _, tail = ftype.removeprefix("(guessed) ").removeprefix("all ").lower().partition(" - ")
    name = head.split()[0] if head.split() else ftype
    size = {"small": "_s", "medium": "_m", "large": "_l"}.get(tail, "")
    return "q2_k" if (name, size) == ("q2_k", "_m") else name + size  # Q2_K has one size, and llama.cpp calls it medium


def _python_speculation(asked: eb.Speculation | None) -> tuple[tuple[object, str], ...]:
    """What llama-cpp-python cannot do of a speculation: it has prompt lookup only, of two tokens and then of one."""
    if asked is None:
        return ()
    return (
        (asked.method != "ngram", f"llama-cpp-python proposes tokens by ngram only, not by {asked.method}"),
        (asked.match != PYTHON_MATCH, f"llama-cpp-python looks up {PYTHON_MATCH} tokens: write match: {PYTHON_MATCH}"),
        (asked.acceptance is not None, "llama-cpp-python cannot force the acceptance of ngram: leave `acceptance` out"),
    )


def _slots(value: eb.JSON) -> list[tuple[int, int]]:
    """(tokens it can hold, tokens of its request) for each slot of /slots; [] where the value is not a list of slots."""
    slots = [eb.Fields(each) for each in eb.as_list(value)]
    held = [(slot.whole("n_prompt_tokens") or 0) if slot.flag("is_processing") else 0 for slot in slots]
    return [(size, tokens) for slot, tokens in zip(slots, held, strict=True) if (size := slot.whole("n_ctx"))]
