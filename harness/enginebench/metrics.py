"""Every metric: a name, a unit and a formula, in one place each. Pure functions of the raw samples of one cell.

Per-request metrics give one value per request (NaN where undefined); per-cell metrics give one number. Requests that failed are
left out of every latency and their tokens out of every throughput. docs/metrics.md is generated from these docstrings.
Knows no engine, no file, and no repeats.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from enginebench.samples import Samples
from enginebench.statistics import percentile

Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Metric:
    """One metric. better: which direction is good, None where neither is. unit is SI ('s', 'tok/s', 'req/s', 'tok', '1')."""

    name: str
    label: str
    unit: str
    scope: Literal["request", "cell"]
    better: Literal["lower", "higher"] | None
    compute: Callable[[Samples], Floats]

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
    return _where(s.ok & (s.events > 0), s.edge(last=False) - s.sent_ns)


@_metric("tpot", "TPOT", "s", "request", "lower")
def tpot(s: Samples) -> Floats:
    """Time per output token after the first: (last event - first event) / (output tokens - 1), undefined below 2 tokens or events.

    Output tokens are the server's count. An answer in one event has no pace, however many tokens it holds. Other tools call it
    `tpot` (vLLM, SGLang) or `inter_token_latency` (AIPerf, GuideLLM).
    """
    tokens = output_tokens(s)
    return _where(s.ok & (tokens >= 2) & (s.events >= 2), (s.edge(last=True) - s.edge(last=False)) / np.maximum(tokens - 1, 1))


@_metric("e2e", "E2E", "s", "request", "lower")
def e2e(s: Samples) -> Floats:
    """End-to-end latency: last output event - sent."""
    return _where(s.ok & (s.events > 0), s.edge(last=True) - s.sent_ns)


@_metric("schedule_delay", "schedule delay", "s", "request", "lower")
def schedule_delay(s: Samples) -> Floats:
    """Schedule delay: sent - due. How late the client itself was; in a closed loop a request is due when its slot falls free."""
    return _where(s.sent_ns > 0, s.sent_ns - s.due_ns)


@_metric("longest_gap", "longest stall", "s", "request", "lower")
def longest_gap(s: Samples) -> Floats:
    """Longest stall: the largest gap between two output events of the request; undefined below 2 events."""
    out = np.full(len(s), np.nan)
    rows = np.flatnonzero(s.ok & (s.events > 1))
    if len(rows):
        gaps, starts = _gaps_of(s, rows)
        out[rows] = np.maximum.reduceat(gaps, starts)
    return out


@_metric("isl", "ISL", "tok", "request", None)
def isl(s: Samples) -> Floats:
    """Input sequence length: prompt tokens as the server counted them (NaN where it did not say)."""
    return np.where(s.ok & (s.input_tokens >= 0), s.input_tokens, np.nan).astype(np.float64)


@_metric("osl", "OSL", "tok", "request", None)
def osl(s: Samples) -> Floats:
    """Output sequence length: generated tokens as the server counted them (NaN where it did not say)."""
    return np.where(s.ok, output_tokens(s), np.nan)


# -- per event -----------------------------------------------------------------------------------------------------------


def itl(s: Samples) -> Floats:
    """Inter-token latency: the gap between consecutive output events of a request, over all requests of the cell.

    Only when every event carries exactly one token is it a token interval; otherwise it is an event interval (`itl_is_exact`).
    """
    rows = np.flatnonzero(s.ok & (s.events > 1))
    return _gaps_of(s, rows)[0] if len(rows) else np.empty(0)


def itl_is_exact(s: Samples) -> bool:
    """Whether each event carried one token: the engine says so per event, or events and counted tokens agree for each request."""
    rows = np.flatnonzero(s.ok & (s.events > 0))
    if not len(rows):
        return False
    said = s.event_tokens[np.repeat(s.ok, s.events)]
    return bool((said == 1).all() or (s.output_tokens[rows] == s.events[rows]).all())


# -- per cell ------------------------------------------------------------------------------------------------------------


@_metric("output_throughput", "output tok/s", "tok/s", "cell", "higher")
def output_throughput(s: Samples) -> Floats:
    """Output throughput: output tokens of successful requests / measured window (first request sent to last response complete).

    NaN when the tokens of any successful request are not known: a sum that leaves some out would be a wrong number.
    """
    return _rate(s, float(np.sum(output_tokens(s)[s.ok])))


@_metric("input_throughput", "input tok/s", "tok/s", "cell", "higher")
def input_throughput(s: Samples) -> Floats:
    """Input throughput: prompt tokens of successful requests / measured window."""
    return _rate(s, float(s.input_tokens[s.ok & (s.input_tokens >= 0)].sum()))


@_metric("request_throughput", "req/s", "req/s", "cell", "higher")
def request_throughput(s: Samples) -> Floats:
    """Request throughput: successful requests / measured window."""
    return _rate(s, float(s.ok.sum()))


@_metric("user_throughput", "tok/s/user", "tok/s", "cell", "higher")
def user_throughput(s: Samples) -> Floats:
    """Output speed one user sees: 1 / median TPOT, which needs 6 requests like any median."""
    middle = percentile(tpot(s), 50)
    return np.array([1 / middle if middle else np.nan])


@_metric("success_rate", "success", "1", "cell", "higher")
def success_rate(s: Samples) -> Floats:
    """Share of requests that ended well."""
    return np.array([s.ok.mean() if len(s) else np.nan])


# -- shared --------------------------------------------------------------------------------------------------------------


def output_tokens(s: Samples) -> Floats:
    """Output tokens per request: the server's usage count; else the sum of per-event counts; else NaN (never a chunk count)."""
    said = np.where(s.event_tokens < 0, np.nan, s.event_tokens)
    sums = np.full(len(s), np.nan)
    rows = np.flatnonzero(s.events > 0)
    if len(rows):
        sums[rows] = np.add.reduceat(said, s.offsets[:-1][rows])
    return np.where(s.output_tokens >= 0, s.output_tokens, sums)


def window_s(s: Samples) -> float:
    """Measured window in s: first request sent to last response complete, of the requests that were sent."""
    sent = s.sent_ns > 0
    return float(s.end_ns[sent].max() - s.sent_ns[sent].min()) / 1e9 if sent.any() else 0.0


def _rate(s: Samples, amount: float) -> Floats:
    window = window_s(s)
    return np.array([amount / window if window > 0 else np.nan])


def _where(defined: npt.NDArray[np.bool_], ns: npt.NDArray[np.int64] | Floats) -> Floats:
    return np.where(defined, ns / 1e9, np.nan)


def _gaps_of(s: Samples, rows: npt.NDArray[np.int64]) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Gaps in s between consecutive events within each of these requests (each has >= 2 events), and where each request starts."""
    counts = s.events[rows]
    gaps = np.diff(s.event_ns) / 1e9
    inside = np.ones(len(gaps), dtype=bool)
    boundary = s.offsets[1:-1] - 1  # the gap from the last event of one request to the first of the next
    inside[boundary[(boundary >= 0) & (boundary < len(gaps))]] = False
    owner = np.repeat(np.arange(len(s)), s.events)[:-1]
    wanted = np.zeros(len(s), dtype=bool)
    wanted[rows] = True
    starts = np.concatenate(([0], np.cumsum(counts - 1)[:-1]))
    return gaps[inside & wanted[owner]], starts
