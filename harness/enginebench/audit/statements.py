"""Judges claims that are not speeds (ratios, sizes, model facts, fits, hot experts) and finds contradictions between sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from enginebench.audit.claims import Claims, Fits, HotExperts, ModelFacts, Ratio
from enginebench.audit.judge import (
    COUNT_TOLERANCE,
    SIZE_TOLERANCE,
    Finding,
    Verdict,
    bits_per_weight,
    check_ratio,
    close,
    gap,
    judge_serving,
    times,
)
from enginebench.audit.physics import Physics, Shape
from enginebench.errors import UserError

ACTIVE_TOLERANCE = 0.05
"""Allows for rounding; vendors count active parameters with or without the vocabulary tables."""
_SIZES = ("f16", "fp8", "q4_0")
"""Precisions (16, 8 and 4.5 bits per weight) that a wrong size is compared with."""


@dataclass(frozen=True)
class Contradiction:
    about: str
    stated: Mapping[str, float]
    """Source -> value."""
    truth: float | None
    """Computed from the model's dimensions, or None."""

    @property
    def text(self) -> str:
        """'llama4-maverick, active parameters: A states 17, D states 52; computed from its dimensions: 17.2'."""
        stated = ", ".join(f"{source} states {value:g}" for source, value in self.stated.items())
        return f"{self.about}: {stated}" + (f"; computed from its dimensions: {self.truth:.4g}" if self.truth is not None else "")


def judge_all(claims: Claims, physics: Physics) -> tuple[Finding, ...]:
    rates = {claim.id: claim.rates[1] for claim in claims.serving if claim.rates is not None}
    found = [judge_serving(claim, physics) for claim in claims.serving]
    by_id = {finding.id: finding for finding in found}
    found += [judge_ratio(ratio, number, rates, by_id) for number, ratio in enumerate(claims.ratios, start=1)]
    for blank, judge in _statements(claims, physics):
        try:
            verdict, reasons = judge()
        except UserError as error:
            verdict, reasons = gap(error), [error.message]
        found.append(replace(blank, verdict=verdict, reasons=tuple(reasons)))
    return tuple(found)


_Judged: TypeAlias = tuple[Verdict, list[str]]


def _statements(claims: Claims, physics: Physics) -> Iterator[tuple[Finding, Callable[[], _Judged]]]:
    """Each claim that is not a speed or a ratio: its finding without a verdict, and the function that decides."""

    def blank(name: str, source: str, claim: str) -> Finding:
        return Finding(f"{source}: {name}", source, claim, "not enough stated")

    for weights in claims.weights:
        for precision, gb in weights.gb.items():
            claim = f"{weights.model} in {precision} takes {gb:g} GB"
            yield blank(f"{weights.model} in {precision}", weights.source, claim), partial(_size, weights.model, precision, gb, physics)
    for facts in claims.models:
        yield blank(f"facts of {facts.model}", facts.source, _facts_text(facts)), partial(_facts, facts, physics)
    for fit in claims.fits:
        yield blank(f"{fit.model} on {fit.hardware}", fit.source, fit.says), partial(_fit, fit, physics)
    for hot in claims.hot_experts:
        yield blank(f"hot experts of {hot.model}", hot.source, hot.says), partial(_hot, hot, physics)


def judge_ratio(ratio: Ratio, number: int, rates: Mapping[str, float], findings: Mapping[str, Finding]) -> Finding:
    """Whether a / b is the stated ratio. findings: of a and b; a ratio at a stated batch must be possible at that batch."""
    a, b = rates[ratio.a], rates[ratio.b]
    stated = (ratio.stated, ratio.stated) if ratio.stated is not None else tuple(ratio.stated_range or ())
    check = check_ratio(a, b, (stated[0], stated[1]))
    stated_text = times(stated[0]) if stated[0] == stated[1] else f"{times(stated[0])} to {times(stated[1])}"
    reasons = [f"{ratio.a} / {ratio.b} = {a:g} / {b:g} = {times(check.value)}, not {stated_text}"]
    if check.holds:
        reasons = [f"{a:g} / {b:g} = {times(check.value)}"]
    elif check.inverted:
        reasons.append(f"inverted: {ratio.b} is faster, by {times(b / a)}")
    for name in (ratio.a, ratio.b):
        least = findings[name].least if name in findings else None
        if ratio.concurrency is not None and least is not None and least > ratio.concurrency:
            reasons.append(f"{name} is impossible at batch {ratio.concurrency}: it needs {least} or more")
        if name in findings and findings[name].verdict == "impossible as stated":
            reasons.append(f"{name} is impossible as stated")
    verdict: Verdict = "plausible" if check.holds else "inconsistent"
    return Finding(f"{ratio.source}: ratio {number}", ratio.source, ratio.says, verdict, tuple(reasons))


def contradictions(claims: Claims, physics: Physics) -> tuple[Contradiction, ...]:
    """Every fact about a model that two sources of the file state with a difference beyond rounding."""
    stated: dict[tuple[str, str], dict[str, float]] = {}
    for facts in claims.models:
        for name in ("total_b", "active_b", "experts", "top_k", "context"):
            if (value := getattr(facts, name)) is not None:
                stated.setdefault((facts.model, name), {})[facts.source] = float(value)
    for weights in claims.weights:
        for precision, size in weights.gb.items():
            stated.setdefault((weights.model, f"GB in {precision}"), {})[weights.source] = size
    out = []
    for (model, name), values in stated.items():
        if max(values.values()) > min(values.values()) * (1 + ACTIVE_TOLERANCE):
            out.append(Contradiction(f"{model}, {_FACT_NAMES.get(name, name)}", values, _truth(model, name, physics)))
    return tuple(out)


_FACT_NAMES = {
    "total_b": "parameters in billions",
    "active_b": "active parameters in billions",
    "top_k": "experts per token",
    "context": "longest context",
}


def _truth(model: str, name: str, physics: Physics) -> float | None:
    try:
        shape = physics.shape(model)
        if name.startswith("GB in "):
            return physics.weights_gb(model, name.removeprefix("GB in "))
    except UserError:
        return None
    return {"total_b": shape.total / 1e9, "active_b": shape.active[1] / 1e9}.get(name) or float(getattr(shape, name))


def _size(model: str, precision: str, gb: float, physics: Physics) -> _Judged:
    true, total = physics.weights_gb(model, precision), physics.parameters(model)
    if close(gb, true, SIZE_TOLERANCE):
        return "plausible", [f"computed: {true:.1f} GB"]
    size = f"{total / 1e9:.1f}B parameters in {precision} take {true:.1f} GB"
    bits = f"{gb:g} GB would be {bits_per_weight(gb, total):.1f} bits per weight"
    other = next((p for p in _SIZES if p != precision and close(gb, physics.weights_gb(model, p), SIZE_TOLERANCE)), None)
    return "inconsistent", [f"{size}; {bits}" + (f", the size in {other}" if other else "")]


def _facts_text(facts: ModelFacts) -> str:
    parts = [
        f"{facts.total_b:g}B parameters" if facts.total_b else "",
        f"{facts.active_b:g}B active" if facts.active_b else "",
        f"{facts.experts} experts" if facts.experts else "",
        f"{facts.top_k} per token" if facts.top_k else "",
        f"{facts.context:,} tokens of context" if facts.context else "",
    ]
    return f"{facts.model}: {', '.join(filter(None, parts))}"


def _facts(facts: ModelFacts, physics: Physics) -> _Judged:
    wrong = list(_wrong_facts(facts, physics.shape(facts.model)))
    return ("inconsistent", wrong) if wrong else ("plausible", ["agrees with the model's dimensions"])


def _wrong_facts(facts: ModelFacts, shape: Shape) -> Iterator[str]:
    if facts.total_b is not None and not close(facts.total_b * 1e9, shape.total, COUNT_TOLERANCE):
        yield f"the model has {shape.total / 1e9:.1f}B parameters, not {facts.total_b:g}B"
    low, high = shape.active
    if facts.active_b is not None and not low * (1 - ACTIVE_TOLERANCE) <= facts.active_b * 1e9 <= high * (1 + ACTIVE_TOLERANCE):
        yield f"a token uses {low / 1e9:.1f}B to {high / 1e9:.1f}B (without and with the vocabulary tables), not {facts.active_b:g}B"
    if facts.experts is not None and facts.experts != shape.experts:
        yield f"a layer has {shape.experts} routed experts, not {facts.experts}"
    if facts.top_k is not None and facts.top_k != shape.top_k:
        shared = f"; {facts.top_k} only with the shared expert" if facts.top_k == shape.top_k + shape.shared_experts else ""
        yield f"routed experts per token: {shape.top_k}, not {facts.top_k}{shared}"
    if facts.context is not None and not close(facts.context, shape.context, SIZE_TOLERANCE):
        yield f"the configuration allows {shape.context:,} tokens of context, not {facts.context:,}"


def _fit(fit: Fits, physics: Physics) -> _Judged:
    weights, memory = physics.weights_gb(fit.model, fit.precision), physics.memory_gb(fit.hardware)
    claim = "fits" if fit.fits else "does not fit"
    reason = f"stated: {claim}; the weights take {weights:.1f} GB, {fit.hardware} has {memory:.1f} GB"
    return ("plausible" if (weights <= memory) == fit.fits else "inconsistent"), [reason]


def _hot(hot: HotExperts, physics: Physics) -> _Judged:
    """Compare the skew with uniform routing. It depends on the text, so it cannot be judged further."""
    experts = physics.shape(hot.model).experts
    if hot.experts[1] > experts:
        return "inconsistent", [f"a layer has {experts} experts"]
    even = [count / experts for count in hot.experts]
    excess = f"uniform routing gives them {even[0]:.0%} to {even[1]:.0%}; the claim is at least {times(hot.share[0] / even[0])} that"
    return "not enough stated", [excess, "text and layers are not stated; measure it with bench routing"]
