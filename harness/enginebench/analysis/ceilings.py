"""What physics allows the cells of a run: the machine that each ran on, and the most output tokens/s that it could make there.

Joins cells with `bounds` and `machines`, and brings in all of physics: whoever may have no machine to reckon with imports it when he has.
It reads no file but headers of checkpoints, and judges nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from enginebench.analysis.rows import CellResult, Row
from enginebench.domain import Deployment, canonical, fingerprint
from enginebench.physics.catalogue import THIS_CPU
from enginebench.physics.deployment_limits import Bounds, DeploymentLimits, Unknown, mean_tokens
from enginebench.physics.detect import of_run
from enginebench.physics.machine import Machine
from enginebench.records.store import LaunchRecord, RunRecord


@dataclass(frozen=True)
class Ceilings:
    """Those of one run, and how its servers said that they were set up."""

    run: RunRecord
    launches: Mapping[str, LaunchRecord]

    def machine(self, row: Row) -> Machine | None:
        """What the row ran on; None: nobody knows."""
        return of_run(self.run.machine, self.run.scenario.get("hardware"), row.cells[0].record.gpus)

    def of(self, cell: CellResult, machine: Machine | None) -> float | None:
        """The most output tokens/s that the machine could make under the cell's load; None where nobody can tell."""
        record, streams, tokens = cell.record, streams_of(cell), tokens_of(cell)
        if machine is None or not streams or tokens is None or record.deployment.runtime == "attach":
            return None
        launch = self.launches.get(record.launch_id)
        told = launch.resolved.get("kv_dtype") if launch is not None else None
        try:
            held = self._held(record.deployment, machine, told if isinstance(told, str) else None)
            return held.ceiling(tokens, streams, cached=record.load.prefix_cache == "allowed")
        except Unknown:
            return None

    @staticmethod
    def devices(cell: CellResult, machine: Machine | None) -> int:
        """How many devices the cell took, for their price: a processor is one."""
        return 1 if machine is not None and machine.device.name == THIS_CPU else cell.record.gpus or 1

    def _held(self, deployment: Deployment, machine: Machine, kv_dtype: str | None) -> DeploymentLimits:
        key = fingerprint({"deployment": canonical(deployment), "machine": machine.name, "kv_dtype": kv_dtype})
        if key not in self._seen:
            self._seen[key] = Bounds(machine).of(deployment, kv_dtype)
        return self._seen[key]

    @cached_property
    def _seen(self) -> dict[str, DeploymentLimits]:
        """Of each deployment once: a run has many cells of the same."""
        return {}


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
