"""Judges claims that a few experts of a layer take a large share of the choices: against what was counted, and by what would follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from enginebench.audit.arithmetic import span_text
from enginebench.audit.figures import Shape, Skew
from enginebench.audit.finding import Judged
from enginebench.audit.kinds import HotExperts
from enginebench.audit.physics import Physics
from enginebench.errors import UserError
from enginebench.physics import captures
from enginebench.physics.popularity import uniform
from enginebench.physics.routing import Routing
from enginebench.physics.routing_curve import Coverage, coverages
from enginebench.physics.routing_files import read

BATCHES = (16, 64)
"""Sequences in a step for which the consequences are computed."""


def hot_experts(claim: HotExperts, physics: Physics) -> Judged:
    """A skew that was counted decides; it depends on the text, so without a count it cannot be judged beyond what is possible."""
    shape = physics.shape(claim.model)
    if not shape.experts:
        raise UserError(f"{claim.model} is a dense model: it has no experts")
    few, many = sorted(claim.experts)
    low, high = sorted(claim.share)
    if claim.of not in (None, shape.experts) or many > shape.experts:
        return Judged("inconsistent", [f"a layer has {shape.experts} experts" + (f", not {claim.of}" if claim.of else "")])
    if low > min(1.0, many / shape.top_k):
        most = f"{many:g} experts can take {many / shape.top_k:.0%} of the choices at most: a token takes {shape.top_k}"
        return Judged("impossible as stated", [most])
    reasons = [_against_even(few, many, low, high, shape), *_consequences(claim, shape, physics)]
    counted = find(physics, claim.model, shape.experts)
    if counted is None:
        count = f"count it: bench routing CHECKPOINT --model {physics.name(claim.model)}"
        return Judged(
            "not enough stated", [*reasons, f"text and layers are not stated, and no routing of this model was counted here; {count}"]
        )
    return _measured(counted, (round(few), round(many)), (low, high), reasons)


def find(physics: Physics, model: str, experts: int) -> Routing | None:
    """What was counted on a model: in the file that was named, else on this machine. An assumed routing (zipf) is no count."""
    kind, _, wanted = physics.routing.partition(":")
    if Path(physics.routing).is_file():
        found: Routing | None = read(Path(physics.routing))
    else:
        found = captures.find(physics.references.get(model, model), experts)
    if found is None or found.experts != experts:
        return None
    return captures.likely(found, wanted if kind == captures.CAPTURED else "")


def _against_even(few: float, many: float, low: float, high: float, shape: Shape) -> str:
    even = [count / shape.experts for count in (few, many)]
    share, least, most = f"{even[0]:.0%} to {even[1]:.0%}", low / even[1], high / even[0]
    excess = f"uniform routing gives {few:g} to {many:g} of {shape.experts} experts {share}"
    if few == many:
        excess = f"uniform routing gives {few:g} of {shape.experts} experts {even[0]:.0%}"
    spread = "" if least == most else f" ({many:g} that take {low:.0%}, {few:g} that take {high:.0%})"
    return f"{excess}; the claim is {span_text(least, most)} that{spread}"


def _measured(counted: Routing, experts: tuple[int, int], share: tuple[float, float], reasons: list[str]) -> Judged:
    """Read favourably: the kind of input that fits best decides, over all layers or else in a single one."""
    curves = coverages(counted)
    curves = curves[1:] if len(curves) > 1 else curves
    few, many = experts
    spans = [(curve.mean[few - 1], curve.mean[many - 1]) for curve in curves]
    layers = [(curve.range(few)[0], curve.range(many)[1]) for curve in curves]
    seen = f"counted on {counted.model}: {'; '.join(_seen(curve, few, many) for curve in curves)}"
    if any(_overlap(span, share) for span in spans):
        return Judged("plausible", [seen, *reasons])
    if any(_overlap(span, share) for span in layers):
        return Judged("plausible", [f"{seen}: as claimed in some layers only", *reasons])
    nearest = max(high / share[0] if high < share[0] else share[1] / low for low, high in spans)
    return Judged("inconsistent", [seen, *reasons], 1 / nearest)


def _seen(curve: Coverage, few: int, many: int) -> str:
    means = f"{curve.mean[few - 1]:.0%}" + (f" to {curve.mean[many - 1]:.0%}" if many != few else "")
    lowest, highest = curve.range(few)[0], curve.range(many)[1]
    hot = f"{few} to {many}" if many != few else f"{few}"
    return f"{hot} experts take {means} of the choices on {curve.input}, {lowest:.0%} to {highest:.0%} by layer"


def _overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def _consequences(claim: HotExperts, shape: Shape, physics: Physics) -> Iterator[str]:
    """What a decode step would read if the claim holds, at its two ends, and what a cache of these experts would serve."""
    few, many = (round(each) for each in sorted(claim.experts))
    low, high = sorted(claim.share)
    even = uniform(shape.experts, shape.top_k)
    most, least = (Skew(*each).popularity(shape.experts, shape.top_k) for each in ((many, low), (few, high)))
    for batch in BATCHES:
        touched = sorted((least.touched(batch), most.touched(batch)))
        yield (
            f"at batch {batch} a step would then read {touched[0]:.1f} to {touched[1]:.1f} of {shape.experts} experts in each layer, "
            f"even routing {even.touched(batch):.1f}{_bytes(claim.model, shape, physics, (*touched, even.touched(batch)))}"
        )
    kept = f"{few} to {many}" if few != many else f"{few}"
    yield f"{kept} experts of each layer on the GPU would serve {low:.0%} to {high:.0%} of the choices, and host memory the rest"


def _bytes(model: str, shape: Shape, physics: Physics, touched: Sequence[float]) -> str:
    """' (12.1 to 14.0 GB of experts in bf16 instead of 23.5)', in the published precision; empty where that is not known."""
    native = physics.native(model)
    if native is None:
        return ""
    each = physics.experts_gb(model, native) / shape.experts
    least, most, even = (count * each for count in touched)
    return f" ({least:.1f} to {most:.1f} GB of experts in {native} instead of {even:.1f})"
