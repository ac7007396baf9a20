"""Rates over the measured window, and how many requests succeeded. Tokens of failed requests do not count."""

import numpy as np

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.figures.requests import tpot
from enginebench.metrics.registry import Need, Shown, Trait, metric, one
from enginebench.metrics.statistics import percentile
from enginebench.metrics.tokens import output_tokens, share_inside


@metric(
    "output throughput", header="output", scope="cell", unit="tok/s", better="higher", traits={Trait.TIMELINE},
    needs=(Need.TOKENS,), shown=(Shown(0, 0, always=True),),
)  # fmt: skip
def output_throughput(c: Context) -> Floats:
    """Output throughput: output tokens of successful requests that arrived in the measured window / its length.

    Tokens are attributed to the window event by event; those of an answer without events arrived at its end. Undefined when the
    tokens of any of these requests are unknown, because a partial sum would be wrong.
    """
    s, share = c.samples, share_inside(c.samples)
    counted = s.ok & (share > 0)
    return _rate(c, float(np.sum(output_tokens(s)[counted] * share[counted])))


@metric("input throughput", scope="cell", unit="tok/s", better="higher", traits={Trait.TIMELINE})
def input_throughput(c: Context) -> Floats:
    """Input throughput: prompt tokens of successful requests whose first output arrived in the measured window / its length."""
    s = c.samples
    first = np.where(s.events > 0, s.edge(last=False), s.end_ns)
    counted = s.ok & (s.input_tokens >= 0) & s.in_window(first)
    return _rate(c, float(s.input_tokens[counted].sum()))


@metric(
    "request throughput", header="requests", scope="cell", unit="req/s", better="higher", traits={Trait.TIMELINE},
    shown=(Shown(37, 10, always=True),),
)  # fmt: skip
def request_throughput(c: Context) -> Floats:
    """Request throughput: successful requests that ended in the measured window / its length."""
    return _rate(c, float((c.samples.ok & c.samples.ended_inside).sum()))


@metric(
    "output throughput per user", header="per user", scope="cell", unit="tok/s", better="higher", traits={Trait.PACE, Trait.TOKENS},
    needs=(Need.EVENTS, Need.TOKENS), missing="needs 6 requests with 2 streamed events and 2 counted tokens each",
    shown=(Shown(36, 8, always=True),),
)  # fmt: skip
def user_throughput(c: Context) -> Floats:
    """Output throughput of one user: 1 / median TPOT, which needs 6 requests like any median."""
    middle = percentile(tpot(c), 50)
    return one(1 / middle if middle else None)


@metric("success rate", scope="cell", unit="1", better="higher")
def success_rate(c: Context) -> Floats:
    """Share of the requests that succeeded, without those that the load itself aborted."""
    s = c.samples
    counted = s.inside & ~s.aborted
    return one(s.ok[counted].mean() if counted.any() else None)


@metric("aborted requests", scope="cell", unit="1", better=None)
def aborted_requests(c: Context) -> Floats:
    """Share of the requests that the load itself aborted, as `cancel_share` asks for; undefined where it asks for none."""
    s = c.samples
    asked = c.load is not None and c.load.cancel_share > 0 and s.inside.any()
    return one(s.aborted[s.inside].mean() if asked else None)


def _rate(c: Context, amount: float) -> Floats:
    length = c.window_s
    return one(amount / length if length > 0 else None)
