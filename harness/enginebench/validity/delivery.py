"""Was the load that was asked for the load that was sent, by a client that could bear it, long enough to mean something?

Judges what the load generator did and knows of itself; what the server answered is judged in `enginebench.validity.judge`. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from enginebench.domain import JSON, Load
from enginebench.metrics.context import Floats
from enginebench.metrics.figures.requests import tpot, ttft
from enginebench.metrics.registry import Trait, names_with
from enginebench.metrics.statistics import median
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord
from enginebench.records.window import Window
from enginebench.validity.checks import Check, Reason, Severity

_PEAK_NS = 100_000_000
"""Bins of the peak event rate."""
_ONE_TICK_MORE = 1.1
"""Streams in step, with a token every 10 ms, have ten tokens in such a bin, or eleven."""
_FELL_BEHIND_S = 1.0
_STAYED, _SIGMAS = 0.1, 4.0

_OPEN_REQUESTS = 20
"""Fewest requests of an open loop."""

_SHORTEST_NS = 100_000_000
"""Of a window whose share of a core says anything: a single request in a millisecond is all work."""

_HELD = 0.9
"""Share of the wanted requests in flight below which the server was not under the load that the cell is named after."""
_SETTLED = 3
"""Requests a stream from which on the mean of those in flight says something."""

_LONG_ENOUGH = 0.9
"""Share of a closed loop's duration after which it no longer matters that there is nothing more to send."""


def ended(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """Stopped before it was over. A load with a duration ends when that is over, whatever has not been sent by then."""
    load, unsent = record.load, record.unsent - lost_turns(record, s)
    if record.saturated is not None:
        yield Reason(Check.OVERSATURATED, "invalid", record.saturated, names_with(Trait.LATENCY))
    elif record.stopped or (unsent and load.duration_s is None):
        of = f" of {load.requests:,}" if load.requests else ""
        detail = f"{unsent:,}{of} requests were never sent ({record.stopped or 'the load ended early'})"
        yield Reason(Check.ENDED_EARLY, "invalid", detail)
    elif not unsent and not load.open_loop and load.duration_s is not None:
        yield from _used_up(load, load.duration_s, len(s) + record.unsent, s)


def lost_turns(record: CellRecord, s: Samples) -> int:
    """How many turns were not sent because one before them in their conversation had failed, at most: a recorded one may be shorter.

    None of a load that was broken off, since that is why they were not sent.
    """
    followers = (record.load.turns - 1 - s.turn)[~s.ok & (s.conversation >= 0)]
    return 0 if record.stopped else min(record.unsent, int(followers.sum()))


def _used_up(load: Load, duration_s: float, prepared: int, s: Samples) -> Iterator[Reason]:
    """A closed loop for a duration whose streams found nothing more to send, although the scenario set no such limit."""
    sent = s.sent_ns > 0
    if not sent.any() or 0 < load.requests <= prepared:
        return
    idle = s.end_ns[sent & (s.end_ns >= s.sent_ns.max())].min()  # before that every stream was busy
    after_s = float(idle - s.sent_ns[sent].min()) / 1e9
    if after_s < _LONG_ENOUGH * duration_s:
        yield Reason(Check.ENDED_EARLY, "suspect", f"all {prepared:,} requests were used up after {after_s:.2g} of {duration_s:g} s")


def client(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """Lag is how long a token waits until it is read.

    Stamped by the read, its median shifts every latency, and its p99 the tail of TTFT and of the gaps. Stamped by the kernel, a latency is
    right until the next token of the stream is there before the last one was read: then both may have one stamp.
    """
    usual, worst = number(record.client, "lag_p50_ms"), number(record.client, "lag_p99_ms")
    first, pace = _median_ms(ttft(s)), _median_ms(tpot(s))
    limit = max(1.0, pace if record.client.get("stamps") == "kernel" else min(0.1 * first, 2 * pace))
    if worst > limit:
        figures = f"TTFT {first:.1f} ms, {pace:.1f} ms per token"
        late = f"tokens waited {usual:.1f} ms (p50), {worst:.1f} ms (p99) until the client read them, at {figures}"
        yield Reason(Check.CLIENT_BOUND, "invalid" if usual > limit else "suspect", late)
    cpu = number(record.client, "cpu_fraction")
    if cpu > 0.8 and (record.window_ns is None or record.window_ns[1] - record.window_ns[0] >= _SHORTEST_NS):
        yield Reason(Check.CLIENT_BOUND, "suspect", f"the client used {cpu:.0%} of a core")
    yield from _short_of_streams(record, s)
    yield from _beyond_calibration(record, s)


def _short_of_streams(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """A closed loop holds its number of requests in flight, but for the moments in which the client is late to send the next one."""
    held, wanted = number(record.client, "achieved_concurrency"), record.load.concurrency
    settled = not record.load.open_loop and not record.load.think_s and int((s.sent_ns > 0).sum()) >= _SETTLED * wanted
    if settled and 0 < held < _HELD * wanted:
        yield Reason(
            Check.CLIENT_BOUND, "suspect", f"{held:,.1f} of {wanted:,} requests in flight, on average, while there were more to send"
        )


def _beyond_calibration(record: CellRecord, s: Samples) -> Iterator[Reason]:
    limits = {name: number(record.client_limit, name) for name in ("events_per_s", "streams")}
    peaks = {name: peak(s) for name, peak in (("events_per_s", peak_events_per_s), ("streams", peak_in_flight)) if limits[name]}
    words = {"events_per_s": "events/s", "streams": "requests in flight"}
    slack = {"events_per_s": _ONE_TICK_MORE, "streams": 1.0}
    beyond = [f"{found:,.0f} {words[name]} (of {limits[name]:,.0f})" for name, found in peaks.items() if found > slack[name] * limits[name]]
    if beyond:
        yield Reason(Check.CLIENT_BOUND, "suspect", f"beyond what this client was calibrated for: {' and '.join(beyond)}")


def peak_events_per_s(s: Samples) -> float:
    """Most output events in a tenth of a second of the load, per second."""
    if not len(s.event_ns):
        return 0.0
    since = s.event_ns - s.event_ns.min()
    return float(np.bincount(since // _PEAK_NS).max()) * 1e9 / _PEAK_NS


def peak_in_flight(s: Samples) -> float:
    """Most requests in flight at any moment of the load; one that ends when another is sent makes room for it."""
    sent = s.sent_ns > 0
    at = np.concatenate((s.end_ns[sent], s.sent_ns[sent]))
    step = np.repeat([-1, 1], int(sent.sum()))
    return float(np.cumsum(step[np.argsort(at, kind="stable")]).max(initial=0))


def rate(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """Open loop: were requests sent when they were due? Later turns are due when the answer before is there, so they do not count."""
    first = (s.turn == 0) & (s.sent_ns > 0)
    if not record.load.open_loop or first.sum() < 2:
        return
    delay_ms = float(np.percentile((s.sent_ns - s.due_ns)[first], 99)) / 1e6
    ttft_ms = _median_ms(ttft(s))
    if delay_ms > max(10.0, 0.1 * ttft_ms):
        detail = f"requests were sent {delay_ms:,.1f} ms late (p99), at a median TTFT of {ttft_ms:,.1f} ms"
        yield Reason(Check.RATE_NOT_ACHIEVED, "suspect", detail)
    due_s, sent_s = (float(np.ptp(at[first])) / 1e9 for at in (s.due_ns, s.sent_ns))
    if due_s < 0.98 * sent_s and sent_s - due_s > 0.01:
        gaps = int(first.sum()) - 1
        severity: Severity = "invalid" if due_s < 0.9 * sent_s else "suspect"
        wanted = f"{gaps / due_s:,.3g}" if due_s else "infinitely many"
        yield Reason(Check.RATE_NOT_ACHIEVED, severity, f"{gaps / sent_s:,.3g} of {wanted} requests/s were sent")


def size(record: CellRecord, s: Samples, window: Window) -> Iterator[Reason]:
    """Enough requests, a window long enough, and steady."""
    load = record.load
    if load.open_loop and len(s) < _OPEN_REQUESTS:
        yield Reason(Check.FEW_REQUESTS, "suspect", f"{len(s)} requests")
    elif not load.open_loop and len(s) < 2 * load.concurrency:
        yield Reason(Check.FEW_REQUESTS, "suspect", f"{len(s)} requests for {load.concurrency} streams")
    if window.length_s < 0.5:
        yield Reason(Check.SHORT_WINDOW, "suspect", f"window of {window.length_s:.2f} s")
    if window.state == "unsteady":
        yield Reason(Check.NOT_STEADY, "suspect", window.why)
    yield from _fell_behind(record, s)


def _fell_behind(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """An open loop that left a queue: far more were unanswered when the last request was due than halfway, and they took longer than any
    answer takes that has not waited. Of a load whose rate changes, and of one only a little too much, nothing else tells.

    How many are unanswered wanders in any queue; by chance as many as _SIGMAS standard deviations of the arrivals meanwhile (Poisson).
    """
    answered = s.ok & (s.events > 0)
    if not record.load.open_loop or record.load.turns > 1 or record.saturated or not answered.any():
        return
    first, last, due = s.edge(last=False)[answered], s.edge(last=True)[answered], np.sort(s.due_ns)
    middle, end = int(due[0] + due[-1]) // 2, int(due[-1])
    open_at = [int((due <= at).sum() - (s.end_ns <= at).sum()) for at in (middle, end)]
    arrived = int((due > middle).sum())
    longest_s = float((last - first).max() + (first - s.sent_ns[answered]).min()) / 1e9
    left_s = float(last.max() - end) / 1e9
    if open_at[1] - open_at[0] > max(_STAYED * arrived, _SIGMAS * arrived**0.5) and left_s > longest_s + _FELL_BEHIND_S:
        detail = f"{open_at[0]:,} requests were open halfway, {open_at[1]:,} when the last one was due, and those took {left_s:.3g} s more"
        yield Reason(Check.OVERSATURATED, "suspect", detail)


def _median_ms(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return median(defined) * 1e3 if len(defined) else np.inf


def number(told: Mapping[str, JSON], name: str) -> float:
    """A figure that a record may lack, or hold as something else: 0 then."""
    value = told.get(name)
    return float(value) if isinstance(value, int | float) else 0.0
