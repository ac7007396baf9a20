"""The measured window of a cell: the part of the load in which the server was steady, found from the samples.

First the plateau, while streams neither start nor end; then the rest of the warm-up and the cool-down is cut off by MSER; then the
remainder is tested for a trend. It knows the shape of the load, and no engine, metric or verdict.
"""

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from enginebench.domain import DrawnLoad, Load, Phase
from enginebench.metrics.statistics import Floats
from enginebench.metrics.tokens import output_tokens, per_event
from enginebench.metrics.trend import Trend, settled, trend
from enginebench.records.samples import Ints, Samples
from enginebench.records.window import State, Window
from enginebench.workload.arrivals import due_times

Span: TypeAlias = tuple[int, int]
"""Start and end, in ns."""

FEWEST_BATCHES = 8
"""Below 6 not even a series that rises at every step has a trend with p < 0.01; two more, so that some can be cut off."""

MOST_BATCHES = 30
"""More would be shorter, and neighbouring means less independent."""

REQUESTS_PER_BATCH = 3

_ENOUGH_TO_SETTLE = 12
"""With fewer batches, 5 % of steady series seem not to settle by chance."""

SURE = 0.01
MATTERS = 0.1
"""A trend counts if its p is below SURE, and it changes the value by the share MATTERS from the first third of the window to the last."""

CONTINUES = 0.05
"""Instead of SURE, for a trend that goes on as the part did that was cut off before it, if that was more than a fifth of the batches."""

BACKLOG = 0.03
"""A rise in flight counts only if it is at least this share of the requests sent meanwhile. The number in flight of an open loop varies,
most of all close to the server's limit; only beyond the limit does it grow by a share of all arrivals."""


def phase_span(s: Samples, load: Load, phase: Phase) -> Span | None:
    """Start and end of a phase of a load; None: the whole load. The start of the load follows from its first scheduled arrival."""
    if phase.end_s is None or not isinstance(load, DrawnLoad) or not len(s):
        return None
    start_ns = int(s.due_ns.min()) - round(float(due_times(load, 1)[0]) * 1e9)
    return start_ns + round(phase.start_s * 1e9), start_ns + round(phase.end_s * 1e9)


def steady_window(s: Samples, load: Load, phase: Phase | None = None) -> Window:
    """The steady part of a load, or of one phase of it, whose requests are those due in it.

    The *plateau* of a closed loop lasts from the start of its last stream (from the first send, if all start within a fifth of a request)
    until the first stream has nothing more to send; that of an open loop from the first send to the last. It is divided into *batches*
    of at least REQUESTS_PER_BATCH requests and a whole number of request periods, so that requests that prefill and decode in step do
    not look like a change. With fewer than FEWEST_BATCHES the window is the whole load and the state 'too short to tell'. MSER over the
    batches' output tokens/s (`enginebench.metrics.trend.settled`) cuts off the unsettled part: at most a third of the batches, and at most
    a quarter at the end, where loads have no transient of their own. A cut that reaches its limit has found no steady part: then nothing is
    cut and the state is 'unsteady', as it is where output tokens/s or in-flight requests have a trend in the remainder.

    A load that changes by design (`Load.change`) is 'changing by design' as a whole: all of it is measured, and nothing is tested.
    """
    within = None if phase is None else phase_span(s, load, phase)
    sent = s.sent_ns > 0
    mine = sent if within is None else sent & (within[0] <= s.due_ns) & (s.due_ns < within[1])
    if not mine.any():
        return Window(*(within or (0, 0)), "too short to tell", "nothing was sent")
    whole = within or (int(s.sent_ns[sent].min()), int(s.end_ns[sent].max()))
    if within is None and load.change:
        return _window(whole, whole, "changing by design", load.change)
    starts, ends = _units(s, mine)
    plateau, period = _plateau(s, mine, starts, ends, load)
    width, n = _batches(starts, plateau[1] - plateau[0], period)
    if n < FEWEST_BATCHES:
        return _window(whole, whole, "too short to tell", f"fewer than {FEWEST_BATCHES} consecutive batches of requests")
    edges = plateau[1] - width * np.arange(n, -1, -1)
    return _settled_part(whole, plateau, edges, starts, _tokens_per_batch(s, edges), _in_flight(s, sent, edges))


def _settled_part(whole: Span, plateau: Span, edges: Ints, starts: Ints, tokens: Floats, in_flight: Floats) -> Window:
    """The window within a plateau, from the output tokens and in-flight requests of its batches."""
    n = len(tokens)
    head, tail = settled(tokens, n // 3, n // 4, n // 3)
    unsettled = head + tail == n // 3 or tail == n // 4
    if unsettled:
        head = tail = 0
    kept = slice(head, n - tail)
    if not tokens[kept].any():  # without output the variance is 0
        return _window(whole, whole, "unsteady", f"no output in {n - head - tail} of {n} consecutive batches")
    span = (int(edges[head]) if head else plateau[0]), int(edges[n - tail])
    arrived = int(((span[0] <= starts) & (starts <= span[1])).sum())
    produced = trend(tokens[kept])
    continues = 5 * head > n and (tokens[kept].mean() - tokens[:head].mean()) * produced.rise > 0
    moving = _moving(produced, trend(in_flight[kept]), arrived, CONTINUES if continues else SURE)
    small = 2 * (span[1] - span[0]) < whole[1] - whole[0]
    chosen, basis = whole if small else span, f"over {n - head - tail} batches of {(edges[1] - edges[0]) / 1e9:.3g} s"
    if moving:
        return _window(chosen, whole, "unsteady", f"{moving}, {basis}")
    if unsettled:
        state: State = "unsteady" if n >= _ENOUGH_TO_SETTLE else "too short to tell"
        return _window(chosen, whole, state, f"output tokens/s did not settle, {basis}")
    if small:
        return _window(chosen, whole, "too short to tell", "filling and draining took more than half of the time")
    return _window(chosen, whole, "steady", f"no trend in output tokens/s and in-flight requests, {basis}")


def _window(span: Span, whole: Span, state: State, why: str) -> Window:
    return Window(*span, state, why, (span[0] - whole[0]) / 1e9, (whole[1] - span[1]) / 1e9)


def _moving(tokens: Trend, in_flight: Trend, arrived: int, sure: float) -> str:
    """Which of the two has a trend, in words; empty if neither has. sure: the p below which that of the tokens counts."""
    matters = {
        "output tokens/s": (tokens, sure),
        "in-flight requests": (in_flight, SURE if abs(in_flight.rise) > BACKLOG * arrived else 0.0),
    }
    found = {name: its for name, (its, below) in matters.items() if its.p < below and abs(its.change) > MATTERS}
    parts = [
        f"{name} rose by {its.change:.0%}" if its.rise > 0 else f"{name} fell by {min(1.0, -its.change):.0%}" for name, its in found.items()
    ]
    least = max((its.p for its in found.values()), default=0.0)
    return f"{' and '.join(parts)} from the first third to the last (p={max(least, 1e-4):.2g})" if parts else ""


# -- plateau and batches -------------------------------------------------------------------------------------------------------


def _units(s: Samples, sent: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Start and end of each conversation or single request, ordered by start: the units that a stream sends one by one."""
    alone = -2 - np.arange(len(s))
    of = np.where(s.conversation >= 0, s.conversation, alone)[sent]
    order = np.argsort(of, kind="stable")
    firsts = np.flatnonzero(np.diff(of[order], prepend=of[order[0]] - 1))
    starts = np.minimum.reduceat(s.sent_ns[sent][order], firsts)
    ends = np.maximum.reduceat(s.end_ns[sent][order], firsts)
    by_start = np.argsort(starts, kind="stable")
    return starts[by_start], ends[by_start]


def _full(starts: Ints, ends: Ints, concurrency: int) -> int:
    """The index of the start that brought all streams of a closed loop in flight, or as many as ever were."""
    in_flight = np.arange(1, len(starts) + 1) - np.searchsorted(np.sort(ends), starts, side="right")
    return int((in_flight >= min(concurrency, in_flight.max())).argmax())


def _cycle(starts: Ints, full: int, concurrency: int) -> float:
    """Time of a stream of a closed loop per request, in ns; 0 if none started after all were in flight.

    concurrency / rate of starts once all streams run (Little 1961): exact for requests in step, including the client's pauses.
    """
    after = len(starts) - 1 - full
    return concurrency * float(starts[-1] - starts[full]) / after if after > 0 else 0.0


def _memory(s: Samples, mine: npt.NDArray[np.bool_]) -> float:
    """For how long requests in flight depend on earlier ones, in ns: twice the mean duration of the requests in flight at a moment.

    That mean is sum d^2 / sum d over the durations d. They exclude the queue (every first token counts as fast as the fastest), because
    otherwise the batches of an overloaded server would grow until too few are left to test.
    """
    some = mine & (s.events > 0)
    first, last = s.edge(last=False), s.edge(last=True)
    if not some.any():
        some, first, last = mine, s.end_ns, s.end_ns
    durations = ((last - first)[some] + (first - s.sent_ns)[some].min()).astype(np.float64)
    return 2 * float(durations @ durations / max(durations.sum(), 1.0))


def _plateau(s: Samples, mine: npt.NDArray[np.bool_], starts: Ints, ends: Ints, load: Load) -> tuple[Span, float]:
    """(plateau, period of a request in ns); the period is 0 if there are too few requests."""
    first, last = int(starts[0]), int(starts[-1])
    if load.open_loop:
        return (first, last), _memory(s, mine)
    full = _full(starts, ends, load.concurrency)
    period = _cycle(starts, full, load.concurrency)
    if period <= 0:
        return (first, last), 0.0
    begin, after = int(starts[full]), ends[ends >= last]
    if not len(after):  # a clock went backwards
        return (first, last), 0.0
    return (begin if begin - first > period / 5 else first, int(after.min())), period


def _batches(starts: Ints, span: int, period: float) -> tuple[int, int]:
    """(length of a batch in ns, number of batches). They end with the plateau; the remainder is at its start."""
    if period <= 0 or span <= 0:
        return 0, 0
    spacing = float(starts[-1] - starts[0]) / (len(starts) - 1)
    periods = max(1, math.ceil(max(REQUESTS_PER_BATCH * spacing, span / MOST_BATCHES) / period - 1e-6))
    n = math.floor(span / (periods * period) + 0.1)  # up to a tenth of a batch is jitter of the last period
    return (int(min(periods * period, span / n)), n) if n else (0, 0)


# -- series over the batches ---------------------------------------------------------------------------------------------


def _tokens_per_batch(s: Samples, edges: Ints) -> Floats:
    """Output tokens of all requests that arrived in each batch; events where tokens were not counted."""
    counted = output_tokens(s)
    tokens = np.where(np.isnan(counted), s.events, counted)
    silent = s.events == 0
    return _binned(s.event_ns, per_event(s, tokens), edges) + _binned(s.end_ns[silent], tokens[silent], edges)


def _binned(at: Ints, weights: Floats, edges: Ints) -> Floats:
    n = len(edges) - 1
    place = (at - edges[0]) * (1 / float(edges[1] - edges[0])) + 1  # bin 0: before the first edge; truncation is towards zero
    places = np.clip(place, 0, n + 1, out=place).astype(np.int64)
    return np.asarray(np.bincount(places, weights=weights, minlength=n + 2)[1 : n + 1], dtype=np.float64)


def _in_flight(s: Samples, sent: npt.NDArray[np.bool_], edges: Ints) -> Floats:
    """Mean number of requests in flight in each batch: differences of the request-seconds elapsed at each edge."""
    spent = _elapsed(s.sent_ns[sent], edges) - _elapsed(s.end_ns[sent], edges)
    return np.asarray(np.diff(spent) / np.diff(edges), dtype=np.float64)


def _elapsed(since: Ints, edges: Ints) -> Floats:
    """For each edge, the sum of (edge - time) over the times before it, in ns."""
    ordered = np.sort(since - edges[0]).astype(np.float64)
    sums = np.concatenate(([0.0], np.cumsum(ordered)))
    at = (edges - edges[0]).astype(np.float64)
    before = np.searchsorted(ordered, at)
    return np.asarray(before * at - sums[before], dtype=np.float64)
