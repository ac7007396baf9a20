"""Could the load generator keep up with the load?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from enginebench.domain.formatting import percent
from enginebench.records.samples import Samples
from enginebench.validity.check import Finding, Severity, Threshold, check
from enginebench.validity.context import CLIENT_FIGURES, REQUEST_TIMES, Context, number

LAG_FLOOR = Threshold(1, "ms")
LAG_OF_TTFT = Threshold(0.1, "share")
LAG_IN_TOKENS = Threshold(2)
CPU = Threshold(0.8, "share")
SHORTEST_CPU = Threshold(0.1, "s")
"""A single request in a millisecond is all work."""
IN_FLIGHT = Threshold(0.9, "share")
SETTLED = Threshold(3, "requests")
"""Per stream: from then on the mean number in flight means something."""
CALIBRATED = Threshold(1.1, "share")
"""Streams in step, with a token every 10 ms, have ten or eleven tokens in one bin of the peak rate."""
_BIN_NS = 100_000_000


@check(
    meaning="the client may be the bottleneck",
    when={
        "invalid": "the median client lag is over {LAG_FLOOR}, and over {LAG_OF_TTFT} of the median TTFT or {LAG_IN_TOKENS} times the "
        "median TPOT (kernel time stamps: over {LAG_FLOOR} and the median TPOT)",
        "suspect": "that holds for the p99 of the client lag; or the client used over {CPU} of a core in a load of {SHORTEST_CPU} or "
        "more; or a closed loop had below {IN_FLIGHT} of its `concurrency` in flight over {SETTLED} a stream or more; or the load went "
        "beyond `bench calibrate`: over {CALIBRATED} of its events/s, or more streams",
    },
    advice="free a core, lower `concurrency` or `rate`, or send from more processes: `bench run --client-processes 2`",
    needs=(REQUEST_TIMES, CLIENT_FIGURES),
)
def client_bound(cell: Context) -> Iterator[Finding]:
    """Client lag is how long received bytes wait until the client reads them.

    Where the read stamps a token, the median lag shifts every latency, and the p99 shifts the tail of TTFT and of the gaps. Where the
    kernel stamps it, a latency is right unless the next token of the stream arrives before the last one was read: both then may get
    one stamp.
    """
    yield from _lag(cell)
    cpu, window = cell.client("cpu_fraction"), cell.record.delivery.window_ns
    if cpu > CPU and (window is None or window[1] - window[0] >= SHORTEST_CPU * 1e9):
        yield Finding("suspect", f"the client used {percent(cpu)} of a core")
    held, wanted = cell.client("achieved_concurrency"), cell.load.concurrency
    full = not cell.load.open_loop and not cell.load.think_s and int((cell.samples.sent_ns > 0).sum()) >= SETTLED * wanted
    if full and 0 < held < IN_FLIGHT * wanted:
        yield Finding("suspect", f"{held:,.1f} of {wanted:,} requests in flight, on average, while there were more to send")
    yield from _beyond_calibration(cell)


def _lag(cell: Context) -> Iterator[Finding]:
    usual, high = cell.client("lag_p50_ms"), cell.client("lag_p99_ms")
    if cell.record.client.health.get("stamps") == "kernel":
        limit, figure, value = cell.tpot_ms, "TPOT", cell.tpot_ms
    else:
        bounds = (LAG_OF_TTFT * cell.ttft_ms, "TTFT", cell.ttft_ms), (LAG_IN_TOKENS * cell.tpot_ms, "TPOT", cell.tpot_ms)
        limit, figure, value = min(bounds)
    limit = max(LAG_FLOOR, limit)
    if high > limit:
        name, lag = ("p50", usual) if usual > limit else ("p99", high)
        severity: Severity = "invalid" if usual > limit else "suspect"
        share = percent(lag / value) if value else "more than 100 %"  # all tokens of a burst may have one stamp
        yield Finding(severity, f"client lag {name} {lag:.1f} ms is {share} of the median {figure} ({value:.1f} ms)")


def _beyond_calibration(cell: Context) -> Iterator[Finding]:
    limits = {name: number(cell.record.client.limit, name) for name in ("events_per_s", "streams")}
    beyond = []
    if limits["events_per_s"] and (peak := peak_events_per_s(cell.samples)) > CALIBRATED * limits["events_per_s"]:
        beyond.append(f"{peak:,.0f} events/s (of {limits['events_per_s']:,.0f})")
    if limits["streams"] and (peak := peak_in_flight(cell.samples)) > limits["streams"]:
        beyond.append(f"{peak:,.0f} requests in flight (of {limits['streams']:,.0f})")
    if beyond:
        yield Finding("suspect", f"beyond what this client was calibrated for: {' and '.join(beyond)}")


def peak_events_per_s(s: Samples) -> float:
    """Most output events in a tenth of a second of the load, per second."""
    if not len(s.event_ns):
        return 0.0
    since = s.event_ns - s.event_ns.min()
    return float(np.bincount(since // _BIN_NS).max()) * 1e9 / _BIN_NS


def peak_in_flight(s: Samples) -> float:
    """Most requests in flight at any moment of the load; one that ends when another is sent makes room for it."""
    sent = s.sent_ns > 0
    at = np.concatenate((s.end_ns[sent], s.sent_ns[sent]))
    step = np.repeat([-1, 1], int(sent.sum()))
    return float(np.cumsum(step[np.argsort(at, kind="stable")]).max(initial=0))
