"""A scenario as plain data: what to compare, under which loads, how often. `expand` makes it from a file, `plan` makes cells of it."""

from dataclasses import dataclass
from pathlib import Path

from enginebench.domain import Deployment, Load, Search
from enginebench.domain.quality import QualityCheck
from enginebench.domain.repeats import AutoRepeats
from enginebench.metrics.slo import Slo


@dataclass(frozen=True)
class ParityCheck:
    """How the engines' greedy outputs are compared. Lengths are in tokens."""

    prompts: int
    """Number of prompts."""
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Scenario:
    """What to compare: deployments, the loads of each, repeats."""

    name: str
    deployments: tuple[Deployment, ...]
    loads: tuple[tuple[Load, ...], ...]
    """For each deployment, its loads in order."""
    searches: tuple[tuple[Search, ...], ...] = ()
    """For each deployment, the searches that follow its loads; searches need an `slo`."""
    slo: Slo | None = None
    repeats: int = 1
    """Restarts of each deployment; with `auto` those before the first look."""
    auto: AutoRepeats | None = None
    """When restarts are added; None: their number is fixed."""
    parity: ParityCheck | None = None
    quality: QualityCheck | None = None
    title: str | None = None
    description: str | None = None
    hardware: str | None = None
    """The machine that the scenario is meant for, as `physics.read_machine` takes it; None: not stated."""
    hardware_by_command: bool = False
    """Whether the command states `hardware`, and not the file. Then it is not compared with what is here."""
    equal_within: float | None = None
    """The share below which a difference is equal in practice; None: that of each metric."""
    client_nodes: int | None = None
    """Hosts that share every load; None: as many as the run is given, or this machine alone."""
    exclusive: bool = True
    """Elsewhere: whether each server start has a node for itself."""
    cores: int = 0
    """Elsewhere: cores that each server start takes of a node that it shares."""
    file: Path = Path("scenario.yaml")
    text: str = ""
    """Content of the file, verbatim."""
