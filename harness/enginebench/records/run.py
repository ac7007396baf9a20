"""What is stored about a run as a whole: run.json."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from enginebench.checkpoints.content import Content
from enginebench.domain import JSON
from enginebench.domain.repeats import AutoRepeats
from enginebench.records.schema import SCHEMA, StoredSearch


@dataclass(frozen=True)
class RunRecord:
    """One execution of a plan. Written when the run starts; while it runs, searches, `repeats: auto` and tunings add cells."""

    name: str
    """Of the scenario."""
    created_at: str
    """When the run started: UTC, ISO 8601."""
    scenario: Mapping[str, JSON]
    """title, description, file and repeats of the scenario, its hardware if it names one, `auto_repeats` where the run
    decides on them, and `tune` for a tuning."""
    plan_id: str
    """Hash of what the plan measures. A run is resumed only by the same plan."""
    cells: tuple[str, ...]
    """Ids of all cells in plan order, whether measured yet or not; those that were added while it ran come last, but for
    probes of a search."""
    machine: Mapping[str, JSON]
    """Facts about the machine, see `enginebench.machine.host.facts`."""
    enginebench: str
    """Version that started the run."""
    slo: Mapping[str, JSON] | None = None
    """The SLO, as `enginebench.metrics.slo.parse` reads it; None: the scenario has none."""
    searches: Mapping[str, StoredSearch] = field(default_factory=dict)
    """Id of a search's first cell -> what is searched."""
    probes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Id of a search's first cell -> the search's cells so far: cell id -> level, by rising level."""
    inputs: Mapping[str, Content] = field(default_factory=dict)
    """What it measures with: 'checkpoint tiny.gguf', 'prompts jsonl:chat.jsonl', 'trace azure.csv' -> what they contained. A run is resumed
    only with the same. Empty in records from before this was stored."""
    schema: int = SCHEMA
    """Version of the format it is stored in."""

    @property
    def auto_repeats(self) -> AutoRepeats | None:
        """The looks of a run with `repeats: auto`; None: the number was fixed."""
        stored = self.scenario.get("auto_repeats")
        return AutoRepeats(int(stored["most"])) if isinstance(stored, dict) else None  # type: ignore[arg-type]

    def with_cells(self, added: Iterable[str]) -> Self:
        """The record with further cells; those that it has already are not added again."""
        cells = tuple(dict.fromkeys((*self.cells, *added)))
        return self if cells == self.cells else replace(self, cells=cells)

    def with_probe(self, first: str, probe: str, level: float) -> Self:
        """The record with the cell `probe` added to the search that began with the cell `first`.
        `cells` lists the probe after the search's next lower level."""
        known = self.probes.get(first, {})
        if probe in known:
            return self
        probes = dict(sorted([*known.items(), (probe, level)], key=lambda item: item[1]))
        cells = self.cells
        if probe not in cells:
            below = list(probes)[list(probes).index(probe) - 1]  # exists: a search starts at its lowest level
            at = cells.index(below) + 1
            cells = (*cells[:at], probe, *cells[at:])
        return replace(self, cells=cells, probes={**self.probes, first: probes})
