"""What a metric may use: the samples of one cell in one window, and what is known about the cell, its machine and prices.

Everything beyond the samples is computed on first use. It does not know any metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from enginebench.domain import Load, canonical, fingerprint
from enginebench.metrics.costs import Prices
from enginebench.metrics.hardware import Hardware, hardware_of
from enginebench.metrics.slo import Slo
from enginebench.metrics.speculation import drafted
from enginebench.metrics.statistics import Floats as Floats
from enginebench.metrics.statistics import percentile
from enginebench.metrics.tokens import input_tokens, output_tokens
from enginebench.records.cell import CellRecord, Lack
from enginebench.records.counters import gauges
from enginebench.records.launch import LaunchRecord, latest_quality
from enginebench.records.quality import QualityRecord
from enginebench.records.run import RunRecord
from enginebench.records.samples import Samples
from enginebench.records.window import Window
from enginebench.workload.lengths import Lengths

if TYPE_CHECKING:
    from enginebench.physics.deployment_limits import DeploymentLimits
    from enginebench.physics.expectation import PhysicalEstimate
    from enginebench.physics.machine import Machine


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class RunContext:
    """What all cells of a run share."""

    record: RunRecord | None = None
    """Holds the facts about the machine; None: the machine is unknown."""
    launches: Mapping[str, LaunchRecord] = field(default_factory=dict)
    """By launch id."""
    slo: Slo | None = None
    """None: no SLO is set, and metrics that need one are left out."""
    prices: Prices | None = None
    """By the catalogue's device names. None: no prices are given, and cost metrics are left out."""

    def machine(self, cell: CellRecord) -> Machine | None:
        from enginebench.physics.detect import machine_of_run

        if self.record is None:
            return None
        launch = self.launches.get(cell.launch_id)
        measured = launch.machine if launch is not None and launch.machine else self.record.machine
        attached = cell.deployment.runtime == "attach"  # what the client's machine is says nothing of the server
        key = None if attached else id(measured), cell.traits.gpus
        if key not in self._known_machines:
            facts = {} if attached else measured
            self._known_machines[key] = machine_of_run(facts, self.record.scenario.get("hardware"), cell.traits.gpus)
        return self._known_machines[key]

    def quality_of(self, cell: CellRecord) -> QualityRecord | None:
        """What was measured of its deployment's quality, for the cells of one start only: the one that was asked, or the first."""
        launch = self.launches.get(cell.launch_id)
        asked = cell.repeat == 0 or (launch is not None and launch.quality is not None)
        return latest_quality(self.launches, cell.deployment) if asked else None

    def limits(self, cell: CellRecord, machine: Machine) -> DeploymentLimits:
        """The physical limits of the cell's deployment on the machine. Raises `UnknownLimit`."""
        from enginebench.physics.deployment_limits import MachineLimits

        launch = self.launches.get(cell.launch_id)
        reported = launch.configuration.resolved.get("kv_dtype") if launch is not None else None
        kv_dtype = reported if isinstance(reported, str) else None
        key = fingerprint({"deployment": canonical(cell.deployment), "machine": machine.name, "kv_dtype": kv_dtype})
        if key not in self._known_limits:
            self._known_limits[key] = MachineLimits(machine).of(cell.deployment, kv_dtype)
        return self._known_limits[key]

    @cached_property
    def _known_machines(self) -> dict[tuple[int | None, int | None], Machine | None]:
        """By the facts, which live as long as this, and the devices of the deployment: a run has few of either and many cells."""
        return {}

    @cached_property
    def _known_limits(self) -> dict[str, DeploymentLimits]:
        """One entry per deployment, because a run has many cells of each."""
        return {}


@dataclass(frozen=True, eq=False)
class Context:
    """One cell in one window. Only the samples are required; metrics that need more are undefined without it."""

    samples: Samples
    """Restricted to the window (`Samples.within`), where there is one."""
    record: CellRecord | None = None
    window: Window | None = None
    """The window of the samples; None: the whole load."""
    run: RunContext = field(default_factory=RunContext)

    @property
    def load(self) -> Load | None:
        return self.record.load if self.record is not None else None

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """What the file of an imported cell does not say."""
        return self.record.imported.lacks if self.record is not None and self.record.imported is not None else ()

    @property
    def stated(self) -> Mapping[str, float]:
        """Figures that the file of an imported cell states."""
        return self.record.stated.figures if self.record is not None and self.record.stated is not None else {}

    @cached_property
    def computed(self) -> dict[str, Floats]:
        """Metric name -> values, filled by `Metric.__call__`: every metric is computed once per context."""
        return {}

    @cached_property
    def whole(self) -> Context:
        return Context(self.samples.within(None), self.record, None, self.run)

    @property
    def window_s(self) -> float:
        """Length of the window in s; without one, from the first request sent to the last response complete."""
        s, sent = self.samples, self.samples.sent_ns > 0
        if s.window_ns is not None:
            return (s.window_ns[1] - s.window_ns[0]) / 1e9
        return float(s.end_ns[sent].max() - s.sent_ns[sent].min()) / 1e9 if sent.any() else 0.0

    @cached_property
    def hardware(self) -> Hardware:
        """Telemetry of the machine over the window; all fields unknown without a record or a window."""
        return hardware_of(self.record, self.window) if self.record is not None and self.window is not None else Hardware()

    @cached_property
    def machine(self) -> Machine | None:
        return self.run.machine(self.record) if self.record is not None else None

    @property
    def devices(self) -> int:
        """Number of devices that the cell used, for their price; a CPU counts as one."""
        from enginebench.physics.catalogue import THIS_CPU

        if self.record is None or (self.machine is not None and self.machine.device.name == THIS_CPU):
            return 1
        if self.record.deployment.runtime == "attach":
            return self.machine.count if self.machine is not None else self.record.deployment.parallelism.devices
        return self.record.traits.gpus or 1

    @property
    def streams(self) -> float | None:
        """Concurrent requests: the streams of a closed loop, or the mean of the engine's `running` gauge in an open loop."""
        if self.record is None or self.window is None or not self.record.load.open_loop:
            return self.record.load.concurrency if self.record is not None else None
        found = gauges(self.record.counters.series.within((self.window.start_ns, self.window.end_ns)), ("running",))
        return found["running"].mean if found else None

    @property
    def request_tokens(self) -> tuple[float, float] | None:
        """Input and output tokens of a request: the medians that the server counted, else the means that the load asks for."""
        s = self.samples
        counted = [percentile(np.where(s.ok & s.inside, tokens, np.nan), 50) for tokens in (input_tokens(s), output_tokens(s))]
        asked = (Lengths.of(self.load).mean if self.load is not None else None) or (None, None)
        entered, made = (measured or wanted for measured, wanted in zip(counted, asked, strict=True))
        return (entered, made) if entered and made else None

    @cached_property
    def ceiling_tok_s(self) -> float | None:
        """The highest possible output tokens/s of the deployment under this load on its machine; None where it is unknown.

        It is unknown for attached servers, because their parallelism is. With speculation it follows from the tokens that steps yielded.
        """
        counted = drafted(self.record, self.samples)
        accepted = counted.length if counted is not None else None
        return self._limited(lambda limits, tokens, streams, load: limits.ceiling(tokens, streams, load, accepted))

    @cached_property
    def estimate(self) -> PhysicalEstimate | None:
        """What physics alone expects of the deployment under this load; None where `ceiling_tok_s` is."""
        return self._limited(lambda limits, tokens, streams, load: limits.estimate(tokens, streams, load))

    @property
    def expected_tok_s(self) -> float | None:
        """Output tokens/s that the engine usually reaches under this load; None where no measurement of such a case is known."""
        if self.record is None or self.estimate is None:
            return None
        from enginebench.physics.expectation import published

        found = published().expected(self.record.deployment.engine, self.estimate)
        return None if found is None else found.tokens_per_s

    def _limited(self, compute: Callable[[DeploymentLimits, tuple[float, float], float, Load], T]) -> T | None:
        if self.record is None or self.run.record is None or self.record.deployment.runtime == "attach":
            return None
        from enginebench.physics.memory_need import UnknownLimit

        streams, tokens = self.streams, self.request_tokens
        if self.machine is None or not streams or tokens is None:
            return None
        try:
            limits = self.run.limits(self.record, self.machine)
            return compute(limits, tokens, streams, self.record.load)
        except UnknownLimit:
            return None
