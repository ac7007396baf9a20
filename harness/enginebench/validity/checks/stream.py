"""Did tokens arrive when they were generated, or were they collected on the way?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from enginebench.domain.formatting import percent
from enginebench.metrics.figures.streams import itl
from enginebench.metrics.registry import Trait
from enginebench.metrics.tokens import output_tokens
from enginebench.validity.check import Finding, Threshold, check
from enginebench.validity.context import EVENTS, Context

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


@check(
    meaning="tokens came in bursts, so TPOT and ITL describe the delivery and not the generation",
    when={
        "suspect": "over {IN_BURSTS} of the gaps between output events are below {INSTANT} (one gap among fewer than {FEW_GAPS} is "
        "ignored); or, in replies of more than {FEW_GAPS} events, the events after the first take below {RELAYED} of the time at below "
        "{STEP} each; the second case, and over {MOST_IN_BURSTS} in the first, withholds the pace from token to token"
    },
    advice="switch off buffering in proxies, and the engine's option for several tokens an event",
    needs=(EVENTS,),
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
    return float(np.median(taken / (s.events[some] - 1))) / 1e6, float(np.median(shares))


@check(
    meaning="many tokens came in each event, so TTFT and TPOT describe the delivery and not the generation",
    when={
        "suspect": "an event holds over {PER_EVENT} on average, or over {WHOLE} of the replies of 2 or more tokens came in a single event"
    },
    advice="switch off buffering in proxies, and check that the engine streams",
    needs=(EVENTS,),
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
