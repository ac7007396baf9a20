"""Could the load generator keep up with the load?"""

import math
from collections.abc import Iterator

import numpy as np

from enginebench.domain.formatting import percent
from enginebench.records.samples import Samples
from enginebench.validity.check import Finding, Severity, Threshold, check
from enginebench.validity.checks.machine import FOREIGN
from enginebench.validity.context import CLIENT_FIGURES, REQUEST_TIMES, Context, number

LAG_FLOOR = Threshold(1, "ms")
LAG_OF_TTFT = Threshold(0.1, "share")
LAG_IN_TOKENS = Threshold(2)
SHARED = Threshold(0.05, "share")
CPU = Threshold(0.8, "share")
CROWDED = Threshold(0.9, "share")
SHORTEST_CPU = Threshold(0.1, "s")
"""A single request in a millisecond is all work."""
IN_FLIGHT = Threshold(0.9, "share")
SETTLED = Threshold(3, "requests")
"""Per stream: from then on the mean number in flight means something."""
CALIBRATED = Threshold(1.1, "share")
"""Streams in step, with a token every 10 ms, have ten or eleven tokens in one bin of the peak rate."""
_BIN_NS = 100_000_000
_MORE = "share the load among {0} hosts with `client_nodes: {0}`, or send from more processes with `--client-processes 2`"
_LAG = (
    "client lag is over {LAG_FLOOR} and over {LAG_OF_TTFT} of TTFT or {LAG_IN_TOKENS} times TPOT, both at their lower quartile (kernel "
    "time stamps: over {LAG_FLOOR} and TPOT)"
)


@check(
    meaning="the client may be the bottleneck",
    when={
        "invalid": f"the median {_LAG}",
        "suspect": "the p99 of client lag is (kernel time stamps: and over {SHARED} of the events share a stamp); or the client used over "
        "{CPU} of a core in a load of {SHORTEST_CPU} or more; or a closed loop had below {IN_FLIGHT} of its `concurrency` in flight over "
        "{SETTLED} a stream or more; or the load went beyond `bench calibrate`: over {CALIBRATED} of its events/s, or more streams",
    },
    advice="send from more processes with `--client-processes 2`, or lower `concurrency` or `rate`",
    needs=(REQUEST_TIMES, CLIENT_FIGURES),
)
def client_bound(cell: Context) -> Iterator[Finding]:
    """Client lag is how long received bytes wait until the client reads them.

    Where the read stamps a token, the median lag shifts every latency, and the p99 shifts the tail of TTFT and of the gaps. Where the
    kernel stamps it, a latency is right unless the next token of the stream arrives before the last one was read: both then get one
    stamp. Lag is compared with the fastest quarter of the requests, because what delays the client delays the engine as well.
    """
    if not _is_crowded(cell):
        yield from _lag(cell)
    cpu, window = cell.client("cpu_fraction"), cell.record.delivery.window_ns
    if cpu > CPU and (window is None or window[1] - window[0] >= SHORTEST_CPU * 1e9):
        yield Finding("suspect", f"the client used {percent(cpu)} of a core (limit {CPU})", excess=cpu / CPU)
    held, wanted = cell.client("achieved_concurrency"), cell.load.concurrency
    full = not cell.load.open_loop and not cell.load.think_s and int((cell.samples.sent_ns > 0).sum()) >= SETTLED * wanted
    if full and 0 < held < IN_FLIGHT * wanted:
        detail = f"{held:,.1f} of {wanted:,} requests in flight, on average, while there were more to send (limit {IN_FLIGHT})"
        yield Finding("suspect", detail, excess=wanted / held)
    yield from _beyond_calibration(cell)


@check(
    meaning="the machine had too few cores for engine, client and what else ran",
    when={
        "invalid": f"over {{CROWDED}} of the machine's CPU time was used, at most {{FOREIGN}} by other work, and the median {_LAG}",
        "suspect": "the same for the p99, as in `client_bound`",
    },
    advice="leave the client a core: lower the engine's `threads`, or attach from another machine",
    needs=(REQUEST_TIMES, CLIENT_FIGURES),
)
def crowded_machine(cell: Context) -> Iterator[Finding]:
    """The client lags although it needs little itself. Where other work takes the cores, `foreign_load` reports it."""
    if _is_crowded(cell) and (cell.hardware.foreign or 0.0) <= FOREIGN:
        yield from _lag(cell)


def _is_crowded(cell: Context) -> bool:
    """Not where the client is on other machines than the engine."""
    return not cell.record.client.hosts and (cell.hardware.busy or 0.0) > CROWDED and cell.client("cpu_fraction") <= CPU


def _lag(cell: Context) -> Iterator[Finding]:
    usual, high, health = cell.client("lag_p50_ms"), cell.client("lag_p99_ms"), cell.record.client.health
    kernel = health.get("stamps") == "kernel"
    bounds = [(LAG_OF_TTFT * cell.quick_ttft_ms, f"{LAG_OF_TTFT} of TTFT"), (LAG_IN_TOKENS * cell.quick_tpot_ms, f"{LAG_IN_TOKENS} x TPOT")]
    limit, basis = (cell.quick_tpot_ms, "TPOT") if kernel else min(bounds)
    limit, basis = max((LAG_FLOOR, "the least"), (limit, f"{basis} at its lower quartile"))
    harmless = kernel and "shared_stamps" in health and cell.client("shared_stamps") <= SHARED * cell.samples.events.sum()
    name, lag = ("p50", usual) if usual > limit else ("p99", high)
    if lag > limit and (name == "p50" or not harmless):
        severity: Severity = "invalid" if name == "p50" else "suspect"
        yield Finding(severity, f"client lag {name} {lag:.1f} ms (limit {limit:.1f} ms, {basis})", excess=lag / limit)


def _beyond_calibration(cell: Context) -> Iterator[Finding]:
    hosts = len(cell.record.client.hosts)
    limits = {name: number(cell.record.client.limit, name) for name in ("events_per_s", "streams")}
    for name, words, peak in (
        ("events_per_s", "events/s", peak_events_per_s(cell.samples) / CALIBRATED),
        ("streams", "requests in flight", peak_in_flight(cell.samples)),
    ):
        if limits[name] and peak > limits[name]:
            detail = f"{peak:,.0f} {words}, beyond what this client was calibrated for (limit {limits[name]:,.0f})"
            advice = _MORE.format(math.ceil(max(1, hosts) * peak / limits[name]))
            yield Finding("suspect", detail, advice=advice, excess=peak / limits[name])


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
