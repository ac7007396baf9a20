"""`--on local`: units one after the other on this machine, each in a process of its own. For trying out what other placements do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from enginebench.runner.placement.base import Choice, Intake, Node, Placement
from enginebench.runner.placement.facts import node_facts
from enginebench.runner.placement.fitting import choice_of
from enginebench.runner.placement.unit_data import Unit
from enginebench.runner.placement.unit_process import follow

NAME = "this machine"


class Local(Placement):
    """This machine as the only node."""

    names = ("local",)

    def __enter__(self) -> Self:
        return self

    def nodes(self) -> Sequence[Node]:
        """This machine."""
        found = node_facts()
        gpus, cores = found.machine.get("gpus"), found.machine.get("usable_cores")
        return [
            Node(
                NAME, int(cores) if isinstance(cores, int) else 0, len(gpus) if isinstance(gpus, list) else 0, found.labels, found.machine,
                found.engines,
            )
        ]  # fmt: skip

    def choices(self, units: Sequence[Unit]) -> Sequence[Choice]:
        """This machine, or why not."""
        nodes = self.nodes()
        return [choice_of(unit, nodes) for unit in units]

    def run(self, units: Sequence[Unit], intake: Intake) -> None:
        """One after the other."""
        for unit in units:
            intake.started(unit, NAME)
            problem = follow(unit, NAME, lambda files, unit=unit: intake.store(unit, files))  # type: ignore[misc]  # a lambda with a default
            intake.ended(unit, problem)


PLACEMENT = Local
