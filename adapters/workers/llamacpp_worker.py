"""llama.cpp's own C++ server from the xllamacpp wheel: `serve` over HTTP, `offline` as an in-process batch.

Takes llama-server's own flags (`llamacpp_flags`), so one argv fits both.
"""

import argparse
import json
import signal
import sys
import time
import urllib.request
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import xllamacpp
from llamacpp_flags import SWITCHES, VALUES, parser, set_on
from worker_protocol import Batch, Outcome, Prompt, RequestOutcome, ScoreRequest, Scores, run_worker

EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
"""llama.cpp's own pattern for routed expert tensors (LLM_FFN_EXPS_REGEX), which -cmoe and -ncmoe pin to the CPU."""


FORCED = 1e4
"""Added to the logit of a token that is to be sampled. The probability that the server reports is that before any bias."""

LEAST = -103.28
"""The logarithm of the smallest float32: the server writes the lowest float for a probability that rounds to 0."""


def common_params(args: argparse.Namespace) -> Any:
    """The xllamacpp.CommonParams of these flags; the rest keeps llama.cpp's defaults."""
    given = dict(vars(args))
    if "cpuparams.n_threads" in given:
        given.setdefault("cpuparams_batch.n_threads", given["cpuparams.n_threads"])
    params = xllamacpp.CommonParams()
    for path in given.keys() & (VALUES.keys() | {attribute for attribute, _ in SWITCHES.values()}):
        set_on(params, path, given[path])
    overrides = placement(args)
    if overrides:
        params.tensor_buft_overrides = ",".join(overrides)
    if args.lora:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in args.lora]
        params.lora_init_without_apply = args.lora_init_without_apply
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
        timings = reply["timings"]
        drafted = {name: timings[name] for name in ("draft_n", "draft_n_accepted") if name in timings}
        return RequestOutcome(usage["prompt_tokens"], usage["completion_tokens"], cached_tokens=timings["cache_n"], counts=drafted or None)

    def score(self, request: ScoreRequest) -> Scores:
        """A forced token for each that is scored; its prefix stays in the slot, so that each computes one."""
        found = [self._forced(request.ids, place, request.top) for place in range(request.first, len(request.ids))]
        return {"logprobs": [own for own, _ in found], "top": [top for _, top in found] if request.top else []}

    def _forced(self, ids: list[int], place: int, top: int) -> tuple[float, list[tuple[int, float]]]:
        bias = [[ids[place], FORCED]]
        body = {"prompt": ids[:place], "max_tokens": 1, "temperature": 0, "n_probs": max(1, top), "logit_bias": bias, "cache_prompt": True}
        reply = self._server.handle_completions(body)
        if "error" in reply:
            raise RuntimeError(str(reply["error"].get("message", reply["error"])))
        sampled = reply["choices"][0]["logprobs"]["content"][0]
        if sampled["id"] != ids[place]:
            raise RuntimeError(f"token {ids[place]} was forced, and {sampled['id']} was sampled")
        best = [(each["id"], max(LEAST, each["logprob"])) for each in sampled["top_logprobs"]]
        return max(LEAST, sampled["logprob"]), best


def _get(url: str) -> object:
    with urllib.request.urlopen(url, timeout=10) as reply:  # noqa: S310  # our own server on loopback
        value: object = json.load(reply)
    return value


if __name__ == "__main__":
    chosen = parser().parse_args()
    sys.exit(serve(common_params(chosen)) if chosen.mode == "serve" else run_worker(lambda: Offline(common_params(chosen))))
