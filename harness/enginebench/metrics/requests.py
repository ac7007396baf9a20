"""Every metric: a name, a unit and a formula, in one place each. Pure functions of the raw samples of one cell.

Per-request metrics give one value per request (NaN where undefined); per-cell metrics give one number. Requests that failed are
left out of every latency and their tokens out of every throughput. Where the samples have a window (`Samples.within`), latencies
are those of requests sent in it, and rates count what arrived in it. docs/metrics.md is generated from these docstrings.
Knows no engine, no file, no repeats, and not how a window is found.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from enginebench.metrics.server_timings import decode_s, first_token_s
from enginebench.metrics.statistics import percentile
from enginebench.metrics.tokens import output_tokens, per_event, share_inside
from enginebench.records.samples import Samples

Floats: TypeAlias = npt.NDArray[np.float64]

READER_TOKENS_PER_S = 10
"""How fast the reader of `reader_wait` reads: about 450 English words a minute, faster than nearly everybody."""


@dataclass(frozen=True)
class Metric:
    """One metric. better: which direction is good, None where neither is. unit is SI ('s', 'tok/s', 'req/s', 'tok', '1')."""

    name: str
    label: str
    unit: str
    scope: Literal["request", "cell"]
    better: Literal["lower", "higher"] | None
    compute: Callable[..., Floats]
    """Of the samples; the metrics of an SLO (`enginebench.metrics.slo`) of the samples and the SLO."""

    @property
    def formula(self) -> str:
        """The first paragraph of the function's docstring."""
        return (inspect.getdoc(self.compute) or "").split("\n\n")[0].replace("\n", " ")


METRICS: dict[str, Metric] = {}


def _metric(
    name: str, label: str, unit: str, scope: Literal["request", "cell"], better: Literal["lower", "higher"] | None
) -> Callable[[Callable[[Samples], Floats]], Callable[[Samples], Floats]]:
    def register(compute: Callable[[Samples], Floats]) -> Callable[[Samples], Floats]:
        METRICS[name] = Metric(name, label, unit, scope, better, compute)
        return compute

    return register


# -- per request ---------------------------------------------------------------------------------------------------------


@_metric("ttft", "TTFT", "s", "request", "lower")
def ttft(s: Samples) -> Floats:
    """Time to first token: arrival of the first event that carries output (text, reasoning or token ids) - sent.

    Headers, a role-only delta and keep-alive comments are not output. NaN for a request without output.
    """
    return _where(s, s.events > 0, s.edge(last=False) - s.sent_ns)


@_metric("ttft_due", "TTFT from due", "s", "request", "lower")
def ttft_due(s: Samples) -> Floats:
    """Time to first token from when the request was due: first output event - due. What a user feels: no coordinated omission.

    In a closed loop it is the TTFT but for the client's own delay.
    """
    return _where(s, s.events > 0, s.edge(last=False) - s.due_ns)


@_metric("ttfa", "time to first answer", "s", "request", "lower")
def ttfa(s: Samples) -> Floats:
    """Time to first answer: arrival of the first output event that is answer and not reasoning - sent; undefined without one."""
    return _where(s, s.first_answer_ns > 0, s.first_answer_ns - s.sent_ns)


@_metric("tpot", "TPOT", "s", "request", "lower")
def tpot(s: Samples) -> Floats:
    """Time per output token after the first: (last event - first event) / (output tokens - 1), undefined below 2 tokens or events.

    An answer in one event has no pace, however many tokens it holds. Other tools call it `tpot` (vLLM, SGLang) or
    `inter_token_latency` (AIPerf, GuideLLM).
    """
    tokens = output_tokens(s)
    return _where(s, (tokens >= 2) & (s.events >= 2), (s.edge(last=True) - s.edge(last=False)) / np.maximum(tokens - 1, 1))


@_metric("e2e", "E2E", "s", "request", "lower")
def e2e(s: Samples) -> Floats:
    """End-to-end latency: last output event - sent."""
    return _where(s, s.events > 0, s.edge(last=True) - s.sent_ns)


@_metric("e2e_due", "E2E from due", "s", "request", "lower")
def e2e_due(s: Samples) -> Floats:
    """End-to-end latency from when the request was due: last output event - due."""
    return _where(s, s.events > 0, s.edge(last=True) - s.due_ns)


@_metric("schedule_delay", "schedule delay", "s", "request", "lower")
def schedule_delay(s: Samples) -> Floats:
    """Schedule delay: sent - due. How late the client itself was; in a closed loop a request is due when its slot falls free."""
    return np.where(s.inside & (s.sent_ns > 0), (s.sent_ns - s.due_ns) / 1e9, np.nan)


@_metric("longest_gap", "longest stall", "s", "request", "lower")
def longest_gap(s: Samples) -> Floats:
    """Longest stall: the largest gap between two output events of the request; undefined below 2 events."""
    out = np.full(len(s), np.nan)
    rows = np.flatnonzero(_paced(s))
    if len(rows):
        starts = np.concatenate(([0], np.cumsum(s.events[rows] - 1)[:-1]))
        out[rows] = np.maximum.reduceat(itl(s), starts)
    return out


@_metric("reader_wait", "reader's wait", "1", "request", "lower")
def reader_wait(s: Samples) -> Floats:
    """Share of the reading time that a reader at 10 tokens/s waits: w / (w + n/10), n the output tokens, w the largest over the events
    of (arrival - first arrival - tokens before it / 10).

    He begins with the first event, reads each token for 0.1 s, and none before it is there: he is done with token k at
    f(k) = max(f(k-1), arrival(k)) + 0.1 s, so f(n) is the largest over k of arrival(k) + (n - k) / 10, and w all that he waited.
    The tokens of a request are spread over its events as the server counted them, else evenly.
    """
    tokens = output_tokens(s)
    rows = np.flatnonzero(s.ok & s.inside & (s.events > 0) & (tokens > 0))
    out = np.full(len(s), np.nan)
    if not len(rows):
        return out
    some = np.flatnonzero(s.events > 0)
    starts = s.offsets[:-1][some]
    each = per_event(s, np.nan_to_num(tokens)) * (1e9 / READER_TOKENS_PER_S)
    behind = s.event_ns + (each - np.cumsum(each))  # off by a constant within each request; what counts is the rise from its first
    wait = np.full(len(s), np.nan)
    wait[some] = np.maximum.reduceat(behind, starts) - behind[starts]
    out[rows] = wait[rows] / (wait[rows] + tokens[rows] * (1e9 / READER_TOKENS_PER_S))
    return out


@_metric("tokens_per_event", "tokens per event", "tok", "request", None)
def tokens_per_event(s: Samples) -> Floats:
    """Tokens per event: output tokens / output events of the request. 1 is a smooth stream; more is what each flush held."""
    return _unless_failed(s, output_tokens(s) / np.where(s.events > 0, s.events, np.nan))


@_metric("engine_ttft", "TTFT by the engine", "s", "request", "lower")
def engine_ttft(s: Samples) -> Floats:
    """What the engine says it took from taking the request up to its first token, without its queue (NaN where it does not say)."""
    return _unless_failed(s, first_token_s(s))


@_metric("engine_tpot", "TPOT by the engine", "s", "request", "lower")
def engine_tpot(s: Samples) -> Floats:
    """What the engine says it took per output token after the first; no network, no client (NaN where it does not say)."""
    return _unless_failed(s, decode_s(s, output_tokens(s)))


@_metric("isl", "ISL", "tok", "request", None)
def isl(s: Samples) -> Floats:
    """Input sequence length: prompt tokens as the server counted them (NaN where it did not say)."""
    return _unless_failed(s, np.where(s.input_tokens >= 0, s.input_tokens, np.nan))


@_metric("osl", "OSL", "tok", "request", None)
def osl(s: Samples) -> Floats:
    """Output sequence length: generated tokens as the server counted them, else the checkpoint's own tokenizer (NaN where neither did)."""
    return _unless_failed(s, output_tokens(s))


# -- per event -----------------------------------------------------------------------------------------------------------


def itl(s: Samples) -> Floats:
    """Inter-token latency: the gap between consecutive output events of a request, over all requests of the cell.

    Only when every event carries exactly one token is it a token interval; otherwise it is an event interval (`itl_is_exact`).
    """
    paced = _paced(s)
    if not paced.any():
        return np.empty(0)
    wanted = np.repeat(paced, s.events)
    wanted[s.offsets[:-1][paced]] = False  # the gap before a request's first event is none
    return np.diff(s.event_ns)[wanted[1:]] / 1e9


def itl_is_exact(s: Samples) -> bool:
    """Whether each event carried one token: the engine says so per event, or events and counted tokens agree for each request."""
    rows = s.ok & (s.events > 0)
    if not rows.any():
        return False
    if (s.output_tokens[rows] == s.events[rows]).all():
        return True
    said = s.event_tokens[np.repeat(s.ok, s.events)]
    return bool((said == 1).all())


# -- per cell ------------------------------------------------------------------------------------------------------------


@_metric("output_throughput", "output tok/s", "tok/s", "cell", "higher")
def output_throughput(s: Samples) -> Floats:
    """Output throughput: output tokens of successful requests that arrived in the measured window / its length.

    Tokens are attributed to the window event by event; those of an answer without events arrived at its end. NaN when the tokens
    of any of these requests are not known: a sum that leaves some out would be a wrong number.
    """
    share = share_inside(s)
    counted = s.ok & (share > 0)
    return _rate(s, float(np.sum(output_tokens(s)[counted] * share[counted])))


@_metric("input_throughput", "input tok/s", "tok/s", "cell", "higher")
def input_throughput(s: Samples) -> Floats:
    """Input throughput: prompt tokens of successful requests whose first output arrived in the measured window / its length."""
    first = np.where(s.events > 0, s.edge(last=False), s.end_ns)
    counted = s.ok & (s.input_tokens >= 0) & s.in_window(first)
    return _rate(s, float(s.input_tokens[counted].sum()))


@_metric("request_throughput", "req/s", "req/s", "cell", "higher")
def request_throughput(s: Samples) -> Floats:
    """Request throughput: successful requests that ended in the measured window / its length."""
    return _rate(s, float((s.ok & s.ended_inside).sum()))


@_metric("user_throughput", "tok/s/user", "tok/s", "cell", "higher")
def user_throughput(s: Samples) -> Floats:
    """Output speed one user sees: 1 / median TPOT, which needs 6 requests like any median."""
    middle = percentile(tpot(s), 50)
    return one(1 / middle if middle else None)


@_metric("success_rate", "success", "1", "cell", "higher")
def success_rate(s: Samples) -> Floats:
    """Share of requests that ended well."""
    return one(s.ok[s.inside].mean() if s.inside.any() else None)


# -- shared --------------------------------------------------------------------------------------------------------------


def window_s(s: Samples) -> float:
    """Measured window in s: the steady part of the load where one was found; else first request sent to last response complete."""
    sent = s.sent_ns > 0
    if s.window_ns is not None:
        return (s.window_ns[1] - s.window_ns[0]) / 1e9
    return float(s.end_ns[sent].max() - s.sent_ns[sent].min()) / 1e9 if sent.any() else 0.0


def _paced(s: Samples) -> npt.NDArray[np.bool_]:
    """Requests of the window that have gaps between events."""
    return s.ok & s.inside & (s.events > 1)


def _rate(s: Samples, amount: float) -> Floats:
    window = window_s(s)
    return one(amount / window if window > 0 else None)


def _unless_failed(s: Samples, values: Floats) -> Floats:
    return np.where(s.ok & s.inside, values, np.nan)


def _where(s: Samples, defined: npt.NDArray[np.bool_], ns: npt.NDArray[np.int64] | Floats) -> Floats:
    return np.where(s.ok & s.inside & defined, ns / 1e9, np.nan)


def one(value: float | None) -> Floats:
    """A figure of a whole cell as metrics return it: an array of one; None is undefined (NaN)."""
    return np.array([np.nan if value is None else value])
