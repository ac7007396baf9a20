"""Learns physics/data/efficiencies.json from `published_points.yaml`, and says how well it predicts a source that was left out.

`python benchmarks/efficiencies.py` writes the file and prints the errors; tests/unit/physics/test_expectation.py says whether it is up to
date, and docs/generate.py writes the table of errors into docs/physics.md.

The efficiency of a class is the median of measured / estimated. The skew of routing and the latencies are those for which measurements lie
closest to these medians, found one after another among a few round values.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from enginebench.physics import expectation
from enginebench.physics.device_class import device_class
from enginebench.physics.expectation import (
    ANY_ENGINE,
    Efficiency,
    Expectations,
    Latency,
    Measured,
    PhysicalEstimate,
    efficiency,
    quantile,
    to_dict,
)
from enginebench.physics.setting import Setting
from published import Point, read_points

FILE = Path(expectation.__file__).with_name("data") / "efficiencies.json"
SKEWS = (0.0, 0.4, 0.6, 0.8, 1.0, 1.2)
MICROSECONDS = (0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0, 200.0, 300.0)
WAYS = ("link", "pcie", "network")
EXPERTS = ", experts"
ANY_LEVEL = "any"
FEW = 3
"""Sources that a level needs for a range of its own."""
LEAST = 1.15
"""The narrowest range: runs of one benchmark differ so much."""


@dataclass(frozen=True, eq=False)
class Case:
    """A published point, with what its estimate depends on."""

    point: Point
    setting: Setting

    @cached_property
    def by_skew(self) -> Mapping[float, PhysicalEstimate]:
        """The estimate without latencies."""
        return {skew: self.estimate(Expectations(skew, Latency(), {})) for skew in SKEWS}

    def estimate(self, table: Expectations) -> PhysicalEstimate:
        held, outputs, streams = self.point.held, self.point.output, self.point.sequences
        if self.point.series.includes_prefill:
            return table.load(self.setting, (held, outputs), streams)
        found = table.decode(self.setting, streams, held + outputs / 2)
        if found is None:
            raise ValueError(f"{self.point.what}: nothing is estimated with speculation")
        return found

    @cached_property
    def kind(self) -> str:
        return device_class(self.setting.machine.device.name) or ""

    @cached_property
    def waits(self) -> Mapping[str, float]:
        """Latency -> seconds per token for a second of it."""
        steps = (self.point.output - 1) / self.point.output if self.point.series.includes_prefill else 1.0
        alone = {self.kind: Latency({self.kind: 1.0}), f"{self.kind}{EXPERTS}": Latency(experts={self.kind: 1.0})}
        alone |= {way: Latency(collective={way: 1.0}) for way in WAYS}
        return {name: each.of(self.setting) * steps / self.point.sequences for name, each in alone.items()}

    def measured(self, skew: float, waits: Mapping[str, float]) -> Measured:
        estimate = replace(self.by_skew[skew], tokens_per_s=self.point.measured / math.exp(self.log_ratio(skew, waits)))
        return Measured(self.point.series.engine, self.point.series.source, self.point.measured, estimate)

    def log_ratio(self, skew: float, waits: Mapping[str, float]) -> float:
        """Of measured / estimated."""
        seconds = 1 / self.by_skew[skew].tokens_per_s + sum(each * waits[name] for name, each in self.waits.items())
        return math.log(self.point.measured * seconds)


def cases() -> list[Case]:
    """The published points that an expectation can be learnt from: those without speculation."""
    settings = ((point, point.series.setting) for point in read_points().points)
    return [Case(point, setting) for point, setting in settings if setting is not None and setting.speculation is None]


def learn(found: Sequence[Case], spreads: Mapping[str, float] = MappingProxyType({})) -> Expectations:
    """The parameters and classes of these points. spreads: `level` of a class -> the factor that its range has at least."""
    kinds = sorted({each.kind for each in found})
    skew, waits = SKEWS[0], dict.fromkeys((*kinds, *(f"{kind}{EXPERTS}" for kind in kinds), *WAYS), 0.0)
    for _ in range(4):
        skew = min(SKEWS, key=lambda each: _distance(found, each, waits))
        for name in waits:
            concerned = {each.kind for each in found if each.waits.get(name)}
            alike = [each for each in found if each.kind in concerned]
            tried = (round(1e-6 * each, 9) for each in MICROSECONDS)
            waits[name] = min(tried, key=lambda each, name=name, alike=alike: _distance(alike, skew, {**waits, name: each}))  # type: ignore[misc]
    groups = _groups(each.measured(skew, waits) for each in found)
    classes = {key: efficiency(*key, group, 1.0) for key, group in groups.items()}
    if spreads:
        wide = {key: spreads.get(level(classes[key], group[0].estimate.device), spreads[ANY_LEVEL]) for key, group in groups.items()}
        classes = {key: efficiency(*key, group, wide[key]) for key, group in groups.items()}
    layer, experts = ({kind: waits[f"{kind}{of}"] for kind in kinds} for of in ("", EXPERTS))
    return Expectations(skew, Latency(layer, experts, {name: waits[name] for name in WAYS}), classes)


def _distance(found: Sequence[Case], skew: float, waits: Mapping[str, float]) -> float:
    """Sum of |log(ratio / median)| within engine and class of devices, and within those also by regime.

    The first tells a latency from a low efficiency: it weighs on a single stream and on many links, and not on a large batch.
    """
    groups: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for each in found:
        log = each.log_ratio(skew, waits)
        engine = each.point.series.engine
        groups[engine, each.kind].append(log)
        groups[engine, each.kind, each.by_skew[skew].regime].append(log)
    return sum(abs(each - middle) for group in groups.values() if (middle := statistics.median(group)) is not None for each in group)


def _groups(found: Iterable[Measured]) -> dict[tuple[str, str, str], list[Measured]]:
    groups: dict[tuple[str, str, str], list[Measured]] = defaultdict(list)
    for each in found:
        at = each.estimate
        for engine in (each.engine, ANY_ENGINE):
            for device in filter(None, (at.device, device_class(at.device))):
                groups[engine, device, at.regime].append(each)
    return dict(sorted(groups.items()))


def level(found: Efficiency, device: str) -> str:
    """How close a class is to what is asked for on a device, and whether its points are of one source."""
    engine = "any engine" if found.engine == ANY_ENGINE else "same engine"
    alike = "device" if found.device == device else "class of devices"
    return f"{engine}, same {alike}, {'one source' if len(found.sources) == 1 else 'several sources'}"


@dataclass(frozen=True)
class Prediction:
    """A point that was left out, predicted from others."""

    case: Case
    estimate: PhysicalEstimate
    efficiency: Efficiency | None
    """None: no other point is in a class that applies, so nothing is expected."""

    @property
    def factor(self) -> float | None:
        """Measured / expected."""
        return self.case.point.measured / (self.estimate.tokens_per_s * self.efficiency.typical) if self.efficiency else None

    @property
    def off(self) -> float:
        """The factor by which it is off, up or down."""
        return math.exp(abs(math.log(self.factor or 1.0)))

    @property
    def level(self) -> str | None:
        return level(self.efficiency, self.estimate.device) if self.efficiency is not None else None


def left_out(found: Sequence[Case], group: Callable[[Case], object]) -> list[Prediction]:
    """Every point, predicted without the points of its group: latencies and classes are learnt again from the others."""
    predicted = []
    for out in dict.fromkeys(map(group, found)):
        table = learn([each for each in found if group(each) != out])
        for each in (each for each in found if group(each) == out):
            estimate = each.estimate(table)
            predicted.append(Prediction(each, estimate, table.find(each.point.series.engine, estimate.device, estimate.regime)))
    return predicted


def errors(predicted: Sequence[Prediction], by: Callable[[Prediction], str | None]) -> Iterator[dict[str, Any]]:
    """Of each group: its points, how many of them nothing is expected of, and how far the others are from what is expected."""
    groups: dict[str, list[Prediction]] = defaultdict(list)
    for each in predicted:
        if (name := by(each)) is not None:
            groups[name].append(each)
    for name, group in sorted(groups.items()):
        known = [each for each in group if each.factor is not None]
        factors, sources = [each.off for each in known], [each.case.point.series.source for each in known]
        alike = [1 / sources.count(each) for each in sources]  # every source counts the same
        found: dict[str, Any] = {
            "median_error": round(statistics.median(abs((each.factor or 1) - 1) for each in known), 3),
            "nine_of_ten_within": round(quantile(sorted(factors), 0.9), 2),
            "within_1_5": round(sum(each <= 1.5 for each in factors) / len(factors), 3),
            "median_within_by_source": round(weighted(factors, alike, 0.5), 2),
            "nine_of_ten_within_by_source": round(weighted(factors, alike, 0.9), 2),
        } if known else {}  # fmt: skip
        predicted_from = len(set(sources))
        yield {"of": name, "points": len(group), "sources": predicted_from, "unknown": len(group) - len(factors), **found}


def weighted(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    """The smallest value up to which the weights sum to a share of all."""
    total, wanted = 0.0, share * sum(weights) - 1e-9
    for value, weight in sorted(zip(values, weights, strict=True)):
        total += weight
        if total >= wanted:
            return value
    return max(values)


def _kind(each: Prediction) -> str:
    return f"{each.case.point.series.engine} on {device_class(each.estimate.device)}"


def document(found: Sequence[Case]) -> dict[str, Any]:
    """The whole file: what was learnt from all points, and how well each is predicted without its source, and without its deployment."""
    by_source = left_out(found, lambda case: case.point.series.source)
    by_deployment = left_out(found, lambda case: id(case.point.series))
    tables: dict[str, Any] = {}
    for name, predicted in (("source", by_source), ("deployment", by_deployment)):
        tables[name] = [*errors(predicted, lambda _: "all"), *errors(predicted, lambda each: each.level), *errors(predicted, _kind)]
    spreads = spreads_of(by_source)
    return {**to_dict(learn(found, spreads)), "spreads": dict(spreads), "left_out": tables}


def spreads_of(predicted: Sequence[Prediction]) -> dict[str, float]:
    """The factor within which nine of ten left-out points are, by `level`, and ANY_LEVEL over all; levels of few sources are left out."""
    levels = {each["of"]: each for each in errors(predicted, lambda one: one.level) if each["sources"] >= FEW}
    (all_,) = errors(predicted, lambda _: ANY_LEVEL)
    return {name: max(LEAST, each["nine_of_ten_within_by_source"]) for name, each in {**levels, ANY_LEVEL: all_}.items()}


def main() -> None:
    found = cases()
    written = document(found)
    for name, groups in written["left_out"].items():
        print(f"\nleaving out its {name}")
        for each in groups:
            print("  ".join(f"{key} {value}" for key, value in each.items()))
    FILE.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
