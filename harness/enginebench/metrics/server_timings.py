"""Timings that engines report per request: seconds per token, to the first token, and in the queue.

Engines measure different spans; each rule below says what it excludes. Pure functions of `Samples.server_timings`; an engine is recognized
by the names it uses. The rule of llama.cpp was checked against its server, those of Ollama, vLLM and SGLang against their sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from enginebench.records.samples import Samples

Floats = npt.NDArray[np.float64]
_Timings = Mapping[str, float]
_Rule = tuple[tuple[str, ...], Callable[[_Timings, float], float]]
"""The names that a rule needs, and the time in s from the reported timings and the output tokens of the request."""

_DECODE: tuple[_Rule, ...] = (
    # llama.cpp, and Ollama in ns: the clock starts with the first token, so n tokens are n - 1 steps
    (("predicted_ms", "predicted_n"), lambda its, _: its["predicted_ms"] / 1e3 / (its["predicted_n"] - 1)),
    (("eval_duration",), lambda its, n: its["eval_duration"] / 1e9 / (n - 1)),
    (("mean_itl_ms",), lambda its, _: its["mean_itl_ms"] / 1e3),  # vLLM
    (
        ("e2e_latency", "first_token_latency"),
        lambda its, n: (its["e2e_latency"] - its["first_token_latency"]) / (n - 1),
    ),  # SGLang
)
_FIRST: tuple[_Rule, ...] = (
    (("prompt_ms",), lambda its, _: its["prompt_ms"] / 1e3),  # llama.cpp: without the queue
    (("prompt_eval_duration",), lambda its, _: its["prompt_eval_duration"] / 1e9),  # Ollama: without the queue
    (("time_to_first_token_ms",), lambda its, _: its["time_to_first_token_ms"] / 1e3),  # vLLM: from when it was scheduled
    (("first_token_latency", "queue_time"), lambda its, _: its["first_token_latency"] - its["queue_time"]),  # SGLang
)
_QUEUE: tuple[_Rule, ...] = (
    (("queue_time_ms",), lambda its, _: its["queue_time_ms"] / 1e3),
    (("queue_time",), lambda its, _: its["queue_time"]),
)


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
        if reported:
            out[i] = next(
                (_figure(rule, reported, float(tokens[i])) for needed, rule in rules if all(name in reported for name in needed)), np.nan
            )
    return np.where(out >= 0, out, np.nan)


def _figure(rule: Callable[[_Timings, float], float], reported: _Timings, tokens: float) -> float:
    try:
        return rule(reported, tokens)
    except ZeroDivisionError:
        return np.nan  # a single token
