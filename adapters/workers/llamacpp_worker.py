"""llama.cpp's own C++ server from the xllamacpp wheel: `serve` over HTTP, `offline` as an in-process batch.

Takes llama-server's own flags, so one argv fits both; the wheel does not expose llama.cpp's parser. A flag outside its table is an error.
"""

import argparse
import json
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import xllamacpp
from worker_protocol import Batch, Outcome, Prompt, RequestOutcome, run_worker

EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""llama.cpp's own pattern for routed expert tensors (LLM_FFN_EXPS_REGEX), which -cmoe and -ncmoe pin to the CPU."""


LOAD_MODES = {"mmap_mlock": "mmap+mlock", "direct_io": "dio"}
"""llama.cpp's C names of load modes that differ from those of its command line."""


def one_of(known: Mapping[str, Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if text not in known:
            raise argparse.ArgumentTypeError(f"'{text}' is not one of {', '.join(known)}")
        return known[text]

    return read


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
}  # fmt: skip
"""Path of an xllamacpp.CommonParams attribute -> how its text is read, and llama-server's forms of the flag."""

SWITCHES: Mapping[str, tuple[str, bool]] = {
    "--cache-prompt": ("cache_prompt", True), "--no-cache-prompt": ("cache_prompt", False), "--kv-unified": ("kv_unified", True),
    "--no-kv-unified": ("kv_unified", False), "--metrics": ("endpoint_metrics", True), "--slots": ("endpoint_slots", True),
    "--no-slots": ("endpoint_slots", False), "--offline": ("offline", True), "--no-warmup": ("warmup", False),
    "--no-cont-batching": ("cont_batching", False), "--no-kv-offload": ("no_kv_offload", True), "-nkvo": ("no_kv_offload", True),
    "--no-op-offload": ("no_op_offload", True), "--no-repack": ("no_extra_bufts", True), "--swa-full": ("swa_full", True),
    "--context-shift": ("ctx_shift", True),
}  # fmt: skip
"""Flag without a value -> the attribute and its value."""


def parser() -> argparse.ArgumentParser:
    """The part of llama-server's command line that this worker understands; flags that are not given are not in the result."""
    p = argparse.ArgumentParser(prog="llamacpp_worker", allow_abbrev=False, argument_default=argparse.SUPPRESS)
    p.add_argument("mode", choices=("serve", "offline"))
    for path, (read, spellings) in VALUES.items():
        p.add_argument(*spellings, dest=path, type=read, required=path == "model.path")
    for flag, (path, value) in SWITCHES.items():
        p.add_argument(flag, dest=path, action="store_const", const=value)
    p.add_argument("-ot", "--override-tensor", action="append", default=[])
    p.add_argument("-cmoe", "--cpu-moe", action="store_true", default=False)
    p.add_argument("-ncmoe", "--n-cpu-moe", type=int, default=0)
    return p


def common_params(args: argparse.Namespace) -> Any:
    """The xllamacpp.CommonParams of these flags; the rest keeps llama.cpp's defaults."""
    given = dict(vars(args))
    if "cpuparams.n_threads" in given:
        given.setdefault("cpuparams_batch.n_threads", given["cpuparams.n_threads"])
    params = xllamacpp.CommonParams()
    for path in given.keys() & (VALUES.keys() | {attribute for attribute, _ in SWITCHES.values()}):
        *owners, name = path.split(".")
        owner = params
        for each in owners:
            owner = getattr(owner, each)
        setattr(owner, name, given[path])
    overrides = placement(args)
    if overrides:
        params.tensor_buft_overrides = ",".join(overrides)
    return params


def placement(args: argparse.Namespace) -> list[str]:
    """Which tensors go where, as `pattern=buffer type`: -ot first, as in llama-server, then -cmoe and -ncmoe."""
    everywhere = [f"{EXPERTS}=CPU"] if args.cpu_moe else []
    return [*args.override_tensor, *everywhere, *(rf"blk\.{layer}{EXPERTS}=CPU" for layer in range(args.n_cpu_moe))]


def serve(params: Any) -> int:
    """Serve until killed. Default signal actions stay in place, so that a kill also ends a long model load at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's handler would run only between two Python instructions
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", file=sys.stderr, flush=True)
    signal.pause()
    return 0


class Offline:
    """The same C++ scheduler, called in this process: no HTTP, no JSON text, no stream between the caller and the slots.

    xllamacpp still opens its HTTP port (a free one on loopback), which is used once, to read the resolved configuration.
    """

    def __init__(self, params: Any) -> None:
        params.port = 0
        self.version = str(xllamacpp.__version__)
        self._slots = int(params.n_parallel)
        self._server = xllamacpp.Server(params)
        address = str(self._server.listening_address)
        self.resolved: Mapping[str, object] = {path: _get(address + path) for path in ("/props", "/slots", "/v1/models")}

    def run(self, batch: Batch) -> Outcome:
        """One thread per request in flight; xllamacpp releases the GIL while it waits. Not streamed, so no token times."""
        batch.check_limit(self._slots)
        with ThreadPoolExecutor(batch.batch) as threads:
            all_started = Barrier(batch.batch)
            list(threads.map(lambda _: all_started.wait(), range(batch.batch)))  # all threads exist before the window opens
            start = time.monotonic_ns()
            requests = list(threads.map(lambda prompt: self._complete(prompt, batch), batch.prompts))
            return Outcome(start, time.monotonic_ns(), requests)

    def _complete(self, prompt: Prompt, batch: Batch) -> RequestOutcome:
        body = {"prompt": prompt, "max_tokens": batch.output_tokens, "temperature": batch.temperature, "seed": batch.seed}
        neutral = {"ignore_eos": True, "cache_prompt": False, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
        reply = self._server.handle_completions(body | neutral)
        if "error" in reply:
            return RequestOutcome(None, None, error=str(reply["error"].get("message", reply["error"])))
        usage = reply["usage"]
        return RequestOutcome(usage["prompt_tokens"], usage["completion_tokens"], cached_tokens=reply["timings"]["cache_n"])


def _get(url: str) -> object:
    with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310  # our own server on loopback
        value: object = json.load(reply)
    return value


if __name__ == "__main__":
    chosen = parser().parse_args()
    sys.exit(serve(common_params(chosen)) if chosen.mode == "serve" else run_worker(lambda: Offline(common_params(chosen))))
