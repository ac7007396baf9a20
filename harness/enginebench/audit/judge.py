"""Judges a claimed speed: does the model fit, is the rate below the ceiling, and from which batch on.

Every assumption favours the claim: no KV cache unless lengths are stated, full bandwidth, the same experts for all tokens, no overhead. The
rate that even routing would allow stands beside the bound. Pure functions of a claim and `Physics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from enginebench.audit.claims import Serving
from enginebench.audit.physics import Ceiling, Physics
from enginebench.domain.formatting import rounded
from enginebench.errors import UserError

HOST_MEMORY = "host memory"

Verdict: TypeAlias = Literal["plausible", "needs batch", "impossible as stated", "inconsistent", "not enough stated", "not known here"]
VERDICTS: tuple[Verdict, ...] = ("impossible as stated", "inconsistent", "needs batch", "not enough stated", "not known here", "plausible")
"""Worst first."""

GAIN_TOLERANCE = 0.1
"""Allows for rounding of a ratio, relative to its gain: '3x' may be 2.8 to 3.2, '13 % faster' may be 11.7 to 14.3 %."""
SIZE_TOLERANCE = 0.1
"""Allows for mixed quantisations, which differ in size under one name."""
COUNT_TOLERANCE = 0.03
"""Allows for different ways to count parameters: '109B' includes a vision tower of 0.9B that '107.8B' does not."""
MAX_BATCH = 4096
"""Largest batch per device that is considered."""


@dataclass(frozen=True)
class Finding:
    id: str
    source: str
    claim: str
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    """Sentences, decisive ones first."""
    stated: float | None = None
    """The judged rate, output tokens/s."""
    ceiling: float | None = None
    """The highest possible rate at `batch`."""
    batch: int | None = None
    least: int | None = None
    """The smallest batch at which the rate is possible."""
    limit: str | None = None
    highest: float | None = None
    """If no batch is stated: the ceiling at the largest batch that fits, highest_batch."""
    even: float | None = None
    """The estimate with even routing at `highest_batch`, or at `batch` if that is stated; None for a dense model."""
    highest_batch: int | None = None
    serving: Serving | None = field(default=None, repr=False)

    def judged(self, verdict: Verdict, reason: str, **figures: Any) -> Finding:
        """With a verdict, its decisive reason and its figures."""
        return replace(self, verdict=verdict, reasons=(reason, *self.reasons), **figures)

    @property
    def top(self) -> tuple[float, int] | None:
        """The ceiling in tokens/s at the stated batch, or at the largest that fits; with that batch. None without a ceiling."""
        if self.highest is not None and self.highest_batch is not None:
            return self.highest, self.highest_batch
        return (self.ceiling, self.batch) if self.ceiling is not None and self.batch is not None else None

    @property
    def share(self) -> float | None:
        """Stated rate / ceiling. Above 1 the claim is impossible."""
        return self.stated / self.ceiling if self.stated is not None and self.ceiling else None

    @property
    def text(self) -> str:
        return f"needs batch >= {self.least}" if self.verdict == "needs batch" else self.verdict


def judge_serving(claim: Serving, physics: Physics) -> Finding:
    finding = Finding(claim.id, claim.source, describe(claim), "not enough stated", serving=claim)
    missing = [name for name in ("precision", "hardware") if getattr(claim, name) is None]
    try:
        notes = tuple(_notes(claim, physics))
        if claim.rates is None:
            return _without_rate(replace(finding, reasons=notes), claim, physics)
        if missing:
            return replace(finding, reasons=(f"not stated: {', '.join(missing)}", *notes), stated=claim.rates[1])
        found = _judge(replace(finding, stated=claim.rates[1]), claim, physics, notes)
        if found.verdict == "impossible as stated":
            found = replace(found, reasons=(*found.reasons, *_as_published(claim, physics)))
        wrong = tuple(_contradicts_itself(claim, physics))
        if wrong and found.verdict not in ("impossible as stated", "inconsistent"):
            return replace(found, verdict="inconsistent", reasons=(*wrong, *found.reasons))
        return replace(found, reasons=(*found.reasons, *wrong))
    except UserError as error:
        return replace(finding, verdict=gap(error), reasons=(error.message,), stated=claim.rates[1] if claim.rates else None)


def gap(error: UserError) -> Verdict:
    """Whether the catalogues lack a model, a device or a precision, or the claim states too little."""
    return "not known here" if error.key in ("model", "hardware", "precision") else "not enough stated"


def describe(claim: Serving) -> str:
    """'vllm 0.8, llama4-scout f16 on 4xh100, tp=4: 3,800 tok/s'."""
    engine = " ".join(filter(None, (claim.engine, claim.engine_version)))
    setup = f"{claim.model} {claim.precision or '(precision not stated)'} on {claim.hardware or '(hardware not stated)'}"
    return ", ".join(filter(None, (engine, setup, claim.parallelism_text))) + f": {rate_text(claim)}"


def rate_text(claim: Serving) -> str:
    if claim.ms_per_token is not None and claim.output_tok_s is None:
        return f"{claim.ms_per_token:g} ms per token"
    if claim.rates is None:
        return f"perplexity {claim.perplexity:g}" if claim.perplexity else f"{claim.weights_gb:g} GB" if claim.weights_gb else "no rate"
    low, high = claim.rates
    return f"{'at least ' if claim.comparison else ''}{f'{low:g} to ' if low != high else ''}{rounded(high, 4)} tok/s"


def _judge(finding: Finding, claim: Serving, physics: Physics, notes: tuple[str, ...]) -> Finding:
    assert claim.precision is not None  # noqa: S101  # checked by judge_serving
    assert claim.hardware is not None  # noqa: S101
    copies = claim.copies * claim.dp_replicas
    weights = (claim.weights_gb or physics.weights_gb(claim.model, claim.precision)) * copies  # the claim's file may be another mixture
    memory = physics.memory_gb(claim.hardware)
    per_copy = f" (one copy for each of {copies} servers)" if copies > 1 else ""
    size = f"the weights take {weights:.1f} GB{per_copy}, {claim.hardware} has {memory:.1f} GB"
    if weights <= memory and claim.placement != "host":
        return _on_devices(replace(finding, reasons=notes), claim, physics)
    if claim.placement == "host":
        return _with_host(replace(finding, reasons=notes), claim, physics)
    if claim.placement is None and copies == 1:
        hosted = _with_host(finding, claim.model_copy(update={"placement": "host"}), physics)
        gap = f"{size}; where the other {weights - memory:.1f} GB are is not stated"
        return replace(hosted, verdict="not enough stated", reasons=(gap, *hosted.reasons, *notes))
    return replace(finding, verdict="impossible as stated", reasons=(size, *notes))


def _on_devices(finding: Finding, claim: Serving, physics: Physics) -> Finding:
    """All weights are on the devices: compare with the roofline at the stated batch, or find the smallest batch that reaches the rate."""
    assert claim.rates is not None  # noqa: S101
    rate = claim.rates[1]
    if claim.concurrency is not None:
        return _compared(finding, claim, physics.ceiling(claim, claim.concurrency))
    limit = MAX_BATCH * physics.device(claim.hardware or "")[1]
    most = min(limit, physics.largest_batch(claim))
    if most < 1:
        return finding.judged("impossible as stated", "the weights fit, but leave no memory for a request of the stated length")
    top = physics.ceiling(claim, most)
    finding = replace(finding, highest=top.tok_s, highest_batch=most, even=top.even)
    least = least_batch(lambda batch: physics.ceiling(claim, batch).tok_s >= rate, most)
    if least is None:
        largest = f"the largest batch that fits, {most}," if most < limit else f"even a batch of {most}"
        reason = f"{largest} reaches at most {top.tok_s:,.0f} tok/s, limited by {top.limit}"
        return finding.judged("impossible as stated", reason, ceiling=top.tok_s, batch=most, limit=top.limit)
    at = physics.ceiling(claim, least)
    one = physics.ceiling(claim, 1)
    if least == 1:
        reason = f"possible from one stream on (at most {one.tok_s:,.0f} tok/s); no batch is stated"
        return finding.judged("plausible", reason, ceiling=one.tok_s, batch=1, least=1, limit=one.limit)
    even = f", or {at.even:,.0f} if all experts are used equally" if at.even and at.even < 0.99 * at.tok_s else ""
    streams = f"one stream reaches at most {one.tok_s:,.0f} tok/s, limited by {one.limit}; {least} reach at most {at.tok_s:,.0f}{even}"
    reason = f"no batch is stated: {streams}"
    return finding.judged("needs batch", reason, ceiling=at.tok_s, batch=least, least=least, limit=at.limit)


def _compared(finding: Finding, claim: Serving, ceiling: Ceiling) -> Finding:
    rate, streams = finding.stated or 0.0, claim.concurrency or 1
    found = replace(finding, ceiling=ceiling.tok_s, batch=streams, limit=ceiling.limit, even=ceiling.even)
    even = f"; {rounded(ceiling.even, 4)} if all experts are used equally" if ceiling.even and ceiling.even < 0.99 * ceiling.tok_s else ""
    batch = "one stream" if streams == 1 else f"{streams} streams"
    if rate <= ceiling.tok_s:
        most = f"{rounded(ceiling.tok_s, 4)} tok/s that {batch} can reach at most, limited by {ceiling.limit}{even}"
        reason = f"{rate / ceiling.tok_s:.0%} of the {most}"
        return found.judged("plausible", reason, least=1 if streams == 1 else None)
    most = f"{batch} can reach at most {rounded(ceiling.tok_s, 4)} tok/s, limited by {ceiling.limit}"
    return found.judged("impossible as stated", f"{most}: the claim is {rate / ceiling.tok_s:.0%} of that")


def _with_host(finding: Finding, claim: Serving, physics: Physics) -> Finding:
    """Some weights are in host memory: compare the host bandwidth that the claim needs with a typical one."""
    assert claim.precision is not None  # noqa: S101
    assert claim.hardware is not None  # noqa: S101
    rate, streams = finding.stated or 0.0, claim.concurrency or 1
    split = physics.host_split(claim)
    host = physics.host_gb_s(claim.hardware)
    step_s = streams / rate
    best = streams / (split.least_s or split.device_s + split.host_gb_per_step / host)
    found = replace(finding, ceiling=best, batch=streams, limit=HOST_MEMORY, least=1 if streams == 1 else None)
    share = f"{split.host_gb:.1f} of {split.host_gb + split.device_gb:.1f} GB are in host memory"
    if step_s <= split.device_s:
        reason = f"{share}; the devices' reads alone take {split.device_s * 1e3:.1f} ms per step, the claim allows {step_s * 1e3:.1f}"
        return found.judged("impossible as stated", reason)
    needed = split.host_gb_per_step / (step_s - split.device_s)
    per_token = split.host_gb_per_step / streams
    reason = f"{share}; with uniform routing each token reads {per_token:.2f} GB of them, which needs {needed:.0f} GB/s"
    if needed <= host:
        return found.judged("plausible", f"{reason} (a typical host has {host:g})")
    return found.judged("not enough stated", f"{reason}: more than a typical host has ({host:g}), and the host is not stated")


def _without_rate(finding: Finding, claim: Serving, physics: Physics) -> Finding:
    """A claim about size or quality. Sizes are checked; a quality cannot be."""
    if claim.weights_gb is not None and claim.precision is not None and claim.hardware is not None:
        weights, memory = physics.weights_gb(claim.model, claim.precision), physics.memory_gb(claim.hardware)
        fits = weights <= memory
        size = f"the weights take {weights:.1f} GB, {claim.hardware} has {memory:.1f} GB"
        consistent = fits and close(claim.weights_gb, weights, SIZE_TOLERANCE)
        verdict: Verdict = "plausible" if consistent else "inconsistent" if fits else "impossible as stated"
        return finding.judged(verdict, size)
    return finding.judged("not enough stated", "states no rate and no other figure that can be checked")


def _as_published(claim: Serving, physics: Physics) -> Iterator[str]:
    """Whether an impossible claim would be possible in the precision of the published checkpoint."""
    native = physics.native(claim.model)
    if native is None or claim.rates is None or native == claim.precision:
        return
    other = claim.model_copy(update={"precision": native, "weights_gb": None})
    if physics.weights_gb(other.model, native) * claim.copies * claim.dp_replicas <= physics.memory_gb(claim.hardware or ""):
        top = physics.ceiling(other, claim.concurrency or 1)
        if claim.rates[1] <= top.tok_s:
            streams = "one stream" if (claim.concurrency or 1) == 1 else f"{claim.concurrency} streams"
            yield f"in {native}, as it is published, {streams} could reach {rounded(top.tok_s, 4)} tok/s: the precision may be misstated"


def _contradicts_itself(claim: Serving, physics: Physics) -> Iterator[str]:
    """What the claim's own figures do not allow."""
    low = claim.rates[0] if claim.rates else 0.0
    if claim.paced is not None and low > claim.paced * (1 + GAIN_TOLERANCE):
        each = f"{claim.concurrency} streams at {claim.ms_per_token:g} ms per token"
        yield f"{each} give {claim.paced:,.0f} tok/s, not {rounded(low, 4)}"
    if claim.bandwidth_gb_s is not None and claim.hardware is not None:
        known = physics.bandwidth_gb_s(claim.hardware) / physics.device(claim.hardware)[1]
        if not close(claim.bandwidth_gb_s, known, GAIN_TOLERANCE):
            yield f"a device of {claim.hardware} has {known:,.0f} GB/s, the text states {claim.bandwidth_gb_s:g}"


def _notes(claim: Serving, physics: Physics) -> Iterator[str]:
    if claim.projected:
        yield "the rate was computed by the source, not measured"
    if claim.note is not None:
        yield claim.note
    if claim.perplexity is not None:
        yield "a perplexity cannot be compared without the text and the context length"
    if claim.quality_retained_pct is not None:
        yield "a retained quality cannot be compared without the task"
    if claim.device_memory_gb is not None:
        total = physics.parameters(claim.model)
        bits = bits_per_weight(claim.device_memory_gb, total)
        yield f"{claim.device_memory_gb:g} GB for {total / 1e9:.1f}B parameters are {bits:.1f} bits per weight: which precision is that?"
    if claim.weights_gb is not None and claim.precision is not None:
        true = physics.weights_gb(claim.model, claim.precision)
        if not close(claim.weights_gb, true, SIZE_TOLERANCE):
            yield f"{claim.precision} weights take {true:.1f} GB, the text states {claim.weights_gb:g}"
    if claim.predicted_tok_s is not None and claim.rates is not None and claim.rates[0] > claim.predicted_tok_s:
        stated = f" of {claim.bandwidth_gb_s:g} GB/s" if claim.bandwidth_gb_s else ""
        yield (
            f"the text derives {claim.predicted_tok_s:g} tok/s from the bandwidth{stated}, which is an upper limit, "
            f"but reports a higher measurement"
        )


# -- arithmetic ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RatioCheck:
    value: float
    holds: bool
    """The stated ratio is a / b."""
    inverted: bool
    """The stated ratio is b / a."""


def check_ratio(a: float, b: float, stated: tuple[float, float]) -> RatioCheck:
    """Compare a / b with a stated range. A single value (low equals high) may be rounded within GAIN_TOLERANCE."""
    low, high = stated
    slack = GAIN_TOLERANCE * abs(low - 1) if low == high else 0.0

    def within(ratio: float) -> bool:
        return low - slack <= ratio <= high + slack

    return RatioCheck(a / b, within(a / b), not within(a / b) and within(b / a))


def close(stated: float, true: float, tolerance: float) -> bool:
    return abs(stated - true) <= tolerance * abs(true)


def bits_per_weight(size_gb: float, parameters: float) -> float:
    return size_gb * 8e9 / parameters


def times(ratio: float) -> str:
    """1.42 -> '1.42x'; 12.3 -> '12x'."""
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:.0f}x"


def least_batch(reaches: Callable[[int], bool], most: int) -> int | None:
    """The smallest batch from 1 to `most` for which `reaches` is true, None if there is none. `reaches` must be monotone."""
    batch = bisect_left(range(most + 1), x=True, lo=1, key=reaches)
    return batch if batch <= most else None
