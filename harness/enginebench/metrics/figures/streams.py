"""How the output events of a request arrive: the gaps between them, and how many tokens each holds."""

import numpy as np
import numpy.typing as npt

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.registry import Need, Shown, Trait, metric
from enginebench.metrics.tokens import output_tokens, per_event
from enginebench.records.samples import Samples

READER_TOKENS_PER_S = 10
"""Reading speed of `reader_wait`: about 450 English words a minute, faster than almost all people read."""


@metric("longest stall", scope="request", unit="s", better="lower", traits={Trait.PACE, Trait.ONLINE, Trait.GAPS}, needs=(Need.EVENTS,))
def longest_gap(c: Context) -> Floats:
    """Longest stall: the largest gap between two output events of the request; undefined below 2 events."""
    s = c.samples
    out = np.full(len(s), np.nan)
    rows = np.flatnonzero(_streamed(s))
    if len(rows):
        starts = np.concatenate(([0], np.cumsum(s.events[rows] - 1)[:-1]))
        out[rows] = np.maximum.reduceat(itl(c), starts)
    return out


@metric(
    "reader's wait", header="reader waits", scope="request", unit="1", better="lower", traits={Trait.TOKENS, Trait.ONLINE, Trait.GAPS},
    needs=(Need.TOKENS,), shown=(Shown(38, 11, least=0.01),),
)  # fmt: skip
def reader_wait(c: Context) -> Floats:
    """Share of the reading time that a reader at 10 tokens/s waits: w / (w + n/10), n the output tokens, w the largest over the events
    of (arrival - first arrival - tokens before it / 10).

    The reader starts with the first event, takes 0.1 s per token, and cannot read a token before it arrives: token k is read at
    f(k) = max(f(k-1), arrival(k)) + 0.1 s. So f(n) is the largest over k of arrival(k) + (n - k) / 10, and w is the total wait.
    The tokens of a request are spread over its events as the server counted them, else evenly.
    """
    s, tokens = c.samples, output_tokens(c.samples)
    rows = np.flatnonzero(s.ok & s.inside & (s.events > 0) & (tokens > 0))
    out = np.full(len(s), np.nan)
    if not len(rows):
        return out
    some = np.flatnonzero(s.events > 0)
    starts = s.offsets[:-1][some]
    each = per_event(s, np.nan_to_num(tokens)) * (1e9 / READER_TOKENS_PER_S)
    behind = s.event_ns + (each - np.cumsum(each))  # off by a constant per request; only the rise from its first event counts
    wait = np.full(len(s), np.nan)
    wait[some] = np.maximum.reduceat(behind, starts) - behind[starts]
    out[rows] = wait[rows] / (wait[rows] + tokens[rows] * (1e9 / READER_TOKENS_PER_S))
    return out


@metric("tokens per event", scope="request", unit="tok", better=None, traits={Trait.TOKENS, Trait.GAPS}, needs=(Need.TOKENS,))
def tokens_per_event(c: Context) -> Floats:
    """Tokens per event: output tokens / output events of the request. 1 is a smooth stream; more is the size of each flush."""
    s = c.samples
    return np.where(s.ok & s.inside, output_tokens(s) / np.where(s.events > 0, s.events, np.nan), np.nan)


@metric(
    "ITL", scope="event", unit="s", better="lower", traits={Trait.PACE, Trait.ONLINE, Trait.GAPS}, needs=(Need.EVENTS,),
    shown=(Shown(35, 9, 99, always=True),), bundled_title="event interval",
)  # fmt: skip
def itl(c: Context) -> Floats:
    """Inter-token latency: the gap between consecutive output events of a request, over all requests of the cell.

    It is an interval between tokens only where every event carries exactly one token; otherwise reports call it *event interval*.
    """
    s, streamed = c.samples, _streamed(c.samples)
    if not streamed.any():
        return np.empty(0)
    wanted = np.repeat(streamed, s.events)
    wanted[s.offsets[:-1][streamed]] = False  # there is no gap before a request's first event
    return np.diff(s.event_ns)[wanted[1:]] / 1e9


def _streamed(s: Samples) -> npt.NDArray[np.bool_]:
    """Successful requests of the window with at least 2 events."""
    return s.ok & s.inside & (s.events > 1)
