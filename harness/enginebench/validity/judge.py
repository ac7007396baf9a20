"""Can this cell be trusted? A verdict with reasons, computed when a run is read, so a sharper check also judges old results.

Every reason says what to do next. `invalid`: the figures do not measure what the scenario asked; such a cell is shown greyed
and never ranked. `suspect`: ranked, with the reason beside it. `unranked`: sound, but no comparison. A reason may also take single
figures out of a cell whose others are sound. What the client did is judged in `validity.delivery`, what the server
answered here, what it said of itself in `validity.engine`, the machine in `validity.hardware`. Pure; knows no report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias, get_args

import numpy as np

from enginebench.metrics.figures.streams import itl
from enginebench.metrics.registry import Trait, names_with
from enginebench.metrics.tokens import disagreements, output_tokens
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord
from enginebench.records.window import Window
from enginebench.validity import delivery, engine
from enginebench.validity.checks import Check, Reason, Severity
from enginebench.validity.hardware import hardware

__all__ = ["VERDICTS", "Check", "Reason", "Verdict", "judge", "withheld"]

Verdict: TypeAlias = Literal["valid", "unranked", "suspect", "invalid"]

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the best to the worst."""

_FEW_GAPS = 8
_INSTANT_S = 1e-4
_STEP_S = 1e-3
"""No engine decodes this fast: a step of the smallest models takes about as long."""
_RELAYED = 0.1
_TOKENS_PER_EVENT = 8
"""More tokens than this in the average event: beyond what speculative decoding accepts in a step, so something collects them."""

_WITHHELD = {
    Check.BURST_DELIVERY: "the tokens came in bursts",
    Check.OVERSATURATED: "the queue grew without bound",
    Check.GPU_SHARED: "others used the device as well",
}


def judge(record: CellRecord, samples: Samples, window: Window) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict on a cell that ran, with every reason found. The samples are those of all the load, measured in the window."""
    return _verdict((*_of_samples(record, samples, window), *_of_record(record)))


def judge_stated(record: CellRecord) -> tuple[Verdict, tuple[Reason, ...]]:
    """The verdict on a cell without raw samples, from the checks that need only its record."""
    return _verdict(tuple(_of_record(record)))


def not_checkable() -> tuple[Check, ...]:
    """The checks that cannot be applied without raw samples."""
    return tuple(check for check in Check if check not in (Check.RANDOM_ROUTING, Check.UNPROVEN_SERVER))


def _verdict(reasons: tuple[Reason, ...]) -> tuple[Verdict, tuple[Reason, ...]]:
    return max(("valid", *(reason.severity for reason in reasons)), key=VERDICTS.index), reasons


def withheld(record: CellRecord, reasons: tuple[Reason, ...]) -> Mapping[str, str]:
    """Metrics of a cell that must not be shown, each with why; the others are sound."""
    out = {metric: _WITHHELD[reason.check] for reason in reasons for metric in reason.withholds}
    if record.deployment.runtime == "in-process":
        # All requests of a batch are sent at its start: a latency would hold the queueing that a served request does not have.
        out |= dict.fromkeys(
            names_with(Trait.LATENCY, Trait.ONLINE), "an in-process batch has a throughput, not a latency for each request"
        )
    return out


def _of_samples(record: CellRecord, s: Samples, window: Window) -> Iterator[Reason]:
    yield from delivery.ended(record, s)
    yield from _failed(record, s)
    if s.ok.any():
        yield from _output_length(record, s)
        yield from _input_length(record, s)
        yield from _counts(record, s)
        yield from engine.cache(record, s)
        yield from engine.pressure(record, window)
        yield from hardware(record, window)
        if record.deployment.runtime != "in-process":
            yield from delivery.client(record, s)
            yield from delivery.rate(record, s)
            yield from engine.clocks(record, s)
            yield from _bursts(s)
            yield from _few_events(s)
        yield from delivery.size(record, s, window)


def _of_record(record: CellRecord) -> Iterator[Reason]:
    yield from engine.routing(record)
    if record.identity not in (None, "proven"):
        yield Reason(Check.UNPROVEN_SERVER, "suspect", str(record.identity))


def _failed(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """Turns that a failed one took with it count as failed, unless a duration ends the load: then they were never promised."""
    bad = int((~s.ok).sum())
    if bad:
        lost = delivery.lost_turns(record, s) if record.load.duration_s is None else 0
        kinds = sorted({o for o in s.outcome if o != "ok"})
        severity: Severity = "invalid" if bad + lost > 0.05 * (len(s) + lost) else "suspect"
        after = f", so {lost:,} later turns were not sent" if lost else ""
        yield Reason(Check.FAILED_REQUESTS, severity, f"{bad} of {len(s)} requests failed ({', '.join(kinds)}){after}")


def _output_length(record: CellRecord, s: Samples) -> Iterator[Reason]:
    got, asked = output_tokens(s)[s.ok], s.asked_output_tokens[s.ok]
    if np.isnan(got).all():
        yield Reason(Check.NO_COUNTS, "invalid", "no token counts")
    elif (got != asked).any():
        known = ~np.isnan(got)
        more, wanted = float(got[known].mean() - asked[known].mean()), float(asked[known].mean())
        # A cap may be stayed below and never exceeded; one more may be the token that ends the text.
        impossible = more > max(1.0, 0.1 * wanted) or (more < -0.1 * wanted and record.length_control == "exact")
        yield Reason(
            Check.LENGTH_MISMATCH,
            "invalid" if impossible else "suspect",
            f"asked for {wanted:.0f} output tokens, the server counted {wanted + more:.0f} on average",
        )


def _input_length(record: CellRecord, s: Samples) -> Iterator[Reason]:
    """Later turns are left out: they also hold what was answered before, which is not ours to choose."""
    counted = s.ok & (s.input_tokens >= 0) & (s.turn == 0)
    got, asked = s.input_tokens[counted], s.asked_input_tokens[counted]
    template = 64 if record.load.api == "chat" else 0  # a chat template adds tokens of its own
    slack = np.ones(len(asked)) if record.exact_prompts else np.maximum(4.0, 0.1 * asked)  # one: a beginning-of-sequence token
    if (np.abs(got - asked) > np.maximum(slack, template)).any():
        severity: Severity = "invalid" if abs(got.mean() - asked.mean()) > 0.1 * asked.mean() + template else "suspect"
        detail = f"asked for {asked.mean():.0f} input tokens, the server counted {got.mean():.0f} on average"
        yield Reason(Check.LENGTH_MISMATCH, severity, detail)


_RETOKENIZED = 0.1
"""How far text that is tokenized again may be off: its tokens are rarely those that were generated, one for one."""


def _counts(record: CellRecord, s: Samples) -> Iterator[Reason]:
    server, tokenizer = (record.token_check.get(name, 0) for name in ("server", "tokenizer"))
    # Random weights say what no tokenizer would ever split the same way again.
    if tokenizer and not record.random_weights and abs(server / tokenizer - 1) > _RETOKENIZED:
        detail = f"in the warm-up the server counted {server:,} output tokens, the checkpoint's tokenizer {tokenizer:,}"
        yield Reason(Check.COUNTS_DISAGREE, "suspect", detail)
    for one, other, differ, both in disagreements(s):
        if differ > 0.01 * both:
            yield Reason(Check.COUNTS_DISAGREE, "suspect", f"{one} and {other} differ for {differ:,} of {both:,} requests")


def _bursts(s: Samples) -> Iterator[Reason]:
    """Throughput and E2E survive bursts, and speculative decoding sends a step's tokens together: so never invalid.

    What is collected first and then relayed piece by piece has gaps, too, but shorter than any engine's steps, and hardly any time
    passes between its first token and its last.
    """
    gaps = itl(s)
    instant = int((gaps < _INSTANT_S).sum())
    share = instant / max(1, len(gaps))
    pace_s, after = _after_first(s)
    if pace_s < _STEP_S and after < _RELAYED:
        detail = f"the first event took all but {after:.1%} of a request's time, and the others then came {pace_s * 1e3:.2f} ms apart"
        yield Reason(Check.BURST_DELIVERY, "suspect", detail, names_with(Trait.PACE))
    elif share > 0.3 and not (len(gaps) < _FEW_GAPS and instant == 1 < len(gaps)):  # one of a few may be chance
        detail = f"{share:.0%} of the output events came within 0.1 ms of the one before"
        yield Reason(Check.BURST_DELIVERY, "suspect", detail, names_with(Trait.PACE) if share > 0.8 else ())


def _after_first(s: Samples) -> tuple[float, float]:
    """Medians over the requests of many events: seconds from one event to the next, and the share of a request's time that they take. The
    time before them is the shortest of all, as what a queue adds is not the delivery's; infinity and 1 where there are no such requests."""
    some = s.ok & (s.events > _FEW_GAPS)
    if not some.any():
        return np.inf, 1.0
    first, last = s.edge(last=False)[some], s.edge(last=True)[some]
    taken = last - first
    shares = taken / np.maximum(1, taken + (first - s.sent_ns[some]).min())
    return float(np.median(taken / (s.events[some] - 1))) / 1e9, float(np.median(shares))


def _few_events(s: Samples) -> Iterator[Reason]:
    """A server, or a proxy before it, that collects tokens: no gap shows it, because there are hardly any gaps."""
    tokens, events = output_tokens(s), s.events
    known = s.ok & (tokens >= 2) & (events >= 1)
    if not known.any():
        return
    per_event = float(tokens[known].sum() / events[known].sum())
    whole = float((events[known] == 1).mean())
    if per_event > _TOKENS_PER_EVENT or whole > 0.5:
        at_once = f"; {whole:.0%} of the answers came in a single event" if whole else ""
        yield Reason(Check.FEW_EVENTS, "suspect", f"{per_event:,.0f} tokens in the average event{at_once}")
