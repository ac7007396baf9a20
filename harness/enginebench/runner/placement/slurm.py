"""`--on slurm`: units as job arrays of Slurm, through its own commands, on a disk that all nodes see."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Self

from enginebench.domain.formatting import counted
from enginebench.errors import UserError
from enginebench.runner.placement import slurm_commands as slurm
from enginebench.runner.placement.base import Choice, Intake, Node, Placement
from enginebench.runner.placement.slurm_array import new_folder
from enginebench.runner.placement.slurm_follow import Follower
from enginebench.runner.placement.slurm_script import SETTINGS, Shape, arrays, script, shape
from enginebench.runner.placement.unit_data import Unit

MOST_ELEMENTS = 1000
"""Of an array, where the cluster does not say what it allows."""


class Slurm(Placement):
    """Jobs outlive this process: when it is lost, they go on, and the next `bench run` of the same run collects what they stored."""

    names = ("slurm",)
    settings = SETTINGS
    spans_nodes = True

    def __enter__(self) -> Self:
        for key in ("poll_s", "most"):
            if (text := self.given.get(key, "1")) and not re.fullmatch(r"\d+(\.\d+)?", text):
                raise UserError(f"--place {key}={text}: not a number", advice=f"write for example --place {key}=10")
        allowed = slurm.setting("MaxArraySize")
        self._most = max(1, int(allowed) - 1) if allowed.isdigit() else MOST_ELEMENTS
        return self

    @property
    def shared(self) -> Path:
        """The folder of units, on a disk that all nodes see."""
        return Path(self.given.get("shared") or "slurm-units").expanduser().resolve()

    @cached_property
    def _devices(self) -> bool:
        """Whether every node of the partition has GPUs; False where Slurm cannot be asked."""
        with suppress(UserError):
            found = [each for each in slurm.listed() if self.given.get("partition") in (None, "", each.partition)]
            return bool(found) and all(each.gpus for each in found)
        return False

    def nodes(self) -> Sequence[Node]:
        by_name: dict[str, list[slurm.Listed]] = {}
        for each in slurm.listed():
            by_name.setdefault(each.name, []).append(each)
        return [_node(name, its) for name, its in by_name.items()]

    def choices(self, units: Sequence[Unit]) -> Sequence[Choice]:
        """What Slurm itself says of a job that is only tested."""
        known: dict[Shape, Choice] = {}
        found = []
        for unit in units:
            try:
                what = shape(unit, self._devices)
            except UserError as error:
                found.append(Choice(why_not=error.message))
                continue
            if what not in known:
                known[what] = self._choice(what, unit)
            found.append(known[what])
        return found

    def _choice(self, what: Shape, unit: Unit) -> Choice:
        try:
            words = slurm.would_start(script(what, [unit], self.shared, self.given))
        except slurm.SlurmError as error:
            if any(part in error.message for part in slurm.QUEUE_FULL):
                return Choice(("the cluster",))
            waiting = self._unavailable(what) if "configuration is not available" in error.message else ()
            return Choice(waiting) if waiting else Choice(why_not=slurm.explained(error.message))
        named = re.search(r"on nodes (\S+)", words)
        return Choice((named[1],) if named else ("the cluster",))

    def _unavailable(self, what: Shape) -> tuple[str, ...]:
        """The nodes that could take it, if some of them are drained or down: --test-only refuses these, and sbatch lets the job wait."""
        wanted = dict(what.labels)
        partition = wanted.get("partition") or self.given.get("partition")
        fit = {each.name: each.problem for each in slurm.listed() if slurm.could_take(each, wanted, what.gpus, partition)}
        return tuple(fit) if any(fit.values()) else ()

    def run(self, units: Sequence[Unit], intake: Intake) -> None:
        Follower(intake, self.shared, self.given, self._most, devices=self._devices).run(units)

    def dry_run(self, units: Sequence[Unit]) -> str:
        parts = list(arrays(units, MOST_ELEMENTS, devices=self._devices))
        shown = []
        for number, (what, some) in enumerate(parts, 1):
            head = f"# job array {number} of {len(parts)}, {counted(len(some), 'unit')}: sbatch batch.sh"
            shown.append(f"{head}\n{script(what, some, new_folder(self.shared, some), self.given)}")
        return "\n".join(shown)


def _node(name: str, its: Sequence[slurm.Listed]) -> Node:
    """A node, which may be in several partitions."""
    first = its[0]
    kinds = ",".join(sorted(kind for kind in first.gpus if kind))
    labels = {"name": name, "partition": ",".join(each.partition for each in its), "feature": ",".join(first.features), "gpu": kinds}
    shown = {key: value for key, value in labels.items() if value}
    return Node(name, first.cores, sum(first.gpus.values()), shown, problem=first.problem)


PLACEMENT = Slurm
