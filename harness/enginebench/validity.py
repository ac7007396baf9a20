"""Can this cell be trusted? A verdict with reasons, computed when a run is read, so a sharper check also judges old results.

Every reason says what to do next. `invalid`: the figures do not measure what the scenario asked; such a cell is shown greyed
and never ranked. `suspect`: ranked, with the reason beside it. A reason may also take single figures out of a cell whose
others are sound. Pure; knows no report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

import numpy as np

from enginebench import metrics
from enginebench.nouns import JSON
from enginebench.samples import Samples
from enginebench.store import CellRecord

Verdict: TypeAlias = Literal["valid", "suspect", "invalid"]


class Check(Enum):
    """What can be wrong with a cell, and the advice that goes with it."""

    CLIENT_BOUND = "the client, not the server, may be the limit: lower the concurrency or free the client's cores"
    LENGTH_MISMATCH = "the server did not produce or count what was asked: does this engine honour a forced length?"
    CACHE_HITS = "prompt tokens came from a prefix cache although it was to be cold: switch the cache off or allow it in the load"
    BURST_DELIVERY = "many tokens arrived in one instant: TPOT and ITL describe the delivery, not the generation"
    FEW_EVENTS = "many tokens came in each event, so TTFT and TPOT describe the delivery: does something buffer the stream?"
    ENDED_EARLY = "the load was not the one that was asked for: find out what stopped it and measure the cell again"
    FAILED_REQUESTS = "some requests failed: see the outcomes of this cell"
    UNPROVEN_SERVER = "it could not be proven which process answered: compare the server's own log"
    FEW_REQUESTS = "too few requests per stream to call this a steady load: raise `requests`"
    SHORT_WINDOW = "the measured window is shorter than half a second: raise `requests` or `output_tokens`"
    NO_COUNTS = "the server did not count its tokens, so throughput is unknown: ask it for usage"


_FEW_GAPS = 8
_TOKENS_PER_EVENT = 8
"""More tokens than this in the average event: beyond what speculative decoding accepts in a step, so something collects them."""

_PACE = ("tpot", "itl", "longest_gap", "user_throughput")
_OF_THE_BATCH = ("ttft", "e2e", "itl", "longest_gap", "schedule_delay")


@dataclass(frozen=True)
class Reason:
    """One thing that is wrong: which check, how bad, and the figures. withholds: metrics that mean nothing in this cell."""

    check: Check
    severity: Literal["suspect", "invalid"]
    detail: str
    withholds: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.detail}; {self.check.value}"


def judge(record: CellRecord, samples: Samples) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict on a cell that ran, with every reason found."""
    reasons = tuple(_reasons(record, samples))
    severities = {reason.severity for reason in reasons}
    return ("invalid" if "invalid" in severities else "suspect" if severities else "valid"), reasons


def withheld(record: CellRecord, reasons: tuple[Reason, ...]) -> Mapping[str, str]:
    """Metrics of a cell that must not be shown, each with why; the others are sound."""
    out = {metric: "the tokens came in bursts" for reason in reasons for metric in reason.withholds}
    if record.deployment.runtime == "in-process":
        # All requests of a batch are sent at its start: a latency would hold the queueing that a served request does not have.
        out |= dict.fromkeys(_OF_THE_BATCH, "an in-process batch has a throughput, not a latency for each request")
    return out


def _reasons(record: CellRecord, s: Samples) -> Iterator[Reason]:
    yield from _ended_early(record)
    yield from _failed(s)
    if s.ok.any():
        offline = record.deployment.runtime == "in-process"
        yield from _lengths(record, s)
        yield from _cache(record, s)
        if not offline:
            yield from _client(record, s)
            yield from _bursts(s)
            yield from _few_events(s)
        yield from _size(record, s)
    if record.identity not in (None, "proven"):
        yield Reason(Check.UNPROVEN_SERVER, "suspect", str(record.identity))


def _ended_early(record: CellRecord) -> Iterator[Reason]:
    if record.stopped or record.unsent:
        why = record.stopped or "the load ended early"
        yield Reason(Check.ENDED_EARLY, "invalid", f"{record.unsent:,} of {record.load.requests:,} requests were never sent ({why})")


def _failed(s: Samples) -> Iterator[Reason]:
    bad = int((~s.ok).sum())
    if bad:
        kinds = sorted({o for o in s.outcome if o != "ok"})
        severity: Literal["suspect", "invalid"] = "invalid" if bad > 0.05 * len(s) else "suspect"
        yield Reason(Check.FAILED_REQUESTS, severity, f"{bad} of {len(s)} requests failed ({', '.join(kinds)})")


def _lengths(record: CellRecord, s: Samples) -> Iterator[Reason]:
    got = metrics.output_tokens(s)[s.ok]
    if np.isnan(got).all():
        yield Reason(Check.NO_COUNTS, "invalid", "no token counts")
        return
    asked = s.asked_output_tokens[s.ok]
    if (got != asked).any():
        off = abs(np.nanmean(got) / asked.mean() - 1)
        yield Reason(
            Check.LENGTH_MISMATCH,
            "invalid" if off > 0.1 and record.length_control == "exact" else "suspect",
            f"asked for {asked.mean():.0f} output tokens, the server counted {np.nanmean(got):.0f} on average",
        )
    counted = s.ok & (s.input_tokens >= 0)
    chat = 64 if record.load.api == "chat" else 0  # a template adds tokens of its own
    difference = np.abs(s.input_tokens[counted] - s.asked_input_tokens[counted])
    slack = 1 if record.exact_prompts else max(4.0, 0.1 * record.load.input_tokens)  # one: a beginning-of-sequence token
    if (difference > max(slack, chat)).any():
        mean = s.input_tokens[counted].mean()
        asked_in = s.asked_input_tokens[counted].mean()
        severity: Literal["suspect", "invalid"] = "invalid" if abs(mean - asked_in) > 0.1 * asked_in + chat else "suspect"
        yield Reason(Check.LENGTH_MISMATCH, severity, f"asked for {asked_in:.0f} input tokens, the server counted {mean:.0f} on average")


def _cache(record: CellRecord, s: Samples) -> Iterator[Reason]:
    if record.load.prefix_cache == "allowed":
        return
    known = s.ok & (s.cached_tokens >= 0)
    cached, total = int(s.cached_tokens[known].sum()), int(np.maximum(s.input_tokens[known], 0).sum())
    if record.counters.get("cached_tokens", 0) > cached:
        cached, total = int(record.counters["cached_tokens"]), int(np.maximum(s.input_tokens[s.ok], 0).sum())
    if cached:
        share = cached / max(total, 1)
        yield Reason(
            Check.CACHE_HITS, "invalid" if share > 0.02 else "suspect", f"{cached} of {total} prompt tokens ({share:.0%}) were cached"
        )


def _client(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """Lag is how long a token waits for its stamp: its median shifts every latency, its p99 the tail of TTFT and of the gaps."""
    usual, worst = _number(record.client.get("lag_p50_ms")), _number(record.client.get("lag_p99_ms"))
    first, pace = _median_ms(metrics.ttft(s)), _median_ms(metrics.tpot(s))
    limit = max(1.0, min(0.1 * first, 2 * pace))
    if worst > limit:
        severity: Literal["suspect", "invalid"] = "invalid" if usual > limit else "suspect"
        figures = f"TTFT {first:.1f} ms, {pace:.1f} ms per token"
        yield Reason(
            Check.CLIENT_BOUND, severity, f"the client's event loop was {usual:.1f} ms late (p50), {worst:.1f} ms (p99), at {figures}"
        )
    cpu = _number(record.client.get("cpu_fraction"))
    if cpu > 0.8:
        yield Reason(Check.CLIENT_BOUND, "suspect", f"the client used {cpu:.0%} of a core")


def _median_ms(values: metrics.Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(np.median(defined)) * 1e3 if len(defined) else np.inf


def _number(value: JSON) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _bursts(s: Samples) -> Iterator[Reason]:
    """Throughput and E2E survive bursts, and speculative decoding sends a step's tokens together: so never invalid."""
    gaps = metrics.itl(s)
    instant = int((gaps < 1e-4).sum())
    if instant <= 0.3 * len(gaps) or (len(gaps) < _FEW_GAPS and instant == 1 < len(gaps)):  # one of a few may be chance
        return
    share = instant / len(gaps)
    detail = f"{share:.0%} of the output events came within 0.1 ms of the one before"
    yield Reason(Check.BURST_DELIVERY, "suspect", detail, _PACE if share > 0.8 else ())


def _few_events(s: Samples) -> Iterator[Reason]:
    """A server, or a proxy before it, that collects tokens: no gap shows it, because there are hardly any gaps."""
    tokens, events = metrics.output_tokens(s), s.events
    known = s.ok & (tokens >= 2) & (events >= 1)
    if not known.any():
        return
    per_event = float(tokens[known].sum() / events[known].sum())
    whole = float((events[known] == 1).mean())
    if per_event > _TOKENS_PER_EVENT or whole > 0.5:
        at_once = f"; {whole:.0%} of the answers came in a single event" if whole else ""
        yield Reason(Check.FEW_EVENTS, "suspect", f"{per_event:,.0f} tokens in the average event{at_once}")


def _size(record: CellRecord, s: Samples) -> Iterator[Reason]:
    if len(s) < 2 * record.load.concurrency:
        yield Reason(Check.FEW_REQUESTS, "suspect", f"{len(s)} requests for {record.load.concurrency} streams")
    window = metrics.window_s(s)
    if window < 0.5:
        yield Reason(Check.SHORT_WINDOW, "suspect", f"window of {window:.2f} s")
