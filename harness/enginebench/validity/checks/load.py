"""Was the load sent as the scenario asked, and long enough to mean something?"""

from collections.abc import Iterator

import numpy as np

from enginebench.metrics.registry import Trait
from enginebench.metrics.window import MATTERS, SURE
from enginebench.validity.check import Finding, Severity, Threshold, check
from enginebench.validity.context import DUE_TIMES, RAW_SAMPLES, SUCCESSES, Context, Requirement

LONG_ENOUGH = Threshold(0.9, "share")
LATE_MS, LATE_OF_TTFT = Threshold(10, "ms"), Threshold(0.1, "share")
RATE_SUSPECT, RATE_INVALID = Threshold(0.98, "share"), Threshold(0.9, "share")
RATE_SLACK = Threshold(0.01, "s")
LEFT_OF_ARRIVALS, LEFT_SIGMAS, LEFT_LATER = Threshold(0.1, "share"), Threshold(4), Threshold(1, "s")
FEWEST_OPEN, FEWEST_PER_STREAM = Threshold(20, "requests"), Threshold(2)
SHORTEST = Threshold(0.5, "s")
TREND, CHANCE = Threshold(MATTERS, "share"), Threshold(SURE)

QUEUE = Requirement("times at which requests were sent and due", lambda cell: not {"start times", "due times"} & set(cell.lacks))
TESTED_WINDOW = Requirement(
    "trend test (too few requests, or the rate changes by design)", lambda cell: cell.window.state in ("steady", "unsteady")
)


@check(
    meaning="the tool that measured it says itself that this is no valid result",
    when={"invalid": "the file of another tool calls its run invalid or interrupted"},
    advice="remove the cause that is named, and measure again",
)
def rejected_by_its_tool(cell: Context) -> Iterator[Finding]:
    """Only imported runs have such a verdict, from tools that judge a run: MLPerf's."""
    if cell.record.imported is not None and cell.record.imported.rejected:
        yield Finding("invalid", cell.record.imported.rejected)


@check(
    meaning="the load was not the one that the scenario asks for",
    when={
        "invalid": "the load was broken off, or a load without `duration_s` left requests unsent",
        "suspect": "a closed loop ran out of requests before {LONG_ENOUGH} of its `duration_s`, and the scenario does not limit `requests`",
    },
    advice="remove the cause that is named, and measure again with `bench run --fresh`",
    needs=(RAW_SAMPLES,),
)
def ended_early(cell: Context) -> Iterator[Finding]:
    """A load with a duration ends when that is over, whatever is unsent by then."""
    record, load = cell.record, cell.load
    unsent = record.delivery.unsent - cell.lost_turns
    if record.delivery.saturated is not None:
        return  # `oversaturated` reports it
    if record.delivery.stopped or (unsent and load.duration_s is None):
        of = f" of {load.requests:,}" if load.requests else ""
        yield Finding("invalid", f"{unsent:,}{of} requests were never sent ({record.delivery.stopped or 'the load ended early'})")
    elif not unsent and not load.open_loop and load.duration_s is not None:
        yield from _used_up(cell, load.duration_s)


def _used_up(cell: Context, duration_s: float) -> Iterator[Finding]:
    s, prepared = cell.samples, len(cell.samples) + cell.record.delivery.unsent
    sent = s.sent_ns > 0
    if not sent.any() or 0 < cell.load.requests <= prepared:
        return
    idle = s.end_ns[sent & (s.end_ns >= s.sent_ns.max())].min()  # before that every stream was busy
    after_s = float(idle - s.sent_ns[sent].min()) / 1e9
    if after_s < LONG_ENOUGH * duration_s:
        detail = f"all {prepared:,} requests were used up after {after_s:.2g} of {duration_s:g} s (limit {LONG_ENOUGH})"
        yield Finding("suspect", detail, excess=duration_s / max(after_s, 1e-9))


@check(
    meaning="the client did not send the load at its rate",
    when={
        "invalid": "requests went out at below {RATE_INVALID} of the rate of an open loop, and over {RATE_SLACK} late in all",
        "suspect": "requests went out at below {RATE_SUSPECT} of that rate, or the p99 of their delay is over {LATE_MS} and "
        "{LATE_OF_TTFT} of TTFT at its lower quartile",
    },
    advice="send from more processes with `--client-processes 2`, or raise `concurrency` if it caps the load",
    needs=(DUE_TIMES,),
)
def rate_not_achieved(cell: Context) -> Iterator[Finding]:
    """Later turns do not count: each is due when the reply before it is complete."""
    s = cell.samples
    first = (s.turn == 0) & (s.sent_ns > 0)
    if not cell.load.open_loop or first.sum() < 2:
        return
    delay_ms = float(np.percentile((s.sent_ns - s.due_ns)[first], 99)) / 1e6
    limit_ms = max(LATE_MS, LATE_OF_TTFT * cell.quick_ttft_ms)
    if delay_ms > limit_ms:
        detail = f"requests were sent {delay_ms:,.1f} ms late (p99; limit {limit_ms:,.1f} ms)"
        yield Finding("suspect", detail, excess=delay_ms / limit_ms)
    due_s, sent_s = (float(np.ptp(at[first])) / 1e9 for at in (s.due_ns, s.sent_ns))
    if due_s < RATE_SUSPECT * sent_s and sent_s - due_s > RATE_SLACK:
        gaps = int(first.sum()) - 1
        wanted = f"{gaps / due_s:,.3g}" if due_s else "infinitely many"
        severity: Severity = "invalid" if due_s < RATE_INVALID * sent_s else "suspect"
        limit = RATE_INVALID if severity == "invalid" else RATE_SUSPECT
        yield Finding(severity, f"{gaps / sent_s:,.3g} of {wanted} requests/s were sent (limit {limit})", excess=sent_s / max(due_s, 1e-9))


@check(
    meaning="the queue grew without bound",
    when={
        "invalid": "the load generator broke an open loop off because the queue grew without bound (latencies are withheld)",
        "suspect": "from halfway to the last arrival of an open loop, open requests rose by over {LEFT_OF_ARRIVALS} of the arrivals "
        "meanwhile and {LEFT_SIGMAS} times their square root, and the last reply came over {LEFT_LATER} later than the longest reply "
        "without a queue takes",
    },
    advice="lower `rate`, or search for the highest one: `find: {goal: max_goodput, over: rate, from: 1, to: 64}`",
    needs=(RAW_SAMPLES, QUEUE),
    withholds=(Trait.LATENCY,),
)
def oversaturated(cell: Context) -> Iterator[Finding]:
    """The server cannot serve this rate, and its latencies only say how long the load lasted.

    The load generator notices while a load with a constant rate runs. Where the rate changes, or is only just too high, the queue that is
    left at the end shows it. The number of open requests of any queue wanders: by chance by as much as that many standard deviations of
    the (Poisson) arrivals.
    """
    s, record, load = cell.samples, cell.record, cell.load
    if record.delivery.saturated is not None:
        yield Finding("invalid", record.delivery.saturated, withholds=True)
        return
    answered = s.ok & (s.events > 0)
    if not load.open_loop or load.turns > 1 or not answered.any():
        return
    first, last, due = s.edge(last=False)[answered], s.edge(last=True)[answered], np.sort(s.due_ns)
    middle, end = int(due[0] + due[-1]) // 2, int(due[-1])
    half, full = (int((due <= at).sum() - (s.end_ns <= at).sum()) for at in (middle, end))
    arrived = int((due > middle).sum())
    longest_s = float((last - first).max() + (first - s.sent_ns[answered]).min()) / 1e9
    left_s = float(last.max() - end) / 1e9
    if full - half > max(LEFT_OF_ARRIVALS * arrived, LEFT_SIGMAS * arrived**0.5) and left_s > longest_s + LEFT_LATER:
        detail = f"{half:,} requests were open halfway, {full:,} when the last one was due, and those took {left_s:.3g} s more"
        yield Finding("suspect", detail)


@check(
    meaning="the server was not in a steady state, so the figures depend on how long the load lasted",
    when={
        "suspect": "output tokens/s or in-flight requests changed by over {TREND} over the window (trend test, p < {CHANCE}), or never "
        "settled"
    },
    advice="raise `requests` or `duration_s`",
    needs=(SUCCESSES, TESTED_WINDOW),
)
def not_steady(cell: Context) -> Iterator[Finding]:
    """The test runs on the window, from which filling up and running out have been cut off."""
    if cell.window.state == "unsteady":
        yield Finding("suspect", cell.window.why)


@check(
    meaning="too few requests to call this a steady load",
    when={"suspect": "an open loop sent fewer than {FEWEST_OPEN}, a closed loop fewer than {FEWEST_PER_STREAM} a stream"},
    advice="raise `requests` or `duration_s`",
    needs=(SUCCESSES,),
)
def few_requests(cell: Context) -> Iterator[Finding]:
    """With one request a stream, all of them are prefilled at once and then decoded together."""
    sent, load = len(cell.samples), cell.load
    if load.open_loop and sent < FEWEST_OPEN:
        yield Finding("suspect", f"{sent} requests (limit {FEWEST_OPEN})", excess=1 / max(sent, 1))
    elif not load.open_loop and sent < FEWEST_PER_STREAM * load.concurrency:
        detail = f"{sent} requests for {load.concurrency} streams (limit {FEWEST_PER_STREAM} a stream)"
        yield Finding("suspect", detail, excess=load.concurrency / max(sent, 1))


@check(
    meaning="a window this short measures mostly how the load starts and ends",
    when={"suspect": "the measured window is shorter than {SHORTEST}"},
    advice="raise `requests`, `duration_s` or `output_tokens`",
    needs=(SUCCESSES,),
)
def short_window(cell: Context) -> Iterator[Finding]:
    """Rates divide by the length of the window."""
    if cell.window.length_s < SHORTEST:
        length_s = cell.window.length_s
        yield Finding("suspect", f"window of {length_s:.2f} s (limit {SHORTEST})", excess=SHORTEST / max(length_s, 1e-9))
