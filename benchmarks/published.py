"""Compares decode rates that others have published with the bound and the even estimate. `make bench-ceiling-published`.

None may be above the bound. `published_points.yaml` describes its fields.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import yaml
from enginebench.audit.deployed import KV_LEAST
from enginebench.domain import Parallelism
from enginebench.inputs.fields import Few, Strict
from enginebench.physics import Offload, Setting, Speculation, decode, need_model, precision, read_machine, weigh
from enginebench.physics.machine import GB
from enginebench.physics.placement import GGUF_ENGINES, KV_BITS
from pydantic import Field

Number = Annotated[int, Field(ge=0)]
WHOLE_KV = frozenset({"llamacpp", "mlx", "ktransformers"})
"""Engines whose KV cache has 16 bits unless they are told otherwise, whatever the checkpoint says."""
POINTS = Path(__file__).with_name("published_points.yaml")


class Source(Strict):
    title: str
    date: str
    """Of the measurement or its publication; when it was read is in the head of the file."""
    url: str = Field(pattern=r"^https?://\S+$")
    note: str | None = None


class HostPart(Strict):
    """What is in host memory: routed experts of the first layers, or whole layers (their number, the last of which is the head)."""

    cpu_experts: Number = 0
    cpu_layers: Number = 0
    gpu_experts: Number | None = None
    """Routed experts of each layer that stay on the devices."""


class Series(Strict):
    """Rates of one deployment. The fields of the file, see its head."""

    source: str
    model: str
    precision: str
    engine: str
    hardware: str
    tp: Few = 1
    pp: Few = 1
    dp_replicas: Few = 1
    attention_dp: Few = 1
    ep: Few = 1
    redundant_experts: Number = 0
    offload: HostPart = HostPart()
    host_gb_s: float | None = None
    kv_precision: str | None = None
    includes_prefill: bool = False
    speculation: bool | Few = False
    note: str | None = None
    rows: list[tuple[Number, Few, Few, float]]

    @cached_property
    def setting(self) -> Setting | None:
        """As the source states it; None if tokens are drafted and it is not stated how many."""
        if self.speculation is True:
            return None
        weights = weigh(need_model(self.model).model, precision(self.precision, gguf=self.engine in GGUF_ENGINES))
        machine = read_machine(self.hardware, host_bandwidth=self.host_gb_s * GB if self.host_gb_s else None)
        host = Offload(self.offload.cpu_experts, self.offload.gpu_experts, self.offload.cpu_layers)
        drafted = Speculation(self.speculation, 1.0) if self.speculation else None  # at most all are accepted
        spread = Parallelism(self.tp, self.pp, self.dp_replicas, self.attention_dp, self.ep)
        least = KV_LEAST if self.kv_precision is None and self.engine not in WHOLE_KV else None
        return Setting(
            weights, machine, spread, KV_BITS[self.kv_precision or "auto"], least, offload=host, speculation=drafted,
            redundant=self.redundant_experts,
        )  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One published rate. Rates are output tokens/s."""

    series: Series
    held: int
    """Tokens of a sequence before its first output token."""
    output: int
    sequences: int
    measured: float

    @cached_property
    def bound(self) -> float | None:
        setting = self.series.setting
        return None if setting is None else decode(setting.favoured, self.sequences, self._context, spread=self.output / 2).tokens_per_s

    @cached_property
    def even(self) -> float | None:
        setting = self.series.setting
        return None if setting is None else decode(setting, self.sequences, self._context).tokens_per_s

    @property
    def _context(self) -> float:
        """Halfway through the output."""
        return self.held + self.output / 2

    @property
    def share(self) -> float | None:
        return None if self.bound is None else self.measured / self.bound

    @property
    def what(self) -> str:
        """'gpt-oss-120b mxfp4, llamacpp on dgx-spark'."""
        return f"{self.series.model} {self.series.precision}, {self.series.engine} on {self.series.hardware}"


@dataclass(frozen=True)
class Published:
    sources: Mapping[str, Source]
    series: tuple[Series, ...]

    @property
    def points(self) -> Iterator[Point]:
        return (Point(series, *row) for series in self.series for row in series.rows)


def read_points(file: Path = POINTS) -> Published:
    """Every point of the file. ValidationError for an unknown or invalid field, ValueError for a source that is not listed."""
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    sources = {name: Source.model_validate(each) for name, each in document["sources"].items()}
    series = tuple(map(Series.model_validate, document["series"]))
    if unknown := {each.source for each in series} ^ set(sources):
        raise ValueError(f"{file.name}: sources without series or series without source: {', '.join(sorted(unknown))}")
    return Published(sources, series)


def main() -> None:
    print(f"{'share':>6} {'of even':>8} {'tok/s':>8} {'bound':>8} {'even':>8} {'batch':>6} {'held':>7}")
    points = list(read_points().points)
    found = sorted((point for point in points if point.share is not None), key=lambda point: -(point.share or 0))
    for each in found:
        figures = f"{each.measured:8,.0f} {each.bound:8,.0f} {each.even:8,.0f} {each.sequences:6} {each.held:7,}"
        print(f"{each.share:6.0%} {each.measured / (each.even or 1):8.0%} {figures}  {each.what}")
    print(
        f"{len(found)} points, the highest at {found[0].share:.0%} of its bound; {len(points) - len(found)} with drafted tokens have none"
    )


if __name__ == "__main__":
    main()
