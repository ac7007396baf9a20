"""The catalogue of named workloads, and a workload in figures, for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.domain import JSON, Load, plain_object
from enginebench.domain.formatting import percent
from enginebench.metrics.slo import Slo, preset
from enginebench.scenario.defaults import completed
from enginebench.scenario.load_schema import Loads
from enginebench.workload.catalogue import Workload, catalogue, named
from enginebench.workload.describe import QUANTILES, Description, Lengths, describe_file, describe_load


@dataclass(frozen=True)
class ListedWorkload:
    """A named workload of the catalogue."""

    id: str
    """'chat@1'."""
    hash: str
    """Of its load and SLO."""
    title: str
    source: str
    """Where its figures come from."""
    load: dict[str, JSON]
    """Keys of one entry of `loads`."""
    slo: Slo

    @property
    def data(self) -> dict[str, JSON]:
        return plain_object(self)


def workloads() -> list[ListedWorkload]:
    """The named workloads, in the order of the catalogue."""
    return [_listed(each) for each in catalogue().values()]


def _listed(each: Workload) -> ListedWorkload:
    return ListedWorkload(each.id, each.hash, each.title, each.source, dict(each.load), preset(each.name))


@dataclass(frozen=True)
class DescribedWorkload:
    """A named workload, a trace or a data set in figures."""

    name: str
    figures: Description
    listed: ListedWorkload | None = None
    """None: a file."""

    @property
    def data(self) -> dict[str, JSON]:
        return {"name": self.name, **({"workload": self.listed.data} if self.listed else {}), "figures": plain_object(self.figures)}

    @property
    def lines(self) -> Iterator[str]:
        """For a terminal."""
        figures = self.figures
        if self.listed is not None:
            yield f"{self.listed.id}  {self.listed.hash}  {self.listed.title}"
            yield f"SLO: {self.listed.slo.text}"
            yield f"source: {self.listed.source}"
        else:
            yield f"{self.name}: {figures.what}, {figures.requests:,} requests"
        yield from _lengths(figures.input, figures.output)
        yield from _arrivals(figures)
        yield from _sessions(figures)
        if figures.hit_rate is not None:
            yield f"prefix reuse   {percent(figures.hit_rate, 3)} of the input tokens, by a cache that forgets nothing"
        yield from (f"note: {note}" for note in figures.notes)
        yield from (f"lost: {lost}" for lost in figures.lost)
        yield self._next

    @property
    def _next(self) -> str:
        if self.listed is not None:
            name = self.listed.id.partition("@")[0]
            return f"next: loads: [{{workload: {name}, concurrency: [1, 8]}}], slo: {name}"
        shared = ", prefix_cache: allowed" if self.figures.hit_rate else ""
        if not self.figures.what.startswith("a trace"):
            kind = "" if self.name.partition(":")[0] in ("jsonl", "sharegpt", "hf") else "jsonl:"
            return f"next: loads: [{{prompts: '{kind}{self.name}', concurrency: 4, prefix_cache: allowed}}]"
        return f"next: loads: [{{trace: '{self.name}'{shared}}}]"


def describe_workload(name: str, *, base: Path = Path(), time_unit: str | None = None) -> DescribedWorkload:
    """What a named workload, a trace or a data set is. UserError for a name that is neither in the catalogue nor a file."""
    if name.partition("@")[0] in catalogue() and not (base / name).exists():
        found = named(name)
        return DescribedWorkload(name, describe_load(load_of(found), base, found.title), _listed(found))
    return DescribedWorkload(name, describe_file(name, base, time_unit))


def load_of(workload: Workload) -> Load:
    """The load of a named workload with one stream."""
    entry = Loads.model_validate({"workload": workload.id})
    return completed({key: values[0] for key, values in entry.axes.items()})


def _lengths(entered: Lengths, made: Lengths | None) -> Iterator[str]:
    heads = ("tokens", "min", "mean", *(f"p{q}" for q in QUANTILES), "max")
    rows: list[Sequence[str]] = [heads, _row("input", entered)]
    rows += [_row("output", made)] if made is not None else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield row[0].ljust(13) + "  ".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))


def _row(name: str, its: Lengths) -> tuple[str, ...]:
    return (name, f"{its.least:,}", f"{its.mean:,.0f}", *(f"{its.quantiles[q]:,}" for q in QUANTILES), f"{its.most:,}")


def _arrivals(its: Description) -> Iterator[str]:
    if its.rate is None:
        return
    yield f"arrivals     {its.rate:,.3g} a second over {its.duration_s:,.4g} s, at most {its.peak_rate:,.3g} a second in 10 s"
    kind = "as Poisson" if its.burstiness and 0.9 <= its.burstiness <= 1.1 else "smoother" if (its.burstiness or 0) < 1 else "in bursts"
    yield f"burstiness   {its.burstiness:.2f} (coefficient of variation of the gaps; Poisson is 1): {kind}"


def _sessions(its: Description) -> Iterator[str]:
    if not its.sessions:
        return
    branches = f", {its.branches:,} branches" if its.branches else ""
    pause = f", pause p50 {its.think_s:,.3g} s" if its.think_s else ""
    yield f"sessions     {its.sessions:,} of {its.turns:.3g} requests on average{branches}{pause}"
