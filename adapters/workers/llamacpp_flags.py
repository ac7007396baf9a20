"""llama-server's command line for the xllamacpp wheel, which does not expose llama.cpp's own parser: flag -> attribute of CommonParams.

A flag outside the tables is an error that names it; `server: llama-server` passes every flag through.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import xllamacpp

LOAD_MODES = {"mmap_mlock": "mmap+mlock", "direct_io": "dio"}
"""llama.cpp's C names of load modes that differ from those of its command line."""


def one_of(known: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in known:
            raise argparse.ArgumentTypeError(f"'{text}' is not one of {', '.join(known)}")
        return known[text]

    return read


def list_of(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Values with commas between them."""
    return lambda text: [read(each) for each in text.split(",")]


def members(enum: Any, prefix: str) -> dict[str, Any]:
    """llama.cpp's C names in the form of its command line: GGML_TYPE_Q8_0 -> q8_0."""
    return {member.name.removeprefix(prefix).lower(): member for member in enum}


def gpu_layers(text: str) -> int:
    return {"auto": -1, "all": -2}[text] if text in ("auto", "all") else int(text)


def shares(text: str) -> list[float]:
    """Proportions of the GPUs, '3,1', padded with zeros: xllamacpp takes a number for every possible device."""
    given = [float(share) for share in text.split(",")]
    return given + [0.0] * (len(xllamacpp.CommonParams().tensor_split) - len(given))


on_off = one_of({"on": True, "off": False})
kv_type = one_of(members(xllamacpp.ggml_type, "GGML_TYPE_"))
split_mode = one_of(members(xllamacpp.llama_split_mode, "LLAMA_SPLIT_MODE_"))
load_mode = one_of({LOAD_MODES.get(name, name): mode for name, mode in members(xllamacpp.llama_load_mode, "LLAMA_LOAD_MODE_").items()})
numa = one_of(members(xllamacpp.ggml_numa_strategy, "GGML_NUMA_STRATEGY_"))
_attention = members(xllamacpp.llama_flash_attn_type, "LLAMA_FLASH_ATTN_TYPE_")
flash_attention = one_of({"auto": _attention["auto"], "on": _attention["enabled"], "off": _attention["disabled"]})
_types = members(xllamacpp.common_speculative_type, "COMMON_SPECULATIVE_TYPE_")
spec_types = list_of(one_of({name.replace("_", "-"): kind for name, kind in _types.items() if name != "count"}))

VALUES: Mapping[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "model.path": (str, ("-m", "--model")), "model_alias": (lambda text: {text}, ("-a", "--alias")),
    "hostnames": (lambda text: [text], ("--host",)), "port": (int, ("--port",)), "n_ctx": (int, ("-c", "--ctx-size")),
    "n_parallel": (int, ("-np", "--parallel")), "n_batch": (int, ("-b", "--batch-size")), "n_ubatch": (int, ("-ub", "--ubatch-size")),
    "cpuparams.n_threads": (int, ("-t", "--threads")), "cpuparams_batch.n_threads": (int, ("-tb", "--threads-batch")),
    "n_threads_http": (int, ("--threads-http",)), "fit_params": (on_off, ("-fit", "--fit")),
    "flash_attn_type": (flash_attention, ("-fa", "--flash-attn")), "n_gpu_layers": (gpu_layers, ("-ngl", "--gpu-layers")),
    "main_gpu": (int, ("-mg", "--main-gpu")), "split_mode": (split_mode, ("-sm", "--split-mode")),
    "cache_type_k": (kv_type, ("-ctk", "--cache-type-k")), "cache_type_v": (kv_type, ("-ctv", "--cache-type-v")),
    "cache_ram_mib": (int, ("-cram", "--cache-ram")), "n_cache_reuse": (int, ("--cache-reuse",)),
    "n_ctx_checkpoints": (int, ("-ctxcp", "--ctx-checkpoints")), "moe_cache_size": (int, ("--moe-cache-mib",)),
    "sampling.seed": (int, ("-s", "--seed")), "tensor_split": (shares, ("-ts", "--tensor-split")),
    "load_mode": (load_mode, ("-lm", "--load-mode")), "numa": (numa, ("--numa",)), "verbosity": (int, ("-lv", "--verbosity")),
    "slot_prompt_similarity": (float, ("-sps", "--slot-prompt-similarity")), "n_keep": (int, ("--keep",)),
    "timeout_read": (int, ("-to", "--timeout")), "chat_template": (str, ("--chat-template",)),
    "mmproj.path": (str, ("-mm", "--mmproj")), "image_min_tokens": (int, ("--image-min-tokens",)),
    "image_max_tokens": (int, ("--image-max-tokens",)),
    "rope_freq_base": (float, ("--rope-freq-base",)), "rope_freq_scale": (float, ("--rope-freq-scale",)),
    "speculative.types": (spec_types, ("--spec-type",)),
    "speculative.draft.mparams.path": (str, ("-md", "--model-draft", "--spec-draft-model")),
    "speculative.draft.n_max": (int, ("--spec-draft-n-max", "--draft-max", "--draft", "--draft-n")),
    "speculative.draft.n_min": (int, ("--spec-draft-n-min", "--draft-min", "--draft-n-min")),
    "speculative.draft.p_min": (float, ("--spec-draft-p-min", "--draft-p-min")),
    "speculative.draft.p_split": (float, ("--spec-draft-p-split", "--draft-p-split")),
    "speculative.draft.n_gpu_layers": (gpu_layers, ("-ngld", "--spec-draft-ngl", "--gpu-layers-draft", "--n-gpu-layers-draft")),
    "speculative.draft.cache_type_k": (kv_type, ("-ctkd", "--spec-draft-type-k", "--cache-type-k-draft")),
    "speculative.draft.cache_type_v": (kv_type, ("-ctvd", "--spec-draft-type-v", "--cache-type-v-draft")),
    "speculative.draft.cpuparams.n_threads": (int, ("-td", "--spec-draft-threads", "--threads-draft")),
    "speculative.draft.cpuparams_batch.n_threads": (int, ("-tbd", "--spec-draft-threads-batch", "--threads-batch-draft")),
    "speculative.synth_rates": (list_of(float), ("--spec-synth-rates",)), "speculative.synth_len": (float, ("--spec-synth-len",)),
    "speculative.ngram_cache.lookup_cache_static": (str, ("-lcs", "--lookup-cache-static")),
    "speculative.ngram_cache.lookup_cache_dynamic": (str, ("-lcd", "--lookup-cache-dynamic")),
    **{
        f"speculative.{kind.replace('-', '_')}.{key.replace('-', '_')}": (int, (f"--spec-{kind}-{key}",))
        for kind, keys in {
            **dict.fromkeys(("ngram-simple", "ngram-map-k", "ngram-map-k4v"), ("size-n", "size-m", "min-hits")),
            "ngram-mod": ("n-min", "n-max", "n-match"),
        }.items()
        for key in keys
    },
}  # fmt: skip
"""Path of an xllamacpp.CommonParams attribute -> how its text is read, and llama-server's forms of the flag."""

SWITCHES: Mapping[str, tuple[str, bool]] = {
    "--cache-prompt": ("cache_prompt", True), "--no-cache-prompt": ("cache_prompt", False), "--kv-unified": ("kv_unified", True),
    "--no-kv-unified": ("kv_unified", False), "--metrics": ("endpoint_metrics", True), "--slots": ("endpoint_slots", True),
    "--no-slots": ("endpoint_slots", False), "--offline": ("offline", True), "--no-warmup": ("warmup", False),
    "--no-cont-batching": ("cont_batching", False), "--no-kv-offload": ("no_kv_offload", True), "-nkvo": ("no_kv_offload", True),
    "--no-op-offload": ("no_op_offload", True), "--no-repack": ("no_extra_bufts", True), "--swa-full": ("swa_full", True),
    "--context-shift": ("ctx_shift", True), "--no-context-shift": ("ctx_shift", False), "--check-tensors": ("check_tensors", True),
    "--jinja": ("use_jinja", True), "--no-jinja": ("use_jinja", False), "--no-host": ("no_host", True), "--props": ("endpoint_props", True),
    "--no-mmproj-offload": ("mmproj_use_gpu", False),
    "--spec-draft-backend-sampling": ("speculative.draft.backend_sampling", True),
    "--no-spec-draft-backend-sampling": ("speculative.draft.backend_sampling", False),
}  # fmt: skip
"""Flag without a value -> the attribute and its value."""


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As argparse does, with what to write instead where a flag is not in the tables."""
        unknown = message.startswith("unrecognized arguments:")
        advice = (
            "; the wheel xllamacpp has no such setting here: write options: {server: llama-server}, or drop the flag" if unknown else ""
        )
        super().error(message + advice)


def parser() -> argparse.ArgumentParser:
    """The part of llama-server's command line that this worker understands; flags that are not given are not in the result."""
    p = Parser(prog="llamacpp_worker", usage="serve|offline FLAGS", allow_abbrev=False, argument_default=argparse.SUPPRESS)
    p.add_argument("mode", choices=("serve", "offline"))
    for path, (read, spellings) in VALUES.items():
        p.add_argument(*spellings, dest=path, type=read, required=path == "model.path")
    for flag, (path, value) in SWITCHES.items():
        p.add_argument(flag, dest=path, action="store_const", const=value)
    p.add_argument("-ot", "--override-tensor", action="append", default=[])
    p.add_argument("-cmoe", "--cpu-moe", action="store_true", default=False)
    p.add_argument("-ncmoe", "--n-cpu-moe", type=int, default=0)
    p.add_argument("--lora", action="append", default=[], help="path of an adapter; may be repeated")
    p.add_argument("--lora-init-without-apply", action="store_true", default=False)
    return p


def set_on(params: Any, path: str, value: Any) -> None:
    """Set 'a.b.c' of an object."""
    *owners, name = path.split(".")
    for each in owners:
        params = getattr(params, each)
    setattr(params, name, value)
