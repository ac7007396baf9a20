"""A measured cell as other tools see one: its requests over the whole load, without a steady window.

Exporters take arrays and totals from here and apply the definitions of their format to them. Knows no format.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from enginebench.analysis.analysis import Analysis, CellResult, Row
from enginebench.domain import JSON
from enginebench.metrics.tokens import output_tokens
from enginebench.records.cell import CellRecord
from enginebench.records.launch import LaunchRecord
from enginebench.records.run_folder import Run
from enginebench.records.samples import Samples

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """One cell with figures. Arrays have one value per request in the order of the load; those of successful requests are marked `ok`."""

    row: Row
    cell: CellResult
    samples: Samples | None
    """The whole load; None for figures that another tool's file states."""
    launch: LaunchRecord | None
    machine: Mapping[str, JSON]

    @property
    def record(self) -> CellRecord:
        return self.cell.record

    @property
    def stem(self) -> str:
        """A file name without suffix: deployment, level, repeat and the id of the cell."""
        parts = (self.row.name, self.record.load.level_text, f"r{self.record.repeat}", self.record.id)
        return "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part).strip("_.") for part in parts)

    @property
    def s(self) -> Samples:
        """The samples of a cell that has some."""
        if self.samples is None:
            raise ValueError(f"cell {self.record.id} has no samples")
        return self.samples

    @property
    def figures(self) -> Mapping[str, float | None]:
        """Our own figures, in SI units, by our definitions."""
        return self.cell.figures

    def withheld(self, metric: str) -> str | None:
        """Why a metric of ours is meaningless in this cell, by whatever definition; None if it is not."""
        return self.cell.withheld.get(metric)

    # -- who measured what -----------------------------------------------------------------------------------------------

    @property
    def engine(self) -> str:
        return self.record.deployment.engine

    @property
    def version(self) -> str | None:
        """Of the engine."""
        return self.launch.version if self.launch is not None else None

    @property
    def gpus(self) -> tuple[str, ...]:
        """Names of the machine's GPUs; empty for a CPU and where the machine is unknown."""
        listed = self.machine.get("gpus")
        names = [str(gpu.get("name")) for gpu in listed if isinstance(gpu, dict)] if isinstance(listed, list) else []
        return tuple(names)

    @property
    def hardware(self) -> str:
        """Name of the GPU or, without one, of the processor; 'unknown' if the run does not say."""
        cpu = self.machine.get("cpu")
        return self.gpus[0] if self.gpus else cpu if isinstance(cpu, str) else "unknown"

    @property
    def devices(self) -> int:
        return self.record.traits.gpus or self.record.deployment.parallelism.devices

    # -- when ------------------------------------------------------------------------------------------------------------

    @cached_property
    def epoch_s(self) -> float:
        """Wall-clock time of the first send, to a second at best: records keep the start of the cell, samples a monotonic clock."""
        started = self.record.started_at
        return dt.datetime.fromisoformat(started).timestamp() if started else 0.0

    @cached_property
    def zero_ns(self) -> int:
        """The first send, on the clock of the samples."""
        sent = self.s.sent_ns[self.s.sent_ns > 0]
        return int(sent.min()) if len(sent) else 0

    @cached_property
    def duration_s(self) -> float:
        """From the first send until the last response was complete."""
        s = self.s
        return float(s.end_ns.max() - self.zero_ns) / 1e9 if len(s) else 0.0

    # -- per request -----------------------------------------------------------------------------------------------------

    @cached_property
    def ok(self) -> npt.NDArray[np.bool_]:
        """Successful requests."""
        return self.s.ok

    @cached_property
    def streamed(self) -> npt.NDArray[np.bool_]:
        """Successful requests with at least one output event."""
        return self.ok & (self.s.events > 0)

    @cached_property
    def start_s(self) -> Floats:
        """Sends, counted from the first."""
        return np.maximum(self.s.sent_ns - self.zero_ns, 0) / 1e9

    @cached_property
    def first_ns(self) -> npt.NDArray[np.int64]:
        """Arrival of the first output event, on the clock of the samples; 0 without one."""
        return self.s.edge(last=False)

    @cached_property
    def last_ns(self) -> npt.NDArray[np.int64]:
        """Arrival of the last output event; 0 without one."""
        return self.s.edge(last=True)

    @cached_property
    def ttft_s(self) -> Floats:
        """First output event - sent; 0 without one, as most tools have it."""
        return np.where(self.streamed, self.first_ns - self.s.sent_ns, 0) / 1e9

    @cached_property
    def e2e_s(self) -> Floats:
        """Last output event - sent; of an answer without events its end."""
        s = self.s
        return np.where(self.ok, np.where(s.events > 0, self.last_ns, s.end_ns) - s.sent_ns, 0) / 1e9

    @cached_property
    def input_tokens(self) -> npt.NDArray[np.int64]:
        """As the server counted them, else as they were asked for."""
        return np.where(self.s.input_tokens >= 0, self.s.input_tokens, self.s.asked_input_tokens)

    @cached_property
    def output_tokens(self) -> Floats:
        """Output tokens of the successful requests; NaN where nobody counted them, 0 for failed ones."""
        return np.where(self.ok, output_tokens(self.s), 0.0)

    @property
    def counted(self) -> bool:
        """Whether the output tokens of every successful request are known."""
        return not bool(np.isnan(self.output_tokens).any())

    @cached_property
    def gaps_s(self) -> tuple[tuple[float, ...], ...]:
        """Per request the gaps between its output events; empty for failed ones."""
        s = self.s
        whole = np.diff(s.event_ns) / 1e9
        ends = s.offsets
        return tuple(tuple(whole[ends[i] : max(ends[i], ends[i + 1] - 1)].tolist()) if self.ok[i] else () for i in range(len(s)))

    @cached_property
    def all_gaps_s(self) -> Floats:
        """The gaps of all successful requests together."""
        return np.array([gap for gaps in self.gaps_s for gap in gaps], dtype=np.float64)

    def tpot_s(self, defined: npt.NDArray[np.bool_] | None = None) -> Floats:
        """(E2E - TTFT) / (output tokens - 1) of the successful requests with at least 2 tokens, in their order. defined: of these only."""
        some = self.ok & (self.output_tokens >= 2) & (True if defined is None else defined)
        return ((self.e2e_s - self.ttft_s)[some] / (self.output_tokens[some] - 1)).astype(np.float64)


def measured_cells(analysis: Analysis, folder: Run) -> Iterator[Measured]:
    """Every cell of an analysis that has figures, once, in plan order."""
    found: dict[str, tuple[Row, CellResult]] = {}
    for row in analysis.rows:
        for cell in row.cells:
            if cell.ran:
                found.setdefault(cell.record.id, (row, cell))
    order = {cell: i for i, cell in enumerate(analysis.run.cells)}
    for id_ in sorted(found, key=lambda id_: order.get(id_, len(order))):
        row, cell = found[id_]
        samples = folder.samples(id_) if cell.record.stated is None else None
        yield Measured(row, cell, samples, analysis.launches.get(cell.record.launch_id), analysis.run.machine)


def summary(values: Floats | Sequence[float], percentiles: Sequence[float], factor: float = 1.0) -> dict[str, float] | None:
    """mean, median, std (of the population), min, max and 'p50', 'p99.9', ... with linear interpolation, as numpy has them.

    None without values.
    """
    kept = np.asarray(values, dtype=np.float64) * factor
    if not len(kept):
        return None
    found = {"mean": kept.mean(), "median": np.median(kept), "std": kept.std(), "min": kept.min(), "max": kept.max()}
    found |= {f"p{q:g}": np.percentile(kept, q) for q in percentiles}
    return {name: float(value) for name, value in found.items()}
