"""Did tokens arrive when they were generated, or were they collected on the way?"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from enginebench.domain.formatting import percent
from enginebench.metrics.figures.streams import itl
from enginebench.metrics.registry import Trait
from enginebench.metrics.statistics import Floats, median, quantile
from enginebench.metrics.tokens import output_tokens, unstreamed
from enginebench.records.samples import Ints, Samples
from enginebench.validity.check import Finding, Threshold, check
from enginebench.validity.context import EVENTS, SINGLE_EVENTS, START_TIMES, Context

INSTANT = Threshold(0.1, "ms")
IN_BURSTS, MOST_IN_BURSTS = Threshold(0.3, "share"), Threshold(0.8, "share")
FEW_GAPS = Threshold(8)
"""One short gap among fewer may be chance."""
STEP = Threshold(1, "ms")
"""A decoding step of the smallest models takes about as long; no engine decodes faster."""
RELAYED = Threshold(0.1, "share")
PER_EVENT = Threshold(8, "tokens")
"""Beyond what speculative decoding accepts in a step."""
WHOLE = Threshold(0.5, "share")
STALL, TIMES_USUAL = Threshold(0.5, "s"), Threshold(20)
TIMES_PREFILL, TIMES_TTFT = Threshold(3), Threshold(10)
USUAL = 0.25
"""The quantile of TTFT that is taken for a prefill: below are prompts that were cached, above those that waited in a queue."""


@check(
    meaning="tokens came in bursts, so TPOT and ITL describe the delivery and not the generation",
    when={
        "suspect": "over {IN_BURSTS} of the gaps between output events are below {INSTANT} (one gap among fewer than {FEW_GAPS} is "
        "ignored); or, in replies of more than {FEW_GAPS} events, the events after the first take below {RELAYED} of the time at below "
        "{STEP} each; the second case, and over {MOST_IN_BURSTS} in the first, withholds the pace from token to token"
    },
    advice="switch off buffering in proxies, and the engine's option for several tokens an event",
    needs=(EVENTS, SINGLE_EVENTS),
    withholds=(Trait.PACE,),
)
def burst_delivery(cell: Context) -> Iterator[Finding]:
    """Never invalid: throughput and E2E survive bursts, and speculative decoding sends the tokens of a step together.

    A proxy that collects a reply and then passes it on piece by piece leaves gaps, but shorter ones than any engine's steps, and hardly
    any time passes between its first and its last token.
    """
    gaps_ms = itl(cell.samples) * 1e3
    instant = int((gaps_ms < INSTANT).sum())
    share = instant / max(1, len(gaps_ms))
    pace_ms, after = _after_first(cell)
    if pace_ms < STEP and after < RELAYED:
        detail = f"the first event took all but {100 * after:.1f} % of a request's time, and the others then came {pace_ms:.2f} ms apart"
        yield Finding("suspect", detail, withholds=True)
    elif share > IN_BURSTS and not (len(gaps_ms) < FEW_GAPS and instant == 1 < len(gaps_ms)):
        detail = f"{percent(share)} of the output events came within {INSTANT} of the one before (limit {IN_BURSTS})"
        yield Finding("suspect", detail, withholds=share > MOST_IN_BURSTS, excess=share)


def _after_first(cell: Context) -> tuple[float, float]:
    """Medians over the requests of many events: ms from one event to the next, and their share of the request's time.

    The time before the first event is the shortest of all requests, because a queue is not the delivery's. Infinity and 1 without any.
    """
    s = cell.samples
    some = s.ok & (s.events > FEW_GAPS)
    if not some.any():
        return np.inf, 1.0
    first, last = s.edge(last=False)[some], s.edge(last=True)[some]
    taken = last - first
    shares = taken / np.maximum(1, taken + (first - s.sent_ns[some]).min())
    return median(taken / (s.events[some] - 1)) / 1e6, median(shares)


@check(
    meaning="many tokens came in each event, so TTFT and TPOT describe the delivery and not the generation",
    when={
        "suspect": "an event holds over {PER_EVENT} on average, or over {WHOLE} of the replies of 2 or more tokens came in a single event"
    },
    advice="switch off buffering in proxies, and check that the engine streams",
    needs=(EVENTS, SINGLE_EVENTS),
)
def few_events(cell: Context) -> Iterator[Finding]:
    """A server or a proxy that collects tokens: no gap shows it, because there are hardly any gaps."""
    tokens, events = output_tokens(cell.samples), cell.samples.events
    known = cell.samples.ok & (tokens >= 2) & (events >= 1)
    if not known.any():
        return
    per_event = float(tokens[known].sum() / events[known].sum())
    whole = float((events[known] == 1).mean())
    if per_event > PER_EVENT or whole > WHOLE:
        at_once = f"; {percent(whole)} of the replies came in a single event" if whole else ""
        detail = f"{per_event:,.0f} tokens in the average event (limit {PER_EVENT}){at_once}"
        yield Finding("suspect", detail, excess=per_event)


@check(
    meaning="the server generated tokens that it never streamed, so the time per token is unknown",
    when={
        "suspect": "the server counts reasoning tokens of a request, and less reasoning was streamed; or it counts over twice as many "
        "tokens as there were events, with less than a character for each (TPOT and the rate per user are withheld)"
    },
    advice="switch reasoning off, or have the server stream it, to measure the time per token",
    needs=(EVENTS, SINGLE_EVENTS),
    withholds=(Trait.TOKENS,),
)
def hidden_tokens(cell: Context) -> Iterator[Finding]:
    """The first event comes when the hidden tokens are done, so TTFT contains their time, and the gaps after it do not."""
    s = cell.samples
    if (hidden := unstreamed(s)).any():
        counted, events = (median(values[hidden]) for values in (output_tokens(s), s.events))
        kept = s.reasoning_tokens[hidden & (s.reasoning_tokens > 0)]
        of_these = f", {median(kept):,.0f} of them reasoning that was not streamed" if len(kept) else ""
        detail = (
            f"{int(hidden.sum()):,} of {int(s.ok.sum()):,} requests: {counted:,.0f} tokens{of_these}, in {events:,.0f} events (medians)"
        )
        yield Finding("suspect", detail, withholds=True)


@check(
    meaning="engine or connection stalled, so TPOT, ITL and E2E hold a pause",
    when={
        "suspect": "for over {STALL} and {TIMES_USUAL} times the usual gap between events a stream that had begun, or all streams with a "
        "request in flight, received nothing; what the prompts take that are prefilled meanwhile (up to {TIMES_PREFILL} times the usual "
        "TTFT for their length), and a wait of all for first tokens of up to {TIMES_TTFT} times the median TTFT, is not counted as one"
    },
    advice="look in the engine's log for preemption, swapping or a stop, and measure without a proxy",
    needs=(EVENTS, SINGLE_EVENTS, START_TIMES),
)
def stalled(cell: Context) -> Iterator[Finding]:
    """A mean hides a pause: one of 1.2 s in the middle of 16 tokens makes TPOT 84 ms where the engine's pace is 5 ms."""
    s = cell.samples
    gaps, row = np.diff(s.event_ns), np.repeat(np.arange(len(s)), s.events)[1:]
    own = row == np.repeat(np.arange(len(s)), s.events)[:-1]
    usual = gaps[own & (gaps > INSTANT * 1e6)]
    if not len(usual):
        return
    usual_ns = median(usual)
    least = max(STALL * 1e9, TIMES_USUAL * usual_ns)
    long = np.flatnonzero(own & (gaps > least))
    long = long[gaps[long] > _prefills(s, s.event_ns[long], s.event_ns[long + 1])]
    long = long[_of_phase(cell, s.event_ns[long], s.event_ns[long + 1])]
    since, until = _silences(s, max(least, TIMES_TTFT * cell.ttft_ms * 1e6) if not len(long) else least)
    silent = (until - since)[(until - since > _prefills(s, since, until)) & _of_phase(cell, since, until)]
    details = []
    if len(long):
        streams = len(set(row[long].tolist()))
        details.append(f"{streams:,} of {int((s.events > 1).sum()):,} streams stalled, the longest for {gaps[long].max() / 1e9:.3g} s")
    if len(silent):
        details.append(f"nothing arrived on any stream for {silent.max() / 1e9:.3g} s")
    if details:
        longest_ns = max([*gaps[long], *silent])
        limit = f"limit {least / 1e9:.3g} s"
        detail = f"{', and '.join(details)} (usual gap {usual_ns / 1e6:.3g} ms, {limit})"
        yield Finding("suspect", detail, excess=float(longest_ns) / least)


def _of_phase(cell: Context, since: Ints, until: Ints) -> npt.NDArray[np.bool_]:
    """Which times belong to the window, for a load with several phases; one with a single phase is looked at as a whole."""
    start, end = (cell.window.start_ns, cell.window.end_ns) if len(cell.load.phases()) > 1 else (0, np.iinfo(np.int64).max)
    return (until >= start) & (since <= end)


def _prefills(s: Samples, since: Ints, until: Ints) -> Floats:
    """Longest time in ns that the prefill of prompts may have taken between two times: of those whose first token came in between, or
    after it by no more than a prefill takes."""
    some = s.events > 0
    first, tokens = s.edge(last=False)[some], np.maximum(np.where(s.input_tokens > 0, s.input_tokens, s.asked_input_tokens)[some], 1)
    taken = first - s.sent_ns[some]
    each = np.maximum(quantile(taken, USUAL), tokens * quantile(taken / tokens, USUAL))
    order = np.argsort(first)
    total = np.concatenate(([0.0], np.cumsum(each[order])))
    at = np.searchsorted(first[order], (since, until + int(each.max())))
    longest: Floats = TIMES_PREFILL * (total[at[1]] - total[at[0]])
    return longest


def _silences(s: Samples, least_ns: float) -> tuple[Ints, Ints]:
    """(beginnings, ends) of the times in which requests were in flight and no event arrived for over least_ns; the first may begin with
    the first request.
    """
    events = np.sort(np.append(s.event_ns, s.sent_ns[s.sent_ns > 0].min(initial=np.iinfo(np.int64).max)))
    gap = np.flatnonzero(np.diff(events) > least_ns)
    since, until = events[gap], events[gap + 1]
    sent, ends = (np.sort(at[s.sent_ns > 0]) for at in (s.sent_ns, s.end_ns))
    begun = np.searchsorted(sent, since, side="right")
    busy = begun > np.searchsorted(ends, until)  # a request was in flight all the time; else it begins with the next one
    since = np.minimum(np.where(busy, since, np.append(sent, np.iinfo(np.int64).max)[begun]), until)
    return since[until - since > least_ns], until[until - since > least_ns]
