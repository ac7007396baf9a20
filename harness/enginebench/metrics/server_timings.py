"""What engines say of a request's time themselves, in the spellings they use: seconds per token, to the first token, in the queue.

Engines count differently, and each spelling below says what it leaves out. Pure functions of `Samples.server_timings`; knows no
metric, and which engine it was only by the names it used. llama.cpp's server was run; what Ollama, vLLM's per-request metrics and
SGLang's meta_info say was read in their sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from enginebench.records.samples import Samples

Floats = npt.NDArray[np.float64]
_Told = Mapping[str, float]
_Rule = tuple[tuple[str, ...], Callable[[_Told, float], float]]
"""Names that must all be there, and the figure in s from what was told and the output tokens of the request."""

_DECODE: tuple[_Rule, ...] = (
    # llama.cpp and, copied from it, Ollama (in ns): the clock starts with the first token, so n tokens are n - 1 steps.
    (("predicted_ms", "predicted_n"), lambda told, _: told["predicted_ms"] / 1e3 / (told["predicted_n"] - 1)),
    (("eval_duration",), lambda told, n: told["eval_duration"] / 1e9 / (n - 1)),
    (("mean_itl_ms",), lambda told, _: told["mean_itl_ms"] / 1e3),  # vLLM
    (("e2e_latency", "first_token_latency"), lambda told, n: (told["e2e_latency"] - told["first_token_latency"]) / (n - 1)),  # SGLang
)
_FIRST: tuple[_Rule, ...] = (
    (("prompt_ms",), lambda told, _: told["prompt_ms"] / 1e3),  # llama.cpp: without the queue
    (("prompt_eval_duration",), lambda told, _: told["prompt_eval_duration"] / 1e9),  # Ollama: without the queue
    (("time_to_first_token_ms",), lambda told, _: told["time_to_first_token_ms"] / 1e3),  # vLLM: counted from when it was scheduled
    (
        ("first_token_latency", "queue_time"),
        lambda told, _: told["first_token_latency"] - told["queue_time"],
    ),  # SGLang: counted from arrival
)
_QUEUE: tuple[_Rule, ...] = (
    (("queue_time_ms",), lambda told, _: told["queue_time_ms"] / 1e3),
    (("queue_time",), lambda told, _: told["queue_time"]),
)


def decode_s(s: Samples, tokens: Floats) -> Floats:
    """Seconds per output token after the first, as the engine says; NaN where it does not, or below 2 tokens. tokens: per request."""
    return _read(s, _DECODE, tokens)


def first_token_s(s: Samples) -> Floats:
    """Seconds from when the engine took the request up to its first token, as the engine says; its queue is left out."""
    return _read(s, _FIRST, np.full(len(s), np.nan))


def queue_s(s: Samples) -> Floats:
    """Seconds that the request waited inside the engine, as the engine says."""
    return _read(s, _QUEUE, np.full(len(s), np.nan))


def _read(s: Samples, rules: tuple[_Rule, ...], tokens: Floats) -> Floats:
    out = np.full(len(s), np.nan)
    for i, told in enumerate(s.server_timings):
        if told:
            out[i] = next((_figure(rule, told, float(tokens[i])) for needed, rule in rules if all(name in told for name in needed)), np.nan)
    return np.where(out >= 0, out, np.nan)


def _figure(rule: Callable[[_Told, float], float], told: _Told, tokens: float) -> float:
    try:
        return rule(told, tokens)
    except ZeroDivisionError:
        return np.nan  # a single token has no pace
