"""Token counts of requests: their source, when the tokens arrived, and whether several sources agree.

A chunk of a stream is never counted as a token. Pure functions of samples; it does not know metrics.
"""

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from enginebench.metrics.statistics import Floats
from enginebench.records.samples import Samples

TokenSource: TypeAlias = Literal["server usage", "stream counts", "local tokenizer", "unknown"]
"""From the most to the least trustworthy."""

APART, TOKENS_APART = 0.02, 1
"""Two counts of a request differ where they are further apart than both: this share, as text need not come back as the same tokens, and
this number, as not every source counts the end of sequence."""

FEW_EVENTS = 8
"""Characters per token of fewer events say nothing."""

SOURCES: tuple[TokenSource, ...] = get_args(TokenSource)


def output_tokens(s: Samples) -> Floats:
    """Output tokens per request: the server's usage count, else the sum of its per-event counts, else the count of the checkpoint's
    own tokenizer, else NaN."""
    usage, stream, local = _known(s)
    return np.where(np.isnan(usage), np.where(np.isnan(stream), local, stream), usage)


def input_tokens(s: Samples) -> Floats:
    """Prompt tokens per request as the server counted them; NaN where it did not."""
    return np.where(s.input_tokens >= 0, s.input_tokens, np.nan)


def unstreamed(s: Samples) -> npt.NDArray[np.bool_]:
    """Requests of which the server counted tokens that it never streamed: reasoning that it keeps to itself.

    Either it counts reasoning tokens, and the reasoning that came has fewer characters than these (a summary, or none at all: no more
    events than the other tokens). Or it counts over twice as many tokens as there were events, with less than a character for each.
    """
    n, tokens = len(s), np.nan_to_num(output_tokens(s))
    row = np.repeat(np.arange(n), s.events)
    chars = np.bincount(row, s.event_chars, n)
    thought = np.bincount(row, s.event_chars * (s.event_ns < s.first_answer_ns[row]), n)
    reasoning, others = s.reasoning_tokens, tokens - s.reasoning_tokens
    kept = (reasoning > 0) & np.where(thought > 0, thought < reasoning, s.events <= 1.1 * others + 2)
    silent = (s.events >= FEW_EVENTS) & (tokens > 2 * s.events) & (chars > 0) & (chars < tokens) & (s.stream_tokens < tokens)
    return s.ok & (s.events > 0) & (kept | silent)


def token_source(s: Samples) -> TokenSource:
    """The source of the output tokens of the successful requests; of several, the least trustworthy that was needed."""
    known = np.array(_known(s))[:, s.ok]
    if not known.shape[1]:
        return "unknown"
    first = np.where(np.isnan(known).all(axis=0), len(known), np.argmin(np.isnan(known), axis=0))
    return SOURCES[int(first.max())]


def disagreements(s: Samples) -> list[tuple[TokenSource, TokenSource, int, int]]:
    """Pairs of sources that counted the same requests: (one, other, requests where they differ, requests that both counted)."""
    known = [counts[s.ok] for counts in _known(s)]
    out: list[tuple[TokenSource, TokenSource, int, int]] = []
    for i, a in enumerate(known):
        for j, b in enumerate(known[i + 1 :], start=i + 1):
            both = ~np.isnan(a) & ~np.isnan(b)
            if both.any():
                off = np.abs(a - b)[both] > np.maximum(TOKENS_APART, APART * a[both])
                out.append((SOURCES[i], SOURCES[j], int(off.sum()), int(both.sum())))
    return out


def _known(s: Samples) -> tuple[Floats, Floats, Floats]:
    """Counts per request of each source, in the order of `TokenSource`; NaN where it has none."""
    usage, stream, local = (np.where(c >= 0, c, np.nan) for c in (s.output_tokens, s.stream_tokens, s.local_tokens))
    return usage, stream, local


# -- when they arrived ---------------------------------------------------------------------------------------------------


def per_event(s: Samples, tokens: Floats) -> Floats:
    """Tokens of each event; those of a request sum to its `tokens`.

    They are proportional to the server's per-event counts where it sent them for the whole request, and spread evenly elsewhere.
    """
    counted = s.stream_tokens > 0
    scale = tokens / np.maximum(np.where(counted, s.stream_tokens, s.events), 1)
    each = np.repeat(scale, s.events)
    if counted.all():
        each *= s.event_tokens
    elif counted.any():
        each *= np.where(np.repeat(counted, s.events), s.event_tokens, 1)
    return each


def one_token_per_event(s: Samples) -> bool:
    """Whether every event carried exactly one token: the counts of the events say so, or each request has as many events as tokens."""
    rows = s.ok & (s.events > 0)
    if not rows.any():
        return False
    if (s.output_tokens[rows] == s.events[rows]).all():
        return True
    return bool((s.event_tokens[np.repeat(s.ok, s.events)] == 1).all())


def share_inside(s: Samples) -> Floats:
    """Share of each request's tokens that arrived in the window, 0 to 1; an answer without events arrived at its end."""
    if s.window_ns is None:
        return np.ones(len(s))
    start, end = s.window_ns
    some = s.events > 0
    first, last = (np.where(some, s.edge(last=last), s.end_ns) for last in (False, True))
    share = ((first >= start) & (last <= end)).astype(np.float64)
    cut = np.flatnonzero(some & (share == 0) & (last >= start) & (first <= end))  # only these need their single events
    if len(cut):
        wanted = np.zeros(len(s), dtype=bool)
        wanted[cut] = True
        mine = np.repeat(wanted, s.events)
        at, each = s.event_ns[mine], per_event(s, np.ones(len(s)))[mine]
        starts = np.concatenate(([0], np.cumsum(s.events[cut])[:-1]))
        share[cut] = np.add.reduceat(np.where((start <= at) & (at <= end), each, 0.0), starts)
    return share
