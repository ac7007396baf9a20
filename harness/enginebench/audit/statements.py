"""Judges every claim of a file, and finds where its sources contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

from enginebench.audit import expert_share, memory_claims, model_claims
from enginebench.audit.arithmetic import ACTIVE_TOLERANCE, check_ratio, rate, span_text, times
from enginebench.audit.claims import Claims, Serving
from enginebench.audit.features import features
from enginebench.audit.figures import Skew
from enginebench.audit.finding import Finding, Judged, Verdict, apart, gap
from enginebench.audit.judge import judge_serving
from enginebench.audit.kinds import HotExperts, Ratio
from enginebench.audit.physics import Physics
from enginebench.engines.registry import Registry, discover
from enginebench.errors import UserError


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
    skews = {(each.source, physics.name(each.model)): skew_of(each) for each in claims.hot_experts}
    found = [judge_serving(claim, physics, skews.get((claim.source, physics.name(claim.model)))) for claim in claims.serving]
    ratios = Ratios({claim.id: claim for claim in claims.serving}, {finding.id: finding for finding in found}, physics, skews)
    found += [ratios.judge(ratio, number) for number, ratio in enumerate(claims.ratios, start=1)]
    for blank, judge in _statements(claims, physics):
        try:
            judged = judge()
        except UserError as error:
            judged = Judged(gap(error), [error.message])
        found.append(replace(blank, verdict=judged.verdict, reasons=tuple(judged.reasons), off_by=judged.off_by))
    return tuple(_unlike(found))


def _unlike(findings: list[Finding]) -> Iterator[Finding]:
    """With a number after an id that an earlier finding has."""
    seen: dict[str, int] = {}
    for finding in findings:
        seen[finding.id] = seen.get(finding.id, 0) + 1
        yield finding if seen[finding.id] == 1 else replace(finding, id=f"{finding.id} ({seen[finding.id]})")


def skew_of(claim: HotExperts) -> Skew:
    """The reading that favours speed: the fewest experts take the largest share."""
    return Skew(round(min(claim.experts)), max(claim.share))


def _statements(claims: Claims, physics: Physics) -> Iterator[tuple[Finding, Callable[[], Judged]]]:
    """Each claim that is not a speed or a ratio: its finding without a verdict, and the function that decides."""

    def blank(name: str, source: str, claim: str) -> Finding:
        return Finding(f"{source}: {name}", source, claim, "not enough stated")

    for weights in claims.weights:
        for precision, gb in weights.gb.items():
            claim = f"{weights.model} in {precision} takes {gb:g} GB"
            judge = partial(model_claims.size, weights.model, precision, gb, physics)
            yield blank(f"{weights.model} in {precision}", weights.source, claim), judge
    for facts in claims.models:
        yield blank(f"facts of {facts.model}", facts.source, model_claims.facts_text(facts)), partial(model_claims.facts_of, facts, physics)
    for fit in claims.fits:
        yield blank(f"{fit.model} on {fit.hardware or f'{fit.gb:g} GB'}", fit.source, fit.says), partial(memory_claims.fits, fit, physics)
    for hot in claims.hot_experts:
        yield blank(f"hot experts of {hot.model}", hot.source, hot.says), partial(expert_share.hot_experts, hot, physics)
    for one in claims.expert_sizes:
        yield blank(f"an expert of {one.model}", one.source, one.says), partial(model_claims.expert_size, one, physics)
    for less in claims.compute:
        yield blank(f"compute of {less.model}", less.source, less.says), partial(model_claims.less_compute, less, physics)
    for held in claims.kv_cache:
        yield blank(f"KV cache of {held.model}", held.source, held.says), partial(memory_claims.cache_size, held, physics)
    for engine in claims.features:
        yield blank(f"features of {engine.engine}", engine.source, ", ".join(engine.has)), partial(features, engine, _registry)
    for number, sentence in enumerate(claims.unread, start=1):
        yield (
            blank(f"statement {number}", sentence.source, sentence.says),
            lambda: Judged("not known here", ["no kind of claim for this sentence"]),
        )


@cache
def _registry() -> Registry:
    return discover()


@dataclass(frozen=True)
class Ratios:
    """Judges ratios of rates with what is known of the speeds that they compare."""

    speeds: Mapping[str, Serving]
    findings: Mapping[str, Finding]
    physics: Physics
    skews: Mapping[tuple[str, str], Skew]

    def judge(self, ratio: Ratio, number: int) -> Finding:
        """Whether a / b is the stated ratio. Rates of another batch than the ratio's do not decide about it."""
        a, b = (self._rate(side) for side in (ratio.a, ratio.b))
        check = check_ratio(a, b, ratio.span)
        shown, stated = f"{a:g} / {b:g} = {times(check.value)}", span_text(*ratio.span)
        finding = Finding(f"{ratio.source}: ratio {number}", ratio.source, ratio.says, "plausible")
        named = [side for side in (ratio.a, ratio.b) if isinstance(side, str)]
        if check.holds:
            reasons = [shown]
        elif ratio.concurrency is not None and any(self.speeds[name].streams != ratio.concurrency for name in named):
            return self._at_batch(finding, ratio, ratio.concurrency, named, shown)
        else:
            finding = replace(finding, verdict="inconsistent", off_by=min(apart(check.value, each) for each in ratio.span))
            names = f"{ratio.a} / {ratio.b} = " if len(named) == 2 else ""
            reasons = [f"{names}{shown}, not {stated}"]
            if check.inverted:
                reasons.append(f"inverted: {ratio.b} is faster, by {times(b / a)}")
        return replace(finding, reasons=(*reasons, *self._impossible(named)))

    def _at_batch(self, finding: Finding, ratio: Ratio, batch: int, named: list[str], shown: str) -> Finding:
        """Neither rate is said to be of that batch: could the rates of the claim occur at it?"""
        stated = span_text(*ratio.span)
        reasons = [f"the rates state no batch of {batch}, so their {shown} does not contradict {stated} at that batch"]
        possible = True
        for name in named:
            within, text = self._reached(self.speeds[name], batch)
            possible &= within
            reasons.append(text)
        verdict: Verdict = "plausible" if possible else "not enough stated"
        return replace(finding, verdict=verdict, reasons=(*reasons, *self._impossible(named)), decides=("batch", "routing"))

    def _reached(self, claim: Serving, batch: int) -> tuple[bool, str]:
        """Whether a claimed rate can occur at a batch, with each kind of routing."""
        goal = self._rate(claim.id)
        skew = self.skews.get((claim.source, self.physics.name(claim.model)))
        try:
            top = self.physics.ceiling(claim, batch, skew)
        except UserError as error:
            return True, f"{claim.id} at batch {batch}: {error.message}"
        lines = [f"at most {rate(top.tok_s)} tok/s"]
        if top.routed:
            lines.append(f"{rate(top.routed)} with this routing: {top.routing}")
        if top.even:
            lines.append(f"{rate(top.even)} if all experts are used equally")
        return goal <= top.tok_s, f"{claim.id}, {rate(goal)} tok/s, at batch {batch}: {', '.join(lines)}"

    def _rate(self, side: str | float) -> float:
        if not isinstance(side, str):
            return side
        rates = self.speeds[side].rates
        assert rates is not None  # noqa: S101  # checked when the file was read
        return rates[1]

    def _impossible(self, named: list[str]) -> Iterator[str]:
        for name in named:
            if name in self.findings and self.findings[name].verdict == "impossible as stated":
                yield f"{name} is impossible as stated"


def contradictions(claims: Claims, physics: Physics) -> tuple[Contradiction, ...]:
    """Every fact about a model that two sources of the file state with a difference beyond rounding."""
    stated: dict[tuple[str, str], dict[str, float]] = {}
    for facts in claims.models:
        for name in ("total_b", "active_b", "experts", "top_k", "layers", "context"):
            if (value := getattr(facts, name)) is not None:
                stated.setdefault((physics.name(facts.model), name), {})[facts.source] = float(value)
    for weights in claims.weights:
        for precision, size in weights.gb.items():
            stated.setdefault((physics.name(weights.model), f"GB in {precision}"), {})[weights.source] = size
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
