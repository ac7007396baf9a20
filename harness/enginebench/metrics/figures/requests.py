"""Latencies and lengths of single requests, and the latencies that the engine itself reports.

One value per request of the window, NaN where undefined. Failed requests have none.
"""

import numpy as np
import numpy.typing as npt

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.registry import Need, Shown, Trait, metric
from enginebench.metrics.server_timings import decode_s, first_token_s
from enginebench.metrics.tokens import input_tokens, output_tokens, unstreamed


@metric("TTFT", scope="request", unit="s", better="lower", traits={Trait.LATENCY}, shown=(Shown(30, 2, always=True), Shown(31, 5, "tail")))
def ttft(c: Context) -> Floats:
    """Time to first token: arrival of the first event that carries output (text, reasoning or token ids) - sent.

    Headers, a role-only delta and keep-alive comments are not output. Undefined for a request without output.
    """
    s = c.samples
    return _seconds(c, s.events > 0, s.edge(last=False) - s.sent_ns)


@metric(
    "TTFT from scheduled arrival", header="TTFT sched.", scope="request", unit="s", better="lower",
    traits={Trait.LATENCY, Trait.DUE}, shown=(Shown(32, 6, "tail", unlike="ttft"),), slo_limit="ttft",
)  # fmt: skip
def ttft_due(c: Context) -> Floats:
    """Time to first token from scheduled arrival: first output event - due. It has no coordinated omission.

    In a closed loop it differs from TTFT only by the client's own delay.
    """
    s = c.samples
    return _seconds(c, s.events > 0, s.edge(last=False) - s.due_ns)


@metric(
    "time to first answer", header="first answer", scope="request", unit="s", better="lower", traits={Trait.LATENCY},
    missing="no answer arrived, or it could not be distinguished from reasoning", shown=(Shown(33, 7, unlike="ttft"),),
)  # fmt: skip
def ttfa(c: Context) -> Floats:
    """Time to first answer: arrival of the first output event that is answer and not reasoning - sent; undefined without one."""
    s = c.samples
    return _seconds(c, s.first_answer_ns > 0, s.first_answer_ns - s.sent_ns)


@metric(
    "TPOT", scope="request", unit="s", better="lower", traits={Trait.PACE, Trait.TOKENS}, needs=(Need.EVENTS, Need.TOKENS),
    missing="needs 2 streamed events and 2 counted tokens per request", shown=(Shown(34, 3, always=True),), slo_limit="tpot",
)  # fmt: skip
def tpot(c: Context) -> Floats:
    """Time per output token after the first: (last event - first event) / (output tokens - 1), undefined below 2 tokens or events.

    An answer in one event has no TPOT, however many tokens it holds, nor has one with tokens that were never streamed. Other tools call
    it `tpot` (vLLM, SGLang) or `inter_token_latency` (AIPerf, GuideLLM).
    """
    s, tokens = c.samples, output_tokens(c.samples)
    streamed = (tokens >= 2) & (s.events >= 2) & ~unstreamed(s)
    return _seconds(c, streamed, (s.edge(last=True) - s.edge(last=False)) / np.maximum(tokens - 1, 1))


@metric("E2E", scope="request", unit="s", better="lower", traits={Trait.LATENCY})
def e2e(c: Context) -> Floats:
    """End-to-end latency: last output event - sent."""
    s = c.samples
    return _seconds(c, s.events > 0, s.edge(last=True) - s.sent_ns)


@metric("E2E from scheduled arrival", scope="request", unit="s", better="lower", traits={Trait.LATENCY, Trait.DUE}, slo_limit="e2e")
def e2e_due(c: Context) -> Floats:
    """End-to-end latency from scheduled arrival: last output event - due."""
    s = c.samples
    return _seconds(c, s.events > 0, s.edge(last=True) - s.due_ns)


@metric("schedule delay", scope="request", unit="s", better="lower", traits={Trait.ONLINE, Trait.DUE})
def schedule_delay(c: Context) -> Floats:
    """Schedule delay: sent - due, the lateness of the client itself. In a closed loop a request is due when its stream is free."""
    s = c.samples
    return np.where(s.inside & (s.sent_ns > 0), (s.sent_ns - s.due_ns) / 1e9, np.nan)


@metric("TTFT reported by the engine", scope="request", unit="s", better="lower")
def engine_ttft(c: Context) -> Floats:
    """Time to first token as the engine reports it, from taking the request, without its queue; undefined where it reports none."""
    return _of_successful(c, first_token_s(c.samples))


@metric("TPOT reported by the engine", scope="request", unit="s", better="lower")
def engine_tpot(c: Context) -> Floats:
    """Time per output token after the first as the engine reports it, without network and client; undefined where it reports none."""
    return _of_successful(c, decode_s(c.samples, output_tokens(c.samples)))


@metric("ISL", scope="request", unit="tok", better=None)
def isl(c: Context) -> Floats:
    """Input sequence length: prompt tokens as the server counted them, undefined where it did not."""
    return _of_successful(c, input_tokens(c.samples))


@metric("OSL", scope="request", unit="tok", better=None, needs=(Need.TOKENS,))
def osl(c: Context) -> Floats:
    """Output sequence length: generated tokens as the server counted them, else as the checkpoint's own tokenizer counts them."""
    return _of_successful(c, output_tokens(c.samples))


def _of_successful(c: Context, values: Floats) -> Floats:
    return np.where(c.samples.ok & c.samples.inside, values, np.nan)


def _seconds(c: Context, defined: npt.NDArray[np.bool_], ns: npt.NDArray[np.int64] | Floats) -> Floats:
    return _of_successful(c, np.where(defined, ns / 1e9, np.nan))
