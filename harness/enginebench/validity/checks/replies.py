"""Did the server answer what was asked: every request, with the tokens that were asked for, and counted alike?"""

from collections.abc import Iterator

import numpy as np

from enginebench.dialects.finish import COMPLETE, FAILED
from enginebench.metrics.tokens import APART, TOKENS_APART, disagreements, output_tokens
from enginebench.records.samples import Ints
from enginebench.validity.check import Finding, Severity, Threshold, check
from enginebench.validity.context import ASKED_LENGTHS, CLIENT_FIGURES, RAW_SAMPLES, SUCCESSES, Context, Requirement

MOST_FAILED = Threshold(0.05, "share")
RETRIED, FEWEST_RETRIED = Threshold(0.1, "share"), Threshold(3, "requests")
"""A server that closes idle connections costs a request or two."""
LENGTH_OFF = Threshold(0.1, "share")
EXACT_SLACK, TEXT_SLACK = Threshold(1, "tokens"), Threshold(4, "tokens")
"""Of token ids one: a beginning-of-sequence token. Text is fitted to how the server counts it."""
FAR_OFF = Threshold(0.5, "share")
TEMPLATE = Threshold(64, "tokens")
"""What a chat template may add."""
RETOKENIZED = Threshold(0.1, "share")
"""The tokens of a text are rarely the ones that were generated."""
MOST_NAMED = 3
REQUESTS_APART = Threshold(0.01, "share")
COUNTS_APART, COUNTS_APART_TOKENS = Threshold(APART, "share"), Threshold(TOKENS_APART, "tokens")

COUNTED = Requirement("output token counts", lambda cell: not np.isnan(output_tokens(cell.samples)[cell.samples.ok]).all())
COUNTED_TWICE = Requirement(
    "second count of output tokens",
    lambda cell: bool(cell.record.counters.token_check.get("tokenizer")) or bool(disagreements(cell.samples)),
)


@check(
    meaning="the figures leave the failed requests out",
    when={
        "invalid": "over {MOST_FAILED} of the requests failed, including turns that were not sent because an earlier turn failed",
        "suspect": "any request failed",
    },
    advice="see the requests of this cell in report.html and the engine's log in the run's logs/",
    needs=(RAW_SAMPLES,),
)
def failed_requests(cell: Context) -> Iterator[Finding]:
    """Failed requests are left out of every latency, so what failed for being slow makes the rest look fast.

    Turns after a failed one count as failed, unless a duration ends the load: then nothing says how many there should have been.
    """
    s = cell.samples
    if bad := int((~s.ok & ~s.aborted).sum()):
        lost = cell.lost_turns if cell.load.duration_s is None else 0
        kinds = ", ".join(sorted({outcome for outcome in s.outcome if outcome not in ("ok", "aborted")}))
        after = f", so {lost:,} later turns were not sent" if lost else ""
        severity: Severity = "invalid" if bad + lost > MOST_FAILED * (len(s) + lost) else "suspect"
        detail = f"{bad} of {len(s)} requests failed ({kinds}; limit {MOST_FAILED}){after}"
        yield Finding(severity, detail, excess=(bad + lost) / (len(s) + lost))


@check(
    meaning="the server saw requests twice, which is more load than is counted",
    when={"suspect": "at least {FEWEST_RETRIED} and over {RETRIED} of them were sent again, as their connection was closed unanswered"},
    advice="look for a proxy or a server that drops connections, and raise its keep-alive timeout",
    needs=(RAW_SAMPLES, CLIENT_FIGURES),
)
def retried(cell: Context) -> Iterator[Finding]:
    """The load generator sends a request again only if a kept-alive connection was closed before any byte of the reply came."""
    count, sent = cell.client("stale"), int((cell.samples.sent_ns > 0).sum())
    if count >= FEWEST_RETRIED and count > RETRIED * sent:
        detail = f"{count:,.0f} of {sent:,} requests were sent again on a new connection (limit {RETRIED})"
        yield Finding("suspect", detail, excess=count / sent)


@check(
    meaning="throughput is unknown",
    when={"invalid": "no successful request has a count of its output tokens"},
    advice="make the server report usage, or use a checkpoint whose folder has its tokenizer",
    needs=(SUCCESSES,),
)
def no_counts(cell: Context) -> Iterator[Finding]:
    """Events of a stream are never counted as tokens."""
    if not COUNTED.present(cell):
        yield Finding("invalid", "no token counts")


@check(
    meaning="the measured work is not what the load asks for",
    when={
        "invalid": "the mean output is over {LENGTH_OFF} (and {EXACT_SLACK}) longer than asked, or, where the engine can force a length, "
        "over {LENGTH_OFF} shorter",
        "suspect": "any output is longer than asked or, where the engine can force a length, shorter; or the mean is over {LENGTH_OFF} "
        "shorter",
    },
    advice="check that the engine honours `ignore_eos` or its own way to force a length",
    needs=(SUCCESSES, COUNTED, ASKED_LENGTHS),
)
def length_mismatch(cell: Context) -> Iterator[Finding]:
    """Engines that produce different numbers of tokens did different work.

    A cap may be undercut and never exceeded; one token more may be the one that ends the text.
    """
    s, tokens = cell.samples, output_tokens(cell.samples)
    counted, exact = s.ok & ~np.isnan(tokens), cell.record.traits.length_control == "exact"
    got, asked = tokens[counted], s.asked_output_tokens[counted]
    more, wanted = float(got.mean() - asked.mean()), float(asked.mean())
    short = more < -LENGTH_OFF * wanted
    if short or ((got != asked) if exact else (got > asked)).any():
        severity: Severity = "invalid" if (short and exact) or more > max(EXACT_SLACK, LENGTH_OFF * wanted) else "suspect"
        detail = f"asked for {wanted:.0f} output tokens, the server counted {wanted + more:.0f} on average (limit {LENGTH_OFF})"
        yield Finding(severity, detail, excess=abs(more) / max(wanted, 1))


@check(
    meaning="prompts were cut off, so prefill was less work than the load asks for",
    when={
        "invalid": "the server counted over {LENGTH_OFF} (and {TEXT_SLACK}) fewer input tokens than were sent, on average",
        "suspect": "where the tokenizer is known: for any first turn it counted over {EXACT_SLACK} fewer",
    },
    advice="raise the server's context, or lower `input_tokens`",
    needs=(SUCCESSES,),
)
def prompt_truncated(cell: Context) -> Iterator[Finding]:
    """A server that keeps only the end of a long prompt answers as usual. Where prompts are text, their length was fitted to its counts."""
    got, asked = _inputs(cell)
    if not len(got):
        return
    less = float(asked.mean() - got.mean())
    invalid = less > max(TEXT_SLACK, LENGTH_OFF * asked.mean())
    if invalid or (cell.record.prompts.exact and (asked - got > EXACT_SLACK).any()):
        detail = f"sent {asked.mean():.0f} input tokens, the server counted {got.mean():.0f} on average (limit {LENGTH_OFF})"
        yield Finding("invalid" if invalid else "suspect", detail, excess=asked.mean() / max(got.mean(), 1))


@check(
    meaning="prompts are longer than the load asks for",
    when={
        "invalid": "the mean input is over {LENGTH_OFF} (where lengths are estimated {FAR_OFF}; chat: and {TEMPLATE}) longer than asked",
        "suspect": "the input of any first turn is over {EXACT_SLACK} longer where the tokenizer is known, else the mean input by over "
        "{TEXT_SLACK} and {LENGTH_OFF}; with a chat template by {TEMPLATE}",
    },
    advice="check that the server runs this checkpoint with its own tokenizer",
    needs=(SUCCESSES,),
)
def prompt_mismatch(cell: Context) -> Iterator[Finding]:
    """Later turns do not count: they also hold earlier replies, whose length is the server's. Shorter ones: `prompt_truncated`."""
    got, asked = _inputs(cell)
    template = TEMPLATE if cell.load.templated else 0.0
    if not len(got) or cell.load.images:  # whose tokens only the server knows
        return
    exact, more, wanted = cell.record.prompts.exact, float(got.mean() - asked.mean()), float(asked.mean())
    off = float((got - asked).max()) if exact else more  # single texts of estimated length vary
    if off > max(template, EXACT_SLACK if exact else max(TEXT_SLACK, LENGTH_OFF * wanted)):
        severity: Severity = "invalid" if more > (LENGTH_OFF if exact else FAR_OFF) * wanted + template else "suspect"
        limit = f"{LENGTH_OFF} and {TEMPLATE}" if template else LENGTH_OFF
        detail = f"asked for {wanted:.0f} input tokens, the server counted {got.mean():.0f} on average (limit {limit})"
        advice = _prompt_advice(cell, more, float(np.ptp(got - asked)))
        yield Finding(severity, detail, advice=advice, excess=more / wanted)


@check(
    meaning="prompt lengths are guesses, and the fault is not the engine's",
    when={"suspect": "it could not be measured how the server counts text, and the mean input is off by over {LENGTH_OFF}"},
    advice="run again, or give the deployment a checkpoint with its tokenizer",
    needs=(SUCCESSES,),
)
def lengths_guessed(cell: Context) -> Iterator[Finding]:
    """Without the server's tokenizer, a few prompts before the first load show how many tokens it counts for a word."""
    got, asked = _all_inputs(cell)
    if cell.record.prompts.doubt and not _capped(got, asked) and (not len(got) or abs(got.mean() / asked.mean() - 1) > LENGTH_OFF):
        yield Finding("suspect", cell.record.prompts.doubt)


def _prompt_advice(cell: Context, off: float, spread: float) -> str:
    """What to do about prompts that the server counts differently; empty: the check's own advice."""
    if off > 0 and spread <= max(TEXT_SLACK, LENGTH_OFF * off):
        return f"the server adds {off:.0f} tokens to each prompt, such as a chat template: lower `input_tokens` by that many"
    return "" if cell.record.prompts.exact else "give the deployment a checkpoint with its tokenizer: lengths of text are estimates here"


def _inputs(cell: Context) -> tuple[Ints, Ints]:
    """As `_all_inputs`; none where the lengths are guesses, unless the server counts the same for every prompt, which is its limit."""
    got, asked = _all_inputs(cell)
    return (got[:0], asked[:0]) if cell.record.prompts.doubt and not _capped(got, asked) else (got, asked)


def _all_inputs(cell: Context) -> tuple[Ints, Ints]:
    """Input tokens that the server counted, and those asked for, of the first turns."""
    s = cell.samples
    counted = s.ok & (s.input_tokens > 0) & (s.turn == 0)
    return s.input_tokens[counted], s.asked_input_tokens[counted]


def _capped(got: Ints, asked: Ints) -> bool:
    return len(got) > 1 and np.ptp(got) == 0 and float(got[0]) < (1 - LENGTH_OFF) * float(asked.min())


@check(
    meaning="whether these answers are complete is unknown",
    when={"suspect": "any successful answer ended with an unknown finish reason"},
    advice="look the reason up in the engine's documentation, and tell the project what it means",
    needs=(SUCCESSES,),
)
def unknown_finish(cell: Context) -> Iterator[Finding]:
    """Reasons that are known to mean a failure are failures; see `enginebench.dialects.finish`."""
    s = cell.samples
    reasons = [reason for reason, ok in zip(s.finish_reason, s.ok, strict=True) if ok and reason]
    unknown = [reason for reason in reasons if reason.strip().lower() not in COMPLETE | FAILED.keys()]
    if unknown:
        names = ", ".join(f"'{reason}'" for reason in sorted(set(unknown))[:MOST_NAMED])
        yield Finding("suspect", f"{len(unknown):,} of {int(s.ok.sum()):,} answers ended with finish reason {names}")


@check(
    meaning="which count of output tokens is right is unknown",
    when={
        "suspect": "the server and the checkpoint's tokenizer differ by over {RETOKENIZED} and {COUNTS_APART_TOKENS} on the warm-up "
        "(trained weights only), or two counts of the same requests differ, by over {COUNTS_APART_TOKENS} and {COUNTS_APART}, for over "
        "{REQUESTS_APART} of them"
    },
    advice="count one reply with the checkpoint's tokenizer to see which count is right",
    needs=(SUCCESSES, COUNTED_TWICE),
)
def counts_disagree(cell: Context) -> Iterator[Finding]:
    """Text of random weights is left out: no tokenizer splits it into the tokens that were generated. Of a few tokens, text can be split
    into one fewer than were generated.
    """
    server, tokenizer = (cell.record.counters.token_check.get(name, 0) for name in ("server", "tokenizer"))
    apart = abs(server - tokenizer) > COUNTS_APART_TOKENS and abs(server / max(tokenizer, 1) - 1) > RETOKENIZED
    if tokenizer and apart and not cell.record.traits.random_weights:
        detail = f"in the warm-up the server counted {server:,} output tokens, the checkpoint's tokenizer {tokenizer:,}"
        yield Finding("suspect", detail)
    for one, other, differ, both in disagreements(cell.samples):
        if differ > REQUESTS_APART * both:
            detail = f"{one} and {other} differ for {differ:,} of {both:,} requests (limit {REQUESTS_APART})"
            yield Finding("suspect", detail, excess=differ / both)
