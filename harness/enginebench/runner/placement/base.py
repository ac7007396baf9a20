"""What a placement is: it lists nodes, runs units on them, and hands what they store to the driver. Knows no cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, Self, TypeAlias

from enginebench.domain import JSON
from enginebench.errors import UserError, did_you_mean
from enginebench.machine.folders import modules_in
from enginebench.runner.placement.unit_data import Unit

Files: TypeAlias = Mapping[str, bytes]
"""Path within the run folder of a unit ('cells/3f9a.json', 'samples/3f9a.parquet', 'launches/1c2d.json', 'logs/1c2d.log') -> content."""


@dataclass(frozen=True)
class Node:
    """A machine, or a kind of machines, that units can be sent to."""

    name: str
    cores: int = 0
    """0: unknown."""
    gpus: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    """What `node:` of a scenario can ask for: the cluster's own labels, and those that the node yields (`enginebench.machine.labels`)."""
    facts: Mapping[str, JSON] = field(default_factory=dict)
    """`enginebench.machine.host.facts` of the node as plain data; empty where it cannot be asked before a unit runs there."""
    engines: Mapping[str, str] | None = None
    """Engine -> version of what is installed there; None: unknown."""
    problem: str = ""
    """Why nothing can be sent to it; empty if something can."""


@dataclass(frozen=True)
class Choice:
    """Where a unit can go."""

    nodes: tuple[str, ...] = ()
    """Names of nodes, or of kinds of nodes (a partition, a node pool); empty: none."""
    why_not: str = ""
    """Why there is none, in one sentence."""


class Intake(Protocol):
    """The driver's side of a run. Every method may be called from any thread."""

    def started(self, unit: Unit, node: str) -> None:
        """The unit begins on this node."""

    def store(self, unit: Unit, files: Files) -> None:
        """Store new files of the unit's run folder, on disk when it returns. The same files may come again."""

    def say(self, text: str) -> None:
        """Tell the user one sentence."""

    def left(self, unit: Unit) -> Unit | None:
        """The unit with the cells that are not stored yet, for another try; None: all are."""

    def ended(self, unit: Unit, problem: str = "") -> None:
        """No more files will come. problem: why its cells that are not stored were not measured; they fail with this reason."""


class Placement(ABC):
    """A way to run units. `with` opens and closes what it needs: a connection, a folder."""

    names: ClassVar[tuple[str, ...]]
    """What `--on` begins with: ('ray', 'local-ray')."""
    settings: ClassVar[Mapping[str, str]] = {}
    """Key of `--place KEY=VALUE` -> its meaning, in a few words."""
    spans_nodes: ClassVar[bool] = False
    """Whether a unit can have several nodes."""

    def __init__(self, on: str, settings: Mapping[str, str]) -> None:
        """on: all of what `--on` says. settings: what `--place` says; the keys are among those of the class."""
        self.on, self.given = on, settings

    @abstractmethod
    def __enter__(self) -> Self:
        """Open the connection. UserError with one sentence if there is none."""

    def __exit__(self, *_: object) -> None:  # noqa: B027  # many have nothing to close
        """Close it, and end what was started and still runs."""

    @abstractmethod
    def nodes(self) -> Sequence[Node]:
        """Every node that can be seen."""

    @abstractmethod
    def choices(self, units: Sequence[Unit]) -> Sequence[Choice]:
        """Where each unit can go. Starts nothing."""

    def choices_of(self, units: Sequence[Unit]) -> Sequence[Choice]:
        """`choices`; for a unit over several nodes, where it can have only one, why not."""
        why_not = f"--on {self.on} starts an engine on one node only; several need --on ray or --on slurm"
        one = [unit for unit in units if unit.deployment.nodes == 1 or self.spans_nodes]
        found = iter(self.choices(one) if one else ())
        return [next(found) if unit in one else Choice(why_not=why_not) for unit in units]

    @abstractmethod
    def run(self, units: Sequence[Unit], intake: Intake) -> None:
        """Run units, begun in this order as far as nodes are free, and return when `intake.ended` was called for each.

        A node that is lost costs the cell in flight: `intake.left` is what to try again elsewhere. KeyboardInterrupt ends what runs.
        """

    def install(self, engine: str) -> Mapping[str, str]:
        """Install an engine on every node; name of a node -> what is there then. UserError where nodes get their engines in another way."""
        raise UserError(f"--on {self.on} installs nothing", advice=f"install {engine} on each node, or name an image")

    def dry_run(self, units: Sequence[Unit]) -> str:
        """What would be submitted, as text for people. UserError for a placement that submits nothing."""
        raise UserError(f"--on {self.on} submits no file", advice="see where every unit goes with: bench plan SCENARIO --on ...")


def find(on: str, settings: Mapping[str, str]) -> Placement:
    """The placement that `--on` names, not opened yet. UserError for an unknown one or an unknown setting."""
    kinds = known()
    kind = kinds.get(on.partition(":")[0])
    if kind is None:
        raise UserError(f"--on {on}: there is no such placement", advice=did_you_mean(on, kinds))
    for key in settings:
        if key not in kind.settings:
            has = did_you_mean(key, kind.settings) if kind.settings else f"--on {on} has no settings"
            raise UserError(f"--place {key}={settings[key]}: unknown setting of --on {on}", advice=has)
    return kind(on, settings)


def known() -> Mapping[str, type[Placement]]:
    """Name -> class: every module of this package with a PLACEMENT is one."""
    found = (getattr(module, "PLACEMENT", None) for module in modules_in(__package__ or ""))
    return {name: kind for kind in found if kind is not None for name in kind.names}
