"""The batch script of a job array: which options of sbatch a unit needs, and the command that each element runs. Pure."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from enginebench.errors import UserError, did_you_mean
from enginebench.runner.placement.unit_data import MEETING, Unit

SETTINGS = {
    "partition": "the partition of the jobs",
    "account": "the account that is charged",
    "qos": "their quality of service",
    "time": "the time limit of one unit, as sbatch takes it: 30, 2:00:00, 1-0",
    "options": "further options of sbatch: '--reservation=bench --gpu-bind=none'",
    "setup": "a line of shell that runs before each unit: 'module load cuda'",
    "python": "the Python with enginebench on the nodes; default: the one that runs here",
    "shared": "a folder that all nodes see, for units and what they store; default: slurm-units in the current folder",
    "most": "units that run at once",
    "poll_s": "seconds between two looks at the queue; default: 5",
}
"""Keys of `--place` -> their meaning."""
LABELS = {
    "name": "the name of the node",
    "partition": "a partition",
    "feature": "a feature of the node, or an expression of features as --constraint takes it",
    "gpu": "the type of its GPUs in Slurm's gres: 'h100'",
}
"""Keys of `node:` in a scenario that Slurm understands -> their meaning."""


@dataclass(frozen=True)
class Shape:
    """What a unit asks of the cluster. All elements of a job array ask for the same."""

    gpus: int
    cores: int
    """0: all of the node."""
    exclusive: bool
    labels: tuple[tuple[str, str], ...]
    nodes: int = 1
    """Each with the GPUs and cores above."""


def shape(unit: Unit, devices: bool = False) -> Shape:
    """devices: whether every node has GPUs, so that a unit that can use them gets them. UserError for a label that Slurm does not know."""
    labels = dict(unit.deployment.node)
    if unknown := [key for key in labels if key not in LABELS]:
        key = unknown[0]
        raise UserError(f"node: {key}: {labels[key]} means nothing to Slurm", key=f"node.{key}", advice=did_you_mean(key, LABELS))
    gpus = unit.gpus_each if unit.needs_gpus or devices or "gpu" in labels else 0
    return Shape(gpus, unit.cores, unit.exclusive, tuple(sorted(labels.items())), unit.deployment.nodes)


def arrays(units: Sequence[Unit], most: int, *, devices: bool = False) -> Iterator[tuple[Shape, list[Unit]]]:
    """The units in their order, cut where what they ask for changes, and after `most` elements. Nothing is sorted, because the order
    of a plan interleaves its repeats."""
    for what, group in groupby(units, lambda unit: shape(unit, devices)):
        same = list(group)
        for i in range(0, len(same), most):
            yield what, same[i : i + most]


def script(what: Shape, units: Sequence[Unit], folder: Path, settings: Mapping[str, str]) -> str:
    """A batch script that measures each of these units in an element of a job array. folder: on a disk that all nodes see."""
    options = "\n".join(f"#SBATCH {option}" for option in _options(what, len(units), folder, settings))
    ids = "\n".join(f"  {shlex.quote(unit.id)}  # {_comment(unit.name)}" for unit in units)
    python = shlex.quote(settings.get("python") or sys.executable)
    setup = f"{settings['setup']}\n" if settings.get("setup") else ""
    cores = f" --cores {what.cores}" if what.cores and not what.exclusive else ""
    others = _others(what, python) if what.nodes > 1 else ""
    return f"""#!/bin/bash
{options}
units=(
{ids}
)
unit=${{units[$SLURM_ARRAY_TASK_ID]}}
cd {shlex.quote(str(folder))} || exit 1
{setup}{others}exec {python} -m enginebench.runner.placement.unit "units/$unit.json" --into "runs/$unit" --node "$SLURMD_NODENAME"{cores}
"""


def _others(what: Shape, python: str) -> str:
    """The lines that start a process on every further node of the job; it ends with the one on the first."""
    rank = f"""exec {python} -m enginebench.runner.placement.rank "units/$0.json" --meeting "runs/$0/{MEETING}" """
    rank += """--head "$SLURM_LAUNCH_NODE_IPADDR" --rank $((SLURM_PROCID + 1)) --node "$SLURMD_NODENAME" """
    gpus = f" --gres={_gres(what)}" if what.gpus else ""
    step = f"srun --relative=1 --nodes={what.nodes - 1} --ntasks={what.nodes - 1} --ntasks-per-node=1 --cpu-bind=none --mpi=none{gpus}"
    return f'{step} bash -c {shlex.quote(rank.strip())} "$unit" &\n'


def _gres(what: Shape) -> str:
    labels = dict(what.labels)
    return f"gpu:{labels['gpu']}:{what.gpus}" if "gpu" in labels else f"gpu:{what.gpus}"


def _comment(name: str) -> str:
    return re.sub(r"\s+", " ", name)


def _options(what: Shape, count: int, folder: Path, settings: Mapping[str, str]) -> Iterator[str]:
    labels = dict(what.labels)
    at_once = f"%{settings['most']}" if settings.get("most") else ""
    yield f"--job-name=bench-{folder.name}"
    yield f"--array=0-{count - 1}{at_once}"
    yield f"--nodes={what.nodes}"
    yield "--ntasks-per-node=1"
    if what.exclusive or not what.cores:
        yield "--exclusive"
        yield "--mem=0"  # all of the node's; a default limit per CPU would leave most of it unused
    else:
        yield f"--cpus-per-task={what.cores}"
    if what.gpus:
        yield f"--gres={_gres(what)}"
    for key, option in (("name", "nodelist"), ("feature", "constraint")):
        if key in labels:
            yield f"--{option}={labels[key]}"
    if partition := labels.get("partition") or settings.get("partition"):
        yield f"--partition={partition}"
    for key in ("account", "qos", "time"):
        if settings.get(key):
            yield f"--{key}={settings[key]}"
    yield "--no-requeue"  # a unit that lost its node is submitted again with the cells that are left
    yield f"--output={folder}/logs/%a.txt"
    yield from _further(settings.get("options", ""))


def _further(options: str) -> Iterator[str]:
    """Each option on a line of its own, because sbatch reads one line as it reads a command line."""
    for word in shlex.split(options):
        if not word.startswith("-"):
            advice = "write options with '=': --place options='--reservation=bench --gpu-bind=none'"
            raise UserError(f"--place options: '{word}' is not an option of sbatch", advice=advice)
        yield shlex.quote(word)
