"""Timings that engines report per request: seconds per token, to the first token, and in the queue.

Engines measure different spans; each rule below says what it excludes. Pure functions of `Samples.server_timings`; an engine is recognized
by the names it uses. The rule of llama.cpp was checked against its server, those of Ollama, vLLM and SGLang against their sources.
"""

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from enginebench.metrics.statistics import Floats
from enginebench.records.samples import Samples

_Rule = tuple[tuple[str, ...], Callable[..., float]]
"""The names that a rule needs, and the time in s from the output tokens of the request and the reported values of these names."""

_DECODE: tuple[_Rule, ...] = (
    # llama.cpp, and Ollama in ns: the clock starts with the first token, so n tokens are n - 1 steps
    (("predicted_ms", "predicted_n"), lambda _, ms, n: ms / 1e3 / (n - 1)),
    (("eval_duration",), lambda n, ns: ns / 1e9 / (n - 1)),
    (("mean_itl_ms",), lambda _, ms: ms / 1e3),  # vLLM
    (("e2e_latency", "first_token_latency"), lambda n, whole, first: (whole - first) / (n - 1)),  # SGLang
)
_FIRST: tuple[_Rule, ...] = (
    (("prompt_ms",), lambda _, ms: ms / 1e3),  # llama.cpp: without the queue
    (("prompt_eval_duration",), lambda _, ns: ns / 1e9),  # Ollama: without the queue
    (("time_to_first_token_ms",), lambda _, ms: ms / 1e3),  # vLLM: from when it was scheduled
    (("first_token_latency", "queue_time"), lambda _, first, queue: first - queue),  # SGLang
)
_QUEUE: tuple[_Rule, ...] = ((("queue_time_ms",), lambda _, ms: ms / 1e3), (("queue_time",), lambda _, s: s))


def decode_s(s: Samples, tokens: Floats) -> Floats:
    """Seconds per output token after the first; NaN where the engine reports none, or below 2 tokens. tokens: per request."""
    return _read(s, _DECODE, tokens)


def first_token_s(s: Samples) -> Floats:
    """Seconds from when the engine took the request to its first token, without its queue."""
    return _read(s, _FIRST, np.full(len(s), np.nan))


def queue_s(s: Samples) -> Floats:
    """Seconds that the request waited in the engine's queue."""
    return _read(s, _QUEUE, np.full(len(s), np.nan))


def _read(s: Samples, rules: tuple[_Rule, ...], tokens: Floats) -> Floats:
    out = np.full(len(s), np.nan)
    for i, reported in enumerate(s.server_timings):
        for names, rule in rules:
            if reported and all(name in reported for name in names):
                with suppress(ZeroDivisionError):  # a single token
                    out[i] = rule(float(tokens[i]), *(reported[name] for name in names))
                break
    return np.where(out >= 0, out, np.nan)
