"""What an engine usually reaches: an estimate by physics times the share of such estimates that was measured, with a range and its source.

The estimate is a decode step as `roofline` has it, with the usual skew of routing, and a latency for every layer and every collective
operation. The share is the median over the measured points of a class: engine, device and regime; else engine, class of devices and
regime; else any engine. Without a point in any of these nothing is expected. `data/efficiencies.json` holds the classes, learnt from
published measurements by `benchmarks/efficiencies.py`; `calibrated` adds points of one's own. Does not know runs.
"""

from __future__ import annotations

import json
import math
import statistics
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from enginebench.domain import JSON, plain_object
from enginebench.physics.catalogue import THIS_CPU
from enginebench.physics.device_class import device_class
from enginebench.physics.machine import Machine
from enginebench.physics.popularity import zipf
from enginebench.physics.roofline import decode, prefill
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import attention_ranks

ANY_ENGINE = "any engine"
OWN = "own runs"
"""The source of points that come from runs of one's own."""
_DATA = Path(__file__).with_name("data") / "efficiencies.json"
_LAYOUT = 1
_BANDS = (2, 4, 8, 32, 128)
"""The first batch of each band after a single stream."""


def regime(setting: Setting, streams: float) -> str:
    """How a machine is used: 'single stream', 'batch 8 to 31, tensor-parallel', 'single stream, offloaded'. streams: over all replicas."""
    p, band = setting.parallelism, bisect_right(_BANDS, max(1.0, streams / setting.parallelism.dp_replicas))
    last = f"batch {_BANDS[-1]} and more"
    text = "single stream" if not band else last if band == len(_BANDS) else f"batch {_BANDS[band - 1]} to {_BANDS[band] - 1}"
    if setting.offload.anything:
        return f"{text}, offloaded"
    if p.attention_dp > 1:
        return f"{text}, attention data-parallel"
    return f"{text}, tensor-parallel" if p.tp > 1 else f"{text}, pipeline-parallel" if p.pp > 1 else text


@dataclass(frozen=True)
class Latency:
    """Seconds of a decode step that neither bandwidth nor arithmetic explains."""

    layer: Mapping[str, float] = field(default_factory=dict)
    """Of each layer, by class of devices: kernel launches, gaps between kernels, small kernels."""
    experts: Mapping[str, float] = field(default_factory=dict)
    """In addition of each layer with experts, by class of devices: choosing them, sorting tokens, more and smaller kernels."""
    collective: Mapping[str, float] = field(default_factory=dict)
    """Of each collective operation, by what it goes over: 'link', 'pcie', 'network'."""

    def of(self, setting: Setting) -> float:
        """Of one step. A layer has two collective operations if ranks share it."""
        p, layers = setting.parallelism, setting.weights.model.layers
        kind, mixtures = device_class(setting.machine.device.name) or "", sum(layer.experts is not None for layer in layers)
        collectives = len(layers) * ((attention_ranks(p) > 1) + (p.tp > 1)) * self.collective.get(_way(setting.machine, p.tp), 0.0)
        return len(layers) * self.layer.get(kind, 0.0) + mixtures * self.experts.get(kind, 0.0) + collectives


def _way(machine: Machine, ranks: int) -> str:
    device = machine.device
    if ranks > device.node and device.network:
        return "network"
    return "pcie" if device.link is None or (device.link.most is not None and ranks > device.link.most) else "link"


@dataclass(frozen=True)
class PhysicalEstimate:
    """What physics alone expects, before the efficiency of a class."""

    tokens_per_s: float
    device: str
    regime: str
    bound: float = math.inf
    """Tokens/s that nothing exceeds, and no expectation."""


@dataclass(frozen=True)
class Measured:
    """One measured rate with its estimate."""

    engine: str
    source: str
    rate: float
    estimate: PhysicalEstimate

    @property
    def ratio(self) -> float:
        return self.rate / self.estimate.tokens_per_s


@dataclass(frozen=True)
class Efficiency:
    """The share of the estimate that measurements of one class reached."""

    engine: str
    """Or ANY_ENGINE."""
    device: str
    """A device of the catalogue, or a class of devices."""
    regime: str
    points: int
    sources: tuple[str, ...]
    low: float
    """Nine of ten measurements are expected between low and high."""
    typical: float
    """The median."""
    high: float

    @property
    def text(self) -> str:
        """'llamacpp on dgx-spark-128gb, single stream: 21 points of SPARK, FORUM'."""
        points = f"{self.points} point{'s' if self.points > 1 else ''}"
        return f"{self.engine} on {self.device}, {self.regime}: {points} of {', '.join(self.sources)}"

    def scaled(self, factor: float) -> Efficiency:
        return replace(self, low=self.low * factor, typical=self.typical * factor, high=self.high * factor)


@dataclass(frozen=True)
class Expected:
    """A rate that is expected of an engine, with its range."""

    tokens_per_s: float
    low: float
    high: float
    efficiency: Efficiency
    """The class that it rests on."""

    @property
    def basis(self) -> str:
        return self.efficiency.text

    def to_dict(self) -> JSON:
        found = self.efficiency
        rates: dict[str, JSON] = {"tokens_per_s": self.tokens_per_s, "low": self.low, "high": self.high}
        return {**rates, "basis": self.basis, "points": found.points, "sources": list(found.sources)}


@dataclass(frozen=True)
class Expectations:
    """The latencies and efficiencies that an expectation is computed with."""

    skew: float
    """The Zipf exponent of routing, where none is given."""
    latency: Latency
    classes: Mapping[tuple[str, str, str], Efficiency]
    """By (engine, device or class of devices, regime)."""
    scale: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(engine, device) -> what own runs reach of what is expected; for regimes that they do not have."""

    def decode(self, setting: Setting, batch: int, context: float) -> PhysicalEstimate | None:
        """The estimate of decoding `batch` sequences with `context` tokens each. None with speculation: which tokens it accepts differs."""
        if setting.speculation is not None:
            return None
        found = self._estimate(setting, batch, batch / self._step_s(setting, batch, context))
        return replace(found, bound=decode(setting.favoured, batch, context).tokens_per_s)

    def load(self, setting: Setting, tokens: tuple[float, float], streams: float, *, no_prompt: bool = False) -> PhysicalEstimate:
        """The estimate of `streams` concurrent requests with (input, output) tokens each: prompts are prefilled between decode steps."""
        inputs, outputs = tokens
        batch = max(1, round(streams))
        seconds = max(0.0, outputs - 1) * self._step_s(setting, batch, inputs + outputs / 2)
        if not no_prompt or outputs <= 1:
            replicas = setting.parallelism.dp_replicas * setting.parallelism.attention_dp
            seconds += prefill(self._plain(setting), max(1, round(inputs)), replicas).time_s * max(1.0, batch / replicas)
        return self._estimate(setting, streams, batch * outputs / seconds)

    def expected(self, engine: str | None, estimate: PhysicalEstimate | None) -> Expected | None:
        """What an engine reaches of an estimate; None if no class has a point. engine None: any."""
        found = None if estimate is None else self.find(engine, estimate.device, estimate.regime)
        if found is None or estimate is None:
            return None
        usual, low, high = (min(estimate.tokens_per_s * each, estimate.bound) for each in (found.typical, found.low, found.high))
        return Expected(usual, low, high, found)

    def find(self, engine: str | None, device: str, regime: str) -> Efficiency | None:
        """The most specific class with a point: of the device, of its class, of its class with any engine."""
        kind = device_class(device)
        keys = [(name, of) for name in filter(None, (engine,)) for of in (device, kind)] + [(ANY_ENGINE, device), (ANY_ENGINE, kind)]
        for name, of in keys:
            if of is not None and (found := self.classes.get((name, of, regime))) is not None:
                return found if OWN in found.sources else found.scaled(self.scale.get((engine or ANY_ENGINE, device), 1.0))
        return None

    def knows(self, kind: str) -> bool:
        """Whether any class is of a device of this class of devices."""
        return any(device_class(device) == kind for _, device, _ in self.classes)

    def calibrated(self, own: Iterable[Measured]) -> Expectations:
        """With points of one's own. They replace the classes of their engine, device and regime; the other regimes of that engine on
        that device are scaled by the median of measured over expected."""
        groups: dict[tuple[str, str, str], list[Measured]] = defaultdict(list)
        shares: dict[tuple[str, str], list[float]] = defaultdict(list)
        for each in own:
            at = each.estimate
            for engine in (each.engine, ANY_ENGINE):
                groups[engine, at.device, at.regime].append(each)
                if (found := self.find(engine, at.device, at.regime)) is not None:
                    shares[engine, at.device].append(each.ratio / found.typical)
        classes = {key: efficiency(*key, group) for key, group in groups.items()}
        scale = {key: statistics.median(found) for key, found in shares.items()}
        return replace(self, classes={**self.classes, **classes}, scale={**self.scale, **scale})

    def _estimate(self, setting: Setting, streams: float, rate: float) -> PhysicalEstimate:
        name = setting.machine.device.name
        return PhysicalEstimate(rate, THIS_CPU if name.startswith(THIS_CPU) else name, regime(setting, streams))

    def _plain(self, setting: Setting) -> Setting:
        """Without the assumptions of a bound, and with the usual skew unless a routing is given."""
        experts = setting.weights.model.experts
        popularity = setting.popularity or (_usual(experts.count, experts.top_k, self.skew) if experts and self.skew else None)
        return replace(setting, bound=False, popularity=popularity)

    def _step_s(self, setting: Setting, batch: int, context: float) -> float:
        return decode(self._plain(setting), batch, context).time_s + self.latency.of(setting)


_usual = cache(zipf)


def efficiency(engine: str, device: str, regime: str, points: Sequence[Measured], spread: float = 1.25) -> Efficiency:
    """The class of some points. spread: the factor by which a measurement may differ from the median, at least."""
    ratios = sorted(each.ratio for each in points)
    typical = statistics.median(ratios)
    low, high = min(quantile(ratios, 0.05), typical / spread), max(quantile(ratios, 0.95), typical * spread)
    return Efficiency(engine, device, regime, len(points), tuple(sorted({each.source for each in points})), low, typical, high)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of ascending values lies."""
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    return ordered[low] + (ordered[min(low + 1, len(ordered) - 1)] - ordered[low]) * (place - low)


@cache
def published() -> Expectations:
    """Learnt from published measurements: the file data/efficiencies.json."""
    return from_dict(json.loads(_DATA.read_text(encoding="utf-8")))


def from_dict(data: Mapping[str, JSON]) -> Expectations:
    """Expectations as `to_dict` writes them. ValueError for another layout."""
    if data["schema_version"] != _LAYOUT:
        raise ValueError(f"efficiencies have schema version {data['schema_version']}, expected {_LAYOUT}")
    each = [Efficiency(**{**found, "sources": tuple(found["sources"])}) for found in data["classes"]]  # type: ignore[arg-type, union-attr, index, call-overload, dict-item]
    classes = {(one.engine, one.device, one.regime): one for one in each}
    return Expectations(data["skew"], Latency(**data["latency_s"]), classes)  # type: ignore[arg-type]


def to_dict(found: Expectations) -> dict[str, JSON]:
    """As `from_dict` reads it."""
    classes: list[JSON] = [plain_object(each) for each in found.classes.values()]
    return {"schema_version": _LAYOUT, "skew": found.skew, "latency_s": plain_object(found.latency), "classes": classes}
