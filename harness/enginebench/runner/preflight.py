"""What is known of a plan before anything is launched or stored: what this machine lacks for it, its data sets, who uses its GPUs."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from enginebench.checkpoints.content import Content
from enginebench.domain.formatting import counted
from enginebench.errors import UserError
from enginebench.machine import nvml
from enginebench.runner.missing import Lookup, Missing
from enginebench.scenario.plan import Plan
from enginebench.workload.datasets import is_data_set, read_records


@dataclass(frozen=True)
class Preflight:
    """What this machine lacks for a plan."""

    cells: int
    """Cells that the plan does not skip."""
    missing: tuple[Missing, ...] = ()
    """Each thing once."""
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Id of a cell that cannot run here -> what it lacks."""
    model: str | None = None
    """A model of the plan whose ceiling is known."""
    waiting: Mapping[Missing, int] = field(default_factory=dict)
    """Thing -> the number of cells that lack it."""

    @property
    def refused(self) -> bool:
        """Whether no cell can run here."""
        return bool(self.cells) and len(self.skipped) == self.cells

    @property
    def parts_differ(self) -> bool:
        """Whether some deployments lack less than others, so that a part of the plan is easier to run."""
        return any(count < self.cells for count in self.waiting.values())

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line for each thing that is missing."""
        of = f"of {counted(self.cells, 'cell')}"
        lines = (f"{each.what}: {count:,} {of} skipped" + (f"; {each.fix}" if each.fix else "") for each, count in self.waiting.items())
        return tuple(lines)


class CannotRun(UserError):  # noqa: N818  # a verdict on this machine, as `Unsupported` is one on an engine
    """Nothing of a plan can run on this machine."""

    def __init__(self, found: Preflight) -> None:
        fixes = dict.fromkeys(each.fix for each in found.missing if each.fix)
        super().__init__(f"cannot run here: {'; '.join(each.what for each in found.missing)}", advice=" · ".join(fixes) or None)
        self.preflight = found


def preflight(plan: Plan) -> Preflight:
    """What this machine lacks for the cells that the plan does not skip. Launches nothing, uses no network, takes a moment.

    Only what is certainly missing counts: devices that are stated or that an image needs, a Docker daemon, images that may not be pulled,
    environment variables, engines, disk for weights that have to be downloaded.
    """
    lookup, lacks = Lookup(plan), {}
    skipped: dict[str, str] = {}
    waiting: Counter[Missing] = Counter()
    cells = 0
    for deployment, its in plan.launches():
        runnable = [cell for cell in its if not plan.skipped or cell.id not in plan.skipped]
        cells += len(runnable)
        if runnable and id(deployment) not in lacks:
            lacks[id(deployment)] = lookup.of(deployment)
        if runnable and (found := lacks[id(deployment)]):
            waiting.update(dict.fromkeys(found, len(runnable)))
            reason = "; ".join(each.what for each in found)
            skipped |= {cell.id: reason for cell in runnable}
    return Preflight(cells, _each_kind_once(waiting), skipped, _known_model(plan) if skipped else None, waiting)


def _known_model(plan: Plan) -> str | None:
    from enginebench.physics.catalogue import find_model  # physics takes a while to import

    names = (name for deployment in plan.scenario.deployments for name in (deployment.model, deployment.checkpoint))
    return next((name for name in names if find_model(name) is not None), None)


def _each_kind_once(found: Iterable[Missing]) -> tuple[Missing, ...]:
    """Of several numbers of devices the largest."""
    kept: dict[tuple[str, str], Missing] = {}
    for each in found:
        key = each.kind, "" if each.amount else each.what
        kept[key] = max(kept.get(key, each), each, key=lambda one: one.amount)
    return tuple(kept.values())


def check_prompts(plan: Plan) -> dict[str, Content]:
    """Read every data set. UserError for one that cannot be read; planning does not fetch from the hub.

    Returns what those from the hub contain, as `enginebench.scenario.contents` does for files.
    """
    file, found = plan.scenario.file, {}
    for prompts in dict.fromkeys(cell.load.prompts for cell in plan.cells if cell.id not in plan.skipped):
        if is_data_set(prompts):
            try:
                records = read_records(prompts, plan.base)
            except UserError as error:
                raise UserError(error.message, file=error.file or file, line=error.line, key=error.key, advice=error.advice) from None
            if prompts.startswith("hf:"):
                data = repr(records).encode(errors="surrogatepass")
                digest = hashlib.sha256(data).hexdigest()
                found[f"prompts {prompts}"] = Content(len(data), digest, digest)
    return found


def gpu_users(plan: Plan) -> list[str]:
    """Compute processes on the NVIDIA GPUs that this plan will use, in words. Called before anything is launched: all are foreign."""
    local = [each for each, cells in plan.launches() if each.runtime != "attach" and any(cell.id not in plan.skipped for cell in cells)]
    wanted = max((plan.registry[each.engine].traits(each.inside).gpus for each in local), default=0)
    visible = [int(index) for index in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if index.strip().isdigit()]
    found = []
    try:
        with nvml.opened() as lib:
            for index, handle in nvml.devices(lib) if wanted else ():
                if index in visible[:wanted] or (not visible and index < wanted):
                    processes = nvml.answer(lib, partial(lib.nvmlDeviceGetComputeRunningProcesses, handle)) or ()
                    found += [f"process {process.pid} on GPU {index}" for process in processes]
    except LookupError:  # no NVIDIA GPUs
        return []
    return found
