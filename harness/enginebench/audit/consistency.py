"""Whether the figures of a claimed speed allow each other, and what they imply beside the rate. Pure functions of a claim and `Physics`."""

from __future__ import annotations

from collections.abc import Iterator

from enginebench.audit.arithmetic import GAIN_TOLERANCE, SIZE_TOLERANCE, bits_per_weight, close, price_per_million, rate, streams_text
from enginebench.audit.claims import Serving
from enginebench.audit.physics import Physics


def contradicts_itself(claim: Serving, physics: Physics) -> Iterator[str]:
    """What the claim's own figures do not allow."""
    yield from _pace(claim)
    if claim.hardware is None:
        return
    count = physics.device(claim.hardware)[1]
    yield from physics.remarks(claim.hardware)
    if claim.bandwidth_gb_s is not None:
        known = physics.bandwidth_gb_s(claim.hardware) / count
        if not close(claim.bandwidth_gb_s, known, GAIN_TOLERANCE):
            yield f"a device of {claim.hardware} has {known:,.0f} GB/s, the text states {claim.bandwidth_gb_s:g}"
    if claim.rates is not None and claim.price_per_hour is not None and claim.price_per_million is not None:
        per_hour = claim.price_per_hour * count
        low, high = (price_per_million(per_hour, each) for each in reversed(claim.rates))
        if not low * (1 - GAIN_TOLERANCE) <= claim.price_per_million <= high * (1 + GAIN_TOLERANCE):
            paid = f"{per_hour:g} per hour for {rate(claim.rates[1])} tok/s are {low:.3g} per million tokens"
            yield f"{paid}, not {claim.price_per_million:g}"


def _pace(claim: Serving) -> Iterator[str]:
    """Sequences in a step x tokens per second of each, against the rate."""
    sequences = claim.batch or claim.concurrency
    if sequences is None or claim.ms_per_token is None or claim.rates is None:
        return
    low, each = claim.rates[0], 1000 / claim.ms_per_token
    if low <= sequences * each * (1 + GAIN_TOLERANCE):
        return
    words = f"{streams_text(sequences)} at {claim.ms_per_token:g} ms per token give {sequences * each:,.0f} tok/s, not {rate(low)}"
    more = claim.concurrency or 0
    yield words + (f"; it would take {low / each:.0f}, and {more} in flight would give {more * each:,.0f}" if more > sequences else "")


def notes(claim: Serving, physics: Physics) -> Iterator[str]:
    """What the other figures of a claim imply."""
    if claim.projected:
        yield "the rate was computed by the source, not measured"
    if claim.note is not None:
        yield claim.note
    if claim.perplexity is not None:
        yield "a perplexity cannot be compared without the text and the context length"
    if claim.quality_retained_pct is not None:
        yield "a retained quality cannot be compared without the task"
    if claim.device_memory_gb is not None:
        yield _memory(claim, claim.device_memory_gb, physics)
    if claim.weights_gb is not None and claim.precision is not None:
        true = physics.weights_gb(claim.model, claim.precision, claim.engine)
        if not close(claim.weights_gb, true, SIZE_TOLERANCE):
            yield f"{claim.precision} weights take {true:.1f} GB, the text states {claim.weights_gb:g}"
    if claim.predicted_tok_s is not None and claim.rates is not None and claim.rates[0] > claim.predicted_tok_s:
        stated = f" of {claim.bandwidth_gb_s:g} GB/s" if claim.bandwidth_gb_s else ""
        derived = f"the text derives {claim.predicted_tok_s:g} tok/s from the bandwidth{stated}, which is an upper limit"
        yield f"{derived}, but reports a higher measurement"
    yield from _bandwidth_used(claim, physics)


def _memory(claim: Serving, gb: float, physics: Physics) -> str:
    total = physics.parameters(claim.model)
    words = f"{gb:g} GB for {total / 1e9:.1f}B parameters are {bits_per_weight(gb, total):.1f} bits per weight"
    if claim.precision is not None:
        return words
    widest = physics.widest(claim.model, gb)
    if widest is not None:
        return f"{words}: {widest} ({physics.weights_gb(claim.model, widest):.1f} GB) or narrower, if all weights are in them"
    return f"{words}, less than any precision has: most weights would have to be in host memory, which is not stated"


def _bandwidth_used(claim: Serving, physics: Physics) -> Iterator[str]:
    """Reads that a stated use of the bandwidth amounts to in one step, against all that there is to read."""
    sequences = claim.batch or claim.concurrency
    if None in (claim.bandwidth_used_pct, claim.hardware, claim.ms_per_token, claim.precision, sequences):
        return
    step_s, used = (claim.ms_per_token or 0.0) / 1e3, (claim.bandwidth_used_pct or 0.0) / 100
    read, most = used * physics.bandwidth_gb_s(claim.hardware or "") * step_s, physics.most_read_gb(claim, claim.streams or 1)
    if read > most * (1 + SIZE_TOLERANCE):
        steps = f"{claim.bandwidth_used_pct:g} % of the bandwidth in a step of {claim.ms_per_token:g} ms are {read:,.0f} GB"
        yield f"{steps}, but all weights and the cache are {most:,.0f} GB: they would be read more than once"
