"""Judges claims about a model itself: sizes, parameters, experts, compute, skew. Each returns a verdict with its reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator

from enginebench.audit.arithmetic import (
    ACTIVE_TOLERANCE,
    COUNT_TOLERANCE,
    SIZE_TOLERANCE,
    TIMES_TOLERANCE,
    bits_per_weight,
    close,
    span_text,
    times,
)
from enginebench.audit.figures import Shape
from enginebench.audit.finding import Judged, apart
from enginebench.audit.kinds import ExpertSize, LessCompute, ModelFacts
from enginebench.audit.physics import Physics
from enginebench.errors import UserError

_SIZES = ("f16", "fp8", "q4_0")
"""Precisions (16, 8 and 4.5 bits per weight) that a wrong size is compared with."""


def size(model: str, precision: str, gb: float, physics: Physics) -> Judged:
    true, total = physics.weights_gb(model, precision), physics.parameters(model)
    if close(gb, true, SIZE_TOLERANCE):
        return Judged("plausible", [f"computed: {true:.1f} GB"])
    words = f"{total / 1e9:.1f}B parameters in {precision} take {true:.1f} GB"
    bits = f"{gb:g} GB would be {bits_per_weight(gb, total):.1f} bits per weight"
    other = next((p for p in _SIZES if p != precision and close(gb, physics.weights_gb(model, p), SIZE_TOLERANCE)), None)
    return Judged("inconsistent", [f"{words}; {bits}" + (f", the size in {other}" if other else "")], apart(gb, true))


def facts_text(facts: ModelFacts) -> str:
    parts = [
        f"{facts.total_b:g}B parameters" if facts.total_b else "",
        f"{facts.active_b:g}B active" if facts.active_b else "",
        f"{facts.experts} experts" if facts.experts else "",
        f"{facts.top_k} per token" if facts.top_k else "",
        f"{facts.layers} layers" if facts.layers else "",
        f"{facts.context:,} tokens of context" if facts.context else "",
    ]
    return f"{facts.model}: {', '.join(filter(None, parts))}"


def facts_of(facts: ModelFacts, physics: Physics) -> Judged:
    try:
        shape = physics.shape(facts.model)
    except UserError as error:
        if (of_another := _size_of_another(facts, physics)) is None:
            raise
        return Judged("inconsistent", [of_another, error.message])
    wrong = sorted(_wrong_facts(facts, shape), key=lambda each: -each[1])
    if not wrong:
        return Judged("plausible", ["agrees with the model's dimensions"])
    return Judged("inconsistent", [text for text, _ in wrong], wrong[0][1])


def _size_of_another(facts: ModelFacts, physics: Physics) -> str | None:
    """That an unknown model is given the size of another of its family."""
    other = physics.of_size(facts.total_b) if facts.total_b else None
    if other is None or _family(other) != _family(facts.model):
        return None
    active = physics.shape(other).active[1] / 1e9
    known = f"{facts.total_b:g}B parameters are those of {other}, of which a token uses {active:.0f}B"
    unlike = facts.active_b is not None and not close(facts.active_b, active, ACTIVE_TOLERANCE)
    return known + (f", not {facts.active_b:g}B" if unlike else "") + f"; no dimensions of {facts.model} are known"


def _family(model: str) -> str:
    return re.split(r"[^a-z]", model.lower(), maxsplit=1)[0]


def _wrong_facts(facts: ModelFacts, shape: Shape) -> Iterator[tuple[str, float]]:
    """What is wrong, and the factor by which it is."""
    if facts.total_b is not None and not close(facts.total_b * 1e9, shape.total, COUNT_TOLERANCE):
        yield f"the model has {shape.total / 1e9:.1f}B parameters, not {facts.total_b:g}B", apart(facts.total_b * 1e9, shape.total)
    low, high = shape.active
    if facts.active_b is not None and not low * (1 - ACTIVE_TOLERANCE) <= facts.active_b * 1e9 <= high * (1 + ACTIVE_TOLERANCE):
        used = f"a token uses {low / 1e9:.1f}B to {high / 1e9:.1f}B (without and with the vocabulary tables)"
        yield f"{used}, not {facts.active_b:g}B", min(apart(facts.active_b * 1e9, each) for each in shape.active)
    if facts.experts is not None and facts.experts != shape.experts:
        yield f"a layer has {shape.experts} routed experts, not {facts.experts}", apart(facts.experts, shape.experts or 1)
    if facts.top_k is not None and facts.top_k != shape.top_k:
        shared = f"; {facts.top_k} only with the shared expert" if facts.top_k == shape.top_k + shape.shared_experts else ""
        yield f"routed experts per token: {shape.top_k}, not {facts.top_k}{shared}", apart(facts.top_k, shape.top_k or 1)
    if facts.layers is not None and facts.layers != shape.layers:
        yield f"the model has {shape.layers} layers, not {facts.layers}", apart(facts.layers, shape.layers)
    if facts.context is not None and not close(facts.context, shape.context, SIZE_TOLERANCE):
        allowed = f"the configuration allows {shape.context:,} tokens of context"
        yield f"{allowed}, not {facts.context:,}", apart(facts.context, shape.context)


def expert_size(claim: ExpertSize, physics: Physics) -> Judged:
    """One routed expert: of one layer, or the experts of all layers with one number."""
    shape = _with_experts(claim.model, physics)
    one, all_layers = shape.expert, shape.expert * shape.moe_layers
    if claim.b is not None:
        stated, per_weight, unit, words = claim.b, 1e-9, "B parameters", f"{claim.b:g}B"
    else:
        experts_gb = physics.experts_gb(claim.model, claim.precision or "")
        stated, per_weight, words = claim.gb or 0.0, experts_gb / (all_layers * shape.experts), f"{claim.gb:g} GB"
        unit = f"GB in {claim.precision}"
    sizes = {f"in all {shape.moe_layers} layers with experts": all_layers * per_weight, "in one layer": one * per_weight}
    text = "; ".join(f"{where} {value:.3g} {unit}" for where, value in sizes.items())
    for where, value in sizes.items():
        if close(stated, value, SIZE_TOLERANCE):
            return Judged("plausible", [f"{where} an expert has {value:.3g} {unit}"])
    whole = f"{shape.total / 1e9 / shape.experts:.3g}B is the whole model divided by its {shape.experts} experts"
    nearest = min(apart(stated, value) for value in sizes.values())
    shared = claim.b is not None and close(claim.b, shape.total / 1e9 / shape.experts, SIZE_TOLERANCE)
    return Judged("inconsistent", [f"an expert has {text}, not {words}", *([whole] if shared else [])], nearest)


def less_compute(claim: LessCompute, physics: Physics) -> Judged:
    """Operations per token are in proportion to the weights that a token uses."""
    shape = physics.shape(claim.model)
    low, high = sorted(shape.active)
    if claim.than is None:
        other, words = (shape.total, shape.total), f"a dense model of {shape.total / 1e9:.1f}B"
    else:
        other = physics.shape(claim.than).active
        words = f"{claim.than} with {other[1] / 1e9:.1f}B"
    fewest, most = other[0] / high, other[1] / low
    used = f"a token uses {low / 1e9:.1f}B to {high / 1e9:.1f}B (without and with the vocabulary tables)"
    reason = f"{used}, {span_text(fewest, most)} less than {words}"
    if fewest * (1 - TIMES_TOLERANCE) <= claim.times <= most * (1 + TIMES_TOLERANCE):
        return Judged("plausible", [reason])
    return Judged("inconsistent", [f"{reason}, not {times(claim.times)}"], min(apart(claim.times, each) for each in (fewest, most)))


def _with_experts(model: str, physics: Physics) -> Shape:
    shape = physics.shape(model)
    if not shape.experts:
        raise UserError(f"{model} is a dense model: it has no experts")
    return shape
