"""What happens during a run, as data. The runner sends each event to one function; who listens decides what to do with it.

Events come in this order: `Note` at any time; `RunOpened` once; per server start `LaunchStarted`, `LaunchStep`s, `EngineReady`, its cells,
and `LaunchEnded`; between server starts `CellsAdded`; per cell `CellStarted`, `CellProgress`es and `CellEnded`. A skipped cell, and one
whose engine did not start, has only `CellEnded`. A listener must return quickly: `CellProgress` comes inside a measured
window, at most four times a second.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from enginebench.analysis.labels import deployment_titles, load_names
from enginebench.analysis.rows import CellResult, result_in, result_of
from enginebench.domain import Cell, Deployment, Load, Search
from enginebench.domain.ids import text_of
from enginebench.loadgen import Progress
from enginebench.metrics.context import RunContext
from enginebench.metrics.slo import Slo
from enginebench.metrics.window import steady_window
from enginebench.records.cell import CellRecord
from enginebench.records.launch import LaunchRecord
from enginebench.records.samples import Samples
from enginebench.validity import VERDICTS, worst


@dataclass(frozen=True)
class Note:
    """Something a user should know, in one sentence: a process of an earlier run was ended, a run is resumed."""

    text: str


@dataclass(frozen=True)
class RunOpened:
    """The run folder exists and is locked."""

    path: Path
    planned: int
    """Cells of the run; a search adds cells while it runs."""
    stored: int
    """Cells that an earlier session has stored."""
    loads: tuple[Load, ...] = field(default=(), repr=False)
    """The different loads of the plan; a search adds its base at other levels."""
    deployments: tuple[Deployment, ...] = field(default=(), repr=False)
    """The different deployments of the plan."""
    todo: tuple[Cell, ...] = field(default=(), repr=False)
    """The cells of the plan that this session will measure, in order; the objects are those of the later events."""
    searches: Mapping[str, Search] = field(default_factory=dict, repr=False)
    """Id of a cell -> the search that begins with it."""
    placed: bool = False
    """Whether it is measured on other machines, where several cells run at a time; `LaunchStep`, `EngineReady`, `CellStarted` and
    `CellProgress` stay there."""

    def deployment_name(self, deployment: Deployment) -> str:
        """'vllm scout fp8 tp=2': a deployment, with what distinguishes it from those of the plan."""
        text = text_of(deployment)
        return self._deployment_names.get(text) or deployment_titles([deployment])[text]

    @cached_property
    def _deployment_names(self) -> dict[str, str]:
        return deployment_titles(self.deployments)

    def load_name(self, load: Load) -> str:
        """'4 streams 128 + 64 tokens, prompts text': level and lengths of a load, and what else distinguishes it from those of the plan."""
        if load not in self._load_names:
            self._load_names[load] = load_names([*self.loads, load])[load]
        return self._load_names[load]

    @cached_property
    def _load_names(self) -> dict[Load, str]:
        return load_names(self.loads)


@dataclass(frozen=True)
class LaunchStarted:
    """A server is about to be started, or attached to."""

    deployment: Deployment
    repeat: int


@dataclass(frozen=True)
class LaunchStep:
    """A step on the way to measuring a deployment. Also sent while checkpoints are prepared, before the first launch."""

    deployment: Deployment
    step: str
    """'starting', 'loading', 'first generation', ..."""


@dataclass(frozen=True)
class EngineReady:
    """The server answers and has generated."""

    deployment: Deployment
    start_s: float | None
    """Seconds from its start until it was ready; None for a server that was up already."""


@dataclass(frozen=True)
class CellStarted:
    """A cell begins with its warm-up."""

    cell: Cell
    planned: int
    """Cells of the run so far, those that searches have added included."""


@dataclass(frozen=True)
class CellProgress:
    """The measured load of a cell is running."""

    cell: Cell
    progress: Progress
    """Running totals."""


@dataclass(frozen=True)
class CellEnded:
    """A cell has been stored."""

    cell: Cell
    record: CellRecord
    """Its status, the reason, what the client and the engine counted."""
    planned: int
    """Cells of the run so far, those that searches have added included."""
    samples: Samples | None = field(default=None, repr=False)
    """Its raw samples; None for a cell that was not measured."""
    slo: Slo | None = None
    launch: LaunchRecord | None = field(default=None, repr=False)
    """The server start that measured it."""
    log: Path | None = None
    """The engine's log, if the cell failed and there is one."""

    @cached_property
    def result(self) -> CellResult | None:
        """Its figures and the verdict on them, computed when first asked for; None for a cell that was not measured."""
        if self.record.status != "ok" or self.samples is None:
            return None
        launches = {} if self.launch is None else {self.launch.id: self.launch}
        context = RunContext(launches=launches, slo=self.slo)
        whole, phases = result_of(self.record, self.samples, context), self.record.load.phases()
        if len(phases) == 1:
            return whole
        windows = (steady_window(self.samples, self.record.load, phase) for phase in phases)  # of which each is a row of the table
        rows = [result_in(each, self.record, self.samples, context) for each in windows]
        reasons = sorted((why for row in rows for why in row.reasons), key=lambda why: -list(VERDICTS).index(why.severity))
        return replace(whole, verdict=worst(row.verdict for row in rows), reasons=tuple(reasons))


@dataclass(frozen=True)
class CellsAdded:
    """The run goes on: restarts that can still change an answer, or the next trials of a tuning."""

    cells: tuple[Cell, ...] = field(repr=False)
    """Those that will be measured next, in order."""
    planned: int
    """Cells of the run so far, these included."""
    why: str
    """In one sentence."""


@dataclass(frozen=True)
class LaunchEnded:
    """A server was stopped, or could not be started."""

    deployment: Deployment
    reason: str | None
    """Why it ended before all of its cells were measured; None if they were."""


Event: TypeAlias = (
    Note | RunOpened | LaunchStarted | LaunchStep | EngineReady | CellStarted | CellProgress | CellEnded | LaunchEnded | CellsAdded
)
OnEvent: TypeAlias = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """Listens to nothing."""
