"""A stored run in a few facts, and its rows with their figures, as the index over runs keeps them. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from enginebench.metrics.statistics import Estimate
else:
    Estimate = object  # for typing.get_type_hints

RunState: TypeAlias = Literal["complete", "incomplete", "damaged"]
"""incomplete: cells failed or are not measured (yet). damaged: the run cannot be read."""


@dataclass(frozen=True)
class StoredRun:
    id: str
    """Its folder's path from the folder of runs: '2026-11-30-quickstart', 'published/2026-11-22-cpu'."""
    path: Path
    state: RunState
    problem: str = ""
    """Why it is incomplete or damaged, in one sentence."""
    scenario: str = ""
    """Name of the scenario."""
    title: str = ""
    started_at: str = ""
    """UTC, ISO 8601; '' for a damaged run."""
    ended_at: str = ""
    """When its last cell ended; '' if none was measured."""
    machine: str = ""
    """'2x NVIDIA H100', or 'AMD EPYC, 2 cores'."""
    engines: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Engine -> the versions that its servers reported."""
    models: tuple[str, ...] = ()
    enginebench: str = ""
    """Version of enginebench that started the run."""
    deployments: int = 0
    loads: int = 0
    repeats: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    """Cells by status: 'ok', 'failed', 'skipped', 'missing', and 'damaged' if there are any."""
    trust: str = ""
    """'good', 'partly' or 'indicative only'; '' if nothing was measured."""
    trust_text: str = ""
    """One line: with the commonest cause and its fix."""
    answer: str = ""
    """The headline of its report."""
    weights: tuple[tuple[str, int, int], ...] = ()
    """The files of weights that its ceilings depend on (`enginebench.analysis.dependencies`)."""


@dataclass(frozen=True)
class StoredRow:
    """A deployment under a load in one run."""

    run: str
    """`StoredRun.id`."""
    key: str
    """The same in every run for the same deployment under the same load."""
    engine_key: str
    """The same for the same engine, model and load, whatever else changed in the deployment."""
    deployment: str
    """Its short name in this run: 'vllm tp=2'."""
    engine: str
    model: str
    load: str
    """'4 streams x 128 + 64 tokens, 16 requests'."""
    level: float
    """Streams, or requests per second."""
    status: str
    verdict: str
    reasons: tuple[str, ...]
    """Why not to trust it, or why it failed."""
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    """Figure ('ttft_p50', ...) -> median over the restarts with its interval, in SI units; those that were asked for."""

    @property
    def sound(self) -> bool:
        """Whether its figures may be compared: it ran and is not invalid."""
        return self.status == "ok" and self.verdict != "invalid"
