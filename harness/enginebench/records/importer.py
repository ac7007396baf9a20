"""What an importer is: a function that turns one record of another tool's file into cells with stated figures.

Declares. Knows no tool (`enginebench.records.importers`); `enginebench.runner.imports` finds the importer of a file and writes a run.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from enginebench.domain import Deployment, Load
from enginebench.records.foreign_file import ForeignRecord


@dataclass(frozen=True)
class ImportedCell:
    """One cell as the source states it. Fields of the load that the source does not state keep their defaults."""

    deployment: Deployment
    load: Load
    figures: Mapping[str, float]
    """Figure ('ttft_p50', 'output_throughput', ...) -> value in the metric's unit (docs/metrics.md)."""
    completed: int
    """Successful requests. Percentiles that need more of them are left out; without any the cell has failed."""
    wall_s: float | None = None
    """Duration of the load."""


Read: TypeAlias = Callable[[ForeignRecord], Iterable[ImportedCell]]


@dataclass(frozen=True, eq=False)
class Importer:
    """One importer, as `importer` declares it."""

    tool: str
    """'vllm bench serve'."""
    recognised_by: tuple[str, ...]
    """Keys that every record of the tool has, and no other tool's."""
    read: Read

    @property
    def text(self) -> str:
        """'vllm bench serve (has model_id, num_prompts)'."""
        return f"{self.tool} (has {', '.join(self.recognised_by)})"


def importer(tool: str, *, recognised_by: tuple[str, ...]) -> Callable[[Read], Importer]:
    """Declare the decorated function as the importer of a tool's files: JSON objects, one or several, or CSV with a header."""
    return lambda read: Importer(tool, recognised_by, read)
