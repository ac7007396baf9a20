"""Judges a claimed speed: does the model fit, is the rate below the ceiling, and from which batch on.

Every assumption favours the claim (docs/physics.md lists them): no KV cache unless lengths are stated, full bandwidth, the same experts for
all tokens, no overhead. The rates that even routing, or the routing of the source's own words, would allow stand beside it.
Pure functions of a claim and `Physics`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from enginebench.audit.arithmetic import SIZE_TOLERANCE, close, least_batch, part, price_per_million, rate, streams_text
from enginebench.audit.claims import Serving
from enginebench.audit.consistency import contradicts_itself, notes
from enginebench.audit.figures import Ceiling, Skew
from enginebench.audit.finding import FAILED, Finding, gap
from enginebench.audit.physics import Physics
from enginebench.domain.formatting import brief
from enginebench.errors import UserError

HOST_MEMORY = "host memory"
ON_DEVICES = frozenset({"vllm", "sglang", "trtllm", "exllamav3"})
"""Engines that use host memory for weights only where an option says so. llama.cpp and transformers may do it by themselves."""
MOST_DRAFTED = 8.0
"""Tokens of a step with speculative decoding that goes well."""
MAX_BATCH = 4096
"""Largest batch per device that is considered."""


def judge_serving(claim: Serving, physics: Physics, skew: Skew | None = None) -> Finding:
    """skew: of the experts, as the claim's source states it."""
    finding = Finding(claim.id, claim.source, describe(claim), "not enough stated", serving=claim)
    stated = claim.rates[1] if claim.rates else None
    missing = [name for name in ("precision", "hardware") if getattr(claim, name) is None]
    try:
        claim, about = physics.resolved(claim)
        claim, priced = _with_price(claim, physics)
        stated = claim.rates[1] if claim.rates else None
        finding = replace(finding, stated=stated, reasons=tuple(filter(None, (priced, about, *notes(claim, physics)))))
        missing = [name for name in missing if getattr(claim, name) is None]
        if missing and stated is not None:
            return finding.judged("not enough stated", f"not stated: {', '.join(missing)}", decides=tuple(missing))
        if stated is None:
            return _checked(_without_rate(finding, claim, physics, missing), claim, physics)
        return _checked(_judge(finding, claim, physics, skew), claim, physics)
    except UserError as error:
        return replace(finding, verdict=gap(error), reasons=(error.message,), stated=stated)


def _checked(found: Finding, claim: Serving, physics: Physics) -> Finding:
    """After the rate: what else the claim states, and whether its figures allow each other."""
    broken = tuple(_too_early(claim, physics))
    if broken and found.verdict != "impossible as stated":
        found = replace(found, verdict="impossible as stated", reasons=(*broken, *found.reasons))
    elif broken:
        found = found.also(*broken)
    if found.verdict == "impossible as stated" and (other := _as_published(claim, physics)):
        found = replace(found, reasons=(found.reasons[0], other, *found.reasons[1:]), decides=("precision",))
    elif found.verdict == "impossible as stated" and found.share is not None and found.share <= MOST_DRAFTED:
        found = found.also("speculative decoding, which is not stated, could explain it: a step then yields several tokens")
    wrong = tuple(contradicts_itself(claim, physics))
    if wrong and found.verdict not in FAILED:
        kept = found.reasons if claim.rates is not None else ()
        return replace(found, verdict="inconsistent", reasons=(*wrong, *kept))
    return found.also(*wrong)


def describe(claim: Serving) -> str:
    """'vllm 0.8, llama4-scout f16 on 4xh100, tp=4: 3,800 tok/s'."""
    engine = " ".join(filter(None, (claim.engine, claim.engine_version)))
    setup = f"{claim.model} {claim.precision or '(precision not stated)'} on {claim.hardware or '(hardware not stated)'}"
    batch = f"batch {claim.batch}" if claim.batch else ""
    streams = f"{claim.concurrency} in flight" if claim.concurrency and claim.concurrency > 1 else ""
    return ", ".join(filter(None, (engine, setup, claim.parallelism_text, batch, streams))) + f": {rate_text(claim)}"


def rate_text(claim: Serving) -> str:
    if claim.ms_per_token is not None and claim.output_tok_s is None:
        return f"{claim.ms_per_token:g} ms per token"
    if claim.rates is None:
        named = {"perplexity": claim.perplexity, "price per million": claim.price_per_million}
        sizes = {"GB": claim.weights_gb, "ms to the first token": claim.ttft_ms, "tok/s of prefill": claim.prefill_tok_s}
        found = [f"{name} {value:g}" for name, value in named.items() if value] + [
            f"{value:g} {name}" for name, value in sizes.items() if value
        ]
        return ", ".join(found) or "no rate"
    low, high = claim.rates
    projected = ", computed by the source" if claim.projected else ""
    return f"{'at least ' if claim.comparison else ''}{f'{low:g} to ' if low != high else ''}{rate(high)} tok/s{projected}"


def _with_price(claim: Serving, physics: Physics) -> tuple[Serving, str | None]:
    """The claim with the rate that its prices imply, if it states no other."""
    if claim.rates is not None or claim.price_per_hour is None or claim.price_per_million is None or claim.hardware is None:
        return claim, None
    per_hour = claim.price_per_hour * physics.device(claim.hardware)[1]
    implied = price_per_million(per_hour, 1.0) / claim.price_per_million
    why = f"{per_hour:g} per hour and {claim.price_per_million:g} per million tokens are {rate(implied)} tok/s"
    return claim.model_copy(update={"output_tok_s": implied}), why


def _judge(finding: Finding, claim: Serving, physics: Physics, skew: Skew | None) -> Finding:
    copies = claim.copies * claim.dp_replicas
    each = claim.weights_gb or _weights_gb(claim, physics)  # the claim's file may be another mixture
    weights, memory = each * copies, physics.memory_gb(claim.hardware or "")
    per_copy = f" (one copy for each of {copies} servers)" if copies > 1 else ""
    size = f"the weights take {weights:.1f} GB{per_copy}, {claim.hardware} has {memory:.1f} GB"
    if claim.placement == "host":
        return _with_host(finding, claim, physics)
    if weights <= memory:
        return _on_devices(finding, claim, physics, skew)
    if claim.placement is None and claim.engine in ON_DEVICES and not claim.options:
        size += f"; {claim.engine} keeps all of them there unless an option moves them, and none is stated"
    elif claim.placement is None and copies == 1:
        hosted = _with_host(replace(finding, reasons=()), claim.model_copy(update={"placement": "host"}), physics)
        where = f"{size}; where the other {weights - memory:.1f} GB are is not stated"
        return replace(hosted, verdict="not enough stated", reasons=(where, *hosted.reasons, *finding.reasons), decides=("placement",))
    return finding.judged("impossible as stated", size, decides=("memory",), off_by=weights / memory)


def _weights_gb(claim: Serving, physics: Physics) -> float:
    return physics.weights_gb(claim.model, claim.precision or "", claim.engine)


def _on_devices(finding: Finding, claim: Serving, physics: Physics, skew: Skew | None) -> Finding:
    """All weights are on the devices: compare with the roofline at the stated batch, or find the smallest batch that reaches the rate."""
    goal = finding.stated or 0.0
    if claim.streams is not None:
        return _compared(finding, claim, physics.ceiling(claim, claim.streams, skew))
    limit = MAX_BATCH * physics.device(claim.hardware or "")[1]
    most = min(limit, physics.largest_batch(claim))
    if most < 1:
        return finding.judged(
            "impossible as stated", "the weights fit, but leave no memory for a request of the stated length", decides=("memory",)
        )
    top = physics.ceiling(claim, most)
    finding = replace(finding, highest=top.tok_s, highest_batch=most, even=top.even)
    least = least_batch(lambda batch: physics.ceiling(claim, batch).tok_s >= goal, most)
    if least is None:
        largest = f"the largest batch that fits, {most:,}," if most < limit else f"even a batch of {most:,}"
        reason = f"{largest} reaches at most {top.tok_s:,.0f} tok/s, limited by {top.limit}"
        return finding.judged("impossible as stated", reason, ceiling=top.tok_s, batch=most, limit=top.limit, off_by=goal / top.tok_s)
    one, at = physics.ceiling(claim, 1), physics.ceiling(claim, least)
    if least == 1:
        reason = f"possible from one stream on (at most {one.tok_s:,.0f} tok/s, limited by {one.limit}); no batch is stated"
        return finding.judged("plausible", reason, ceiling=one.tok_s, batch=1, least=1, limit=one.limit)
    first = f"no batch is stated: one stream reaches at most {one.tok_s:,.0f} tok/s, limited by {one.limit}"
    even, routed = _least_routed(claim, physics, skew, goal, most)
    bound = f"{least} reach at most {at.tok_s:,.0f}" + (" if all take the same experts, the bound" if routed else "")
    decides = ("batch", "routing") if routed and even != least else ("batch",)
    found = {"ceiling": at.tok_s, "batch": least, "least": least, "least_even": even, "limit": at.limit, "decides": decides}
    return finding.judged("needs batch", "; ".join((first, bound, *routed)), **found)


def _least_routed(claim: Serving, physics: Physics, skew: Skew | None, goal: float, most: int) -> tuple[int | None, list[str]]:
    """From which batch on other routing than the bound's reaches the rate: even routing's number, and the words."""
    if physics.ceiling(claim, most).even is None:
        return None, []
    even = least_batch(lambda batch: (physics.ceiling(claim, batch).even or 0.0) >= goal, most)
    words = []
    if (named := physics.ceiling(claim, most, skew).routing) is not None:
        hot = least_batch(lambda batch: (physics.ceiling(claim, batch, skew).routed or 0.0) >= goal, most)
        words.append(f"{f'{hot} do' if hot else 'no batch does'} with this routing: {named}")
    return even, [*words, f"{f'{even} do' if even else 'no batch does'} if all experts are used equally"]


def _compared(finding: Finding, claim: Serving, ceiling: Ceiling) -> Finding:
    goal, streams = finding.stated or 0.0, claim.streams or 1
    found = replace(finding, ceiling=ceiling.tok_s, batch=streams, limit=ceiling.limit, even=ceiling.even)
    others = [f"{rate(ceiling.routed)} with this routing: {ceiling.routing}"] if ceiling.routed else []
    if ceiling.even and ceiling.even < 0.99 * ceiling.tok_s:
        others.append(f"{rate(ceiling.even)} if all experts are used equally")
    if goal <= ceiling.tok_s:
        most = f"{rate(ceiling.tok_s)} tok/s that {streams_text(streams)} can reach at most, limited by {ceiling.limit}"
        decides = ("routing",) if ceiling.even and goal > ceiling.even else ()
        reason = "; ".join((f"{part(goal / ceiling.tok_s)} of the {most}", *(others if streams > 1 else ())))
        return found.judged("plausible", reason, least=1 if streams == 1 else None, decides=decides)
    most = f"{streams_text(streams)} can reach at most {rate(ceiling.tok_s)} tok/s, limited by {ceiling.limit}"
    return found.judged("impossible as stated", f"{most}: the claim is {goal / ceiling.tok_s:.0%} of that", off_by=goal / ceiling.tok_s)


def _with_host(finding: Finding, claim: Serving, physics: Physics) -> Finding:
    """Some weights are in host memory: compare the host bandwidth that the claim needs with the stated or a typical one."""
    goal, streams = finding.stated or 0.0, claim.streams or 1
    split = physics.host_split(claim)
    host = claim.host_gb_s or physics.host_gb_s(claim.hardware or "")
    named = f"the stated {host:g}" if claim.host_gb_s else f"a typical host has {host:g}"
    step_s = streams / goal
    best = streams / (split.least_s or split.device_s + split.host_gb_per_step / host)
    found = replace(finding, ceiling=best, batch=streams, limit=HOST_MEMORY, least=1 if streams == 1 else None)
    share = f"{split.host_gb:.1f} of {split.host_gb + split.device_gb:.1f} GB are in host memory"
    if step_s <= split.device_s:
        reason = f"{share}; the devices' reads alone take {brief(split.device_s)} per step, the claim allows {brief(step_s)}"
        return found.judged("impossible as stated", reason, off_by=split.device_s / step_s)
    needed = split.host_gb_per_step / (step_s - split.device_s)
    per_token = split.host_gb_per_step / streams
    reason = f"{share}; with uniform routing each token reads {per_token:.2f} GB of them, which needs {needed:.0f} GB/s"
    if needed <= host:
        return found.judged("plausible", f"{reason} ({named})")
    if claim.host_gb_s and goal > best:
        return found.judged(
            "impossible as stated", f"{reason}, more than {named}; at most {rate(best)} tok/s, whatever the routing", off_by=goal / best
        )  # fmt: skip
    if claim.host_gb_s:
        unlike = f"{reason}, more than {named}: possible only if tokens prefer the experts on the device (at most {rate(best)} tok/s)"
        return found.judged("not enough stated", unlike, decides=("routing",))
    return found.judged(
        "not enough stated", f"{reason}: more than a typical host has ({host:g}), and the host is not stated", decides=("host",)
    )


def _without_rate(finding: Finding, claim: Serving, physics: Physics, missing: list[str]) -> Finding:
    """A claim about size, the time of a prompt, or quality. Sizes and times are checked; a quality cannot be."""
    if claim.weights_gb is not None and claim.precision is not None:
        weights = _weights_gb(claim, physics)
        size, fits = f"the weights take {weights:.1f} GB", True
        if claim.hardware is not None:
            memory = physics.memory_gb(claim.hardware)
            size, fits = f"{size}, {claim.hardware} has {memory:.1f} GB", weights <= memory
        if not fits:
            return finding.judged("impossible as stated", size, decides=("memory",))
        return finding.judged("plausible" if close(claim.weights_gb, weights, SIZE_TOLERANCE) else "inconsistent", size)
    if (claim.ttft_ms is not None and claim.isl is not None) or claim.prefill_tok_s is not None:
        if missing:
            return finding.judged("not enough stated", f"not stated: {', '.join(missing)}", decides=tuple(missing))
        return finding.judged("plausible", "the prompt can be processed that fast")
    if claim.bandwidth_gb_s is not None and claim.hardware is not None:
        return finding.judged("plausible", f"a device of {claim.hardware} has about {claim.bandwidth_gb_s:g} GB/s")
    return finding.judged("not enough stated", "states no rate and no other figure that can be checked", decides=("rate",))


def _too_early(claim: Serving, physics: Physics) -> Iterator[str]:
    """Times of a prompt that no device of the claim can reach."""
    if claim.placement == "host" or claim.copies > 1 or claim.precision is None or claim.hardware is None:
        return
    if claim.ttft_ms is not None and claim.isl is not None:
        least = physics.prefill_ms(claim, claim.isl)
        if claim.ttft_ms < least:
            yield f"a prompt of {claim.isl:,} tokens takes {least:,.0f} ms at least, not {claim.ttft_ms:g}, unless a part of it is cached"
    if claim.prefill_tok_s is not None:
        most = physics.prefill_tok_s(claim)
        if claim.prefill_tok_s > most:
            yield f"prefill reaches at most {most:,.0f} tok/s, not {claim.prefill_tok_s:,.0f}"


def _as_published(claim: Serving, physics: Physics) -> str | None:
    """Whether an impossible claim would be possible in the precision of the published checkpoint."""
    native = physics.native(claim.model)
    if native is None or claim.rates is None or native == claim.precision:
        return None
    other = claim.model_copy(update={"precision": native, "weights_gb": None})
    if _weights_gb(other, physics) * claim.copies * claim.dp_replicas > physics.memory_gb(claim.hardware or ""):
        return None
    top = physics.ceiling(other, claim.streams or 1).tok_s
    if claim.rates[1] > top:
        return None
    reach = f"{streams_text(claim.streams or 1)} could reach {rate(top)} tok/s, and the claim is {claim.rates[1] / top:.0%} of that"
    return f"in {native}, as it is published, {reach}: the precision may be misstated"
