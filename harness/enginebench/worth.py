"""What the figures of a run are worth: each row's share of what physics allows its machine, and what its tokens cost.

Joins rows with `bounds` and `costs`; a row of which one of the two is not known goes without. It reads no file but headers of checkpoints,
and judges nothing but the impossible: a share above 100 % is said to be one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from enginebench.bounds import Bounds, Held, Unknown, mean_tokens
from enginebench.costs import Cost, Prices, cost
from enginebench.machines import of_run
from enginebench.nouns import Deployment, canonical, fingerprint
from enginebench.physics.catalogue import THIS_CPU
from enginebench.physics.machine import GB, Machine
from enginebench.rows import CellResult, Row
from enginebench.statistics import estimate
from enginebench.store import LaunchRecord, RunRecord
from enginebench.telemetry import mean_watts
from enginebench.worth_metrics import COST_METRICS, share_of_ceiling

THROUGHPUT, SHARE = "output_throughput", "share_of_ceiling"


@dataclass(frozen=True)
class Worth:
    """What is needed to tell: the run, how its servers said that they were set up, and prices (None: nobody gave any)."""

    run: RunRecord
    launches: Mapping[str, LaunchRecord]
    prices: Prices | None = None

    def of(self, row: Row) -> Row:
        """The row with the figures that can be told beside its own."""
        machine = self.machine(row)
        used = [cell for cell in row.cells if cell.verdict is not None and (cell.verdict != "invalid" or row.verdict == "invalid")]
        each = [{**self._share(cell, machine), **self._costs(cell, machine)} for cell in used]
        names = dict.fromkeys(name for figures in each for name in figures)
        found = {name: estimate([figures.get(name) for figures in each]) for name in names}
        return replace(row, figures={**row.figures, **{name: its for name, its in found.items() if its is not None}})

    def machine(self, row: Row) -> Machine | None:
        """What the row ran on."""
        return of_run(self.run.machine, self.run.scenario.get("hardware"), row.cells[0].record.gpus)

    def unpriced(self, rows: Sequence[Row]) -> Iterator[str]:
        """A sentence where there are prices, and none of them is for what the rows ran on."""
        ran = [row for row in rows if row.status == "ok"]
        if self.prices is None or not ran or any(row.figures.get(name) for row in ran for name in COST_METRICS):
            return
        names = dict.fromkeys(machine.device.name for row in ran if (machine := self.machine(row)) is not None)
        yield f"no price is for what this ran on ({', '.join(names) or 'hardware that nobody knows'}): name that, or * for everything"

    def _share(self, cell: CellResult, machine: Machine | None) -> dict[str, float]:
        record, measured, streams, tokens = cell.record, cell.figures.get(THROUGHPUT), streams_of(cell), tokens_of(cell)
        if machine is None or not measured or not streams or tokens is None or record.deployment.runtime == "attach":
            return {}
        launch = self.launches.get(record.launch_id)
        told = launch.resolved.get("kv_dtype") if launch is not None else None
        try:
            held = self._held(record.deployment, machine, told if isinstance(told, str) else None)
            ceiling = held.ceiling(tokens, streams, cached=record.load.prefix_cache == "allowed")
        except Unknown:
            return {}
        return {SHARE: float(share_of_ceiling(measured, ceiling)[0])}

    def _held(self, deployment: Deployment, machine: Machine, kv_dtype: str | None) -> Held:
        key = fingerprint({"deployment": canonical(deployment), "machine": machine.name, "kv_dtype": kv_dtype})
        if key not in self._seen:
            self._seen[key] = Bounds(machine).of(deployment, kv_dtype)
        return self._seen[key]

    @cached_property
    def _seen(self) -> dict[str, Held]:
        """Of each deployment once: a run has many cells of the same."""
        return {}

    def _costs(self, cell: CellResult, machine: Machine | None) -> dict[str, float]:
        measured = cell.figures.get(THROUGHPUT)
        if self.prices is None or not measured or cell.window is None:
            return {}
        name = machine.device.name if machine else ""
        priced = cost(
            measured,
            name,
            1 if name == THIS_CPU else cell.record.gpus or 1,
            self.prices,
            watts=mean_watts(cell.record, cell.window),
            bandwidth_gb_s=machine.device.bandwidth / GB if machine else None,
        )
        return dict(_known(priced))


def _known(priced: Cost) -> Iterator[tuple[str, float]]:
    for name, metric in COST_METRICS.items():
        value = float(metric.compute(priced)[0])
        if value == value:
            yield name, value


def streams_of(cell: CellResult) -> float | None:
    """Requests at a time: of a closed loop its streams, of an open one the mean of what the engine says is running; None: unknown."""
    if not cell.record.load.open_loop:
        return cell.record.load.concurrency
    running = cell.gauges.get("running")
    return running.mean if running is not None else None


def tokens_of(cell: CellResult) -> tuple[float, float] | None:
    """Input and output tokens of a request: the median of what the server counted, else the mean of what was asked for; None: unknown."""
    counted = cell.figures.get("isl_p50"), cell.figures.get("osl_p50")
    asked = mean_tokens(cell.record.load) or (None, None)
    entered, made = (told or written for told, written in zip(counted, asked, strict=True))
    return (entered, made) if entered and made else None


def contradictions(rows: Sequence[Row]) -> Iterator[str]:
    """A sentence for each row that is faster than can be."""
    for row in rows:
        share = row.figures.get(SHARE)
        if share is not None and share.value > 1:
            load = f"{row.load.level_text}, {row.load.shape_text}"
            yield (
                f"{row.name} on {row.deployment.model} reaches {share.value:.0%} of the ceiling with {load}: either the measurement "
                "is wrong, or what the ceiling takes for granted (weights read from memory and not from a cache, even routing, bandwidth)"
            )
