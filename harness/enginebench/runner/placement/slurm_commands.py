"""Slurm's own commands (sbatch, squeue, sinfo, scancel) as functions. Every error of theirs becomes one sentence."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from enginebench.errors import UserError

PATIENCE_S = 120.0
"""Longer than any command but a blocked sbatch takes; a controller that is restarted answers within it."""

ACTIVE = frozenset({"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
"""States of a job that has not ended. REQUEUED and its kin come only with --requeue, which the scripts switch off."""
LOST = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL"})
"""States of a job that the cluster has ended through no fault of its own."""
NEVER = frozenset({"BadConstraints", "PartitionNodeLimit", "PartitionTimeLimit", "InvalidAccount", "InvalidQOS", "AccountNotAllowed"})
"""Reasons for which a pending job can never begin as it was submitted."""
QUEUE_FULL = ("QOSMaxSubmitJob", "AssocMaxSubmitJob", "accounting/QOS policy", "Resource temporarily unavailable", "unable to accept job")
"""Parts of sbatch's errors that say that more jobs may be submitted once others have ended."""


class SlurmError(UserError):
    """A command of Slurm failed."""


@dataclass(frozen=True)
class Task:
    """An element of a job array, as `squeue` shows it."""

    index: int
    state: str
    reason: str
    """Why it waits, or how it ended."""
    nodes: str
    limit: str
    """Its time limit: '10:00'."""

    @property
    def active(self) -> bool:
        return self.state in ACTIVE


def call(*argv: str, stdin: str | None = None) -> str:
    """The output of a command. SlurmError with its first telling line."""
    try:
        done = subprocess.run(argv, input=stdin, text=True, capture_output=True, timeout=PATIENCE_S, check=False)
    except FileNotFoundError:
        advice = "run it on a login node of the cluster, or put Slurm's commands into PATH"
        raise UserError(f"--on slurm needs {argv[0]}, which is not on this machine", advice=advice) from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{argv[0]} gave no answer within {PATIENCE_S:g} s") from None
    if done.returncode:
        raise SlurmError(telling(argv[0], done.stderr))
    return done.stdout


def telling(program: str, errors: str) -> str:
    """The line of a command's errors that says most: Slurm puts the reason last, before repeated tries of a queue that is full."""
    lines = [re.sub(rf"^{program}: (error: )?", "", line.strip()) for line in errors.splitlines() if line.strip()]
    failed = [line for line in lines if "failed" in line or "Invalid" in line or "Unable" in line]
    return f"{program}: {(failed or lines or ['it failed without a word'])[-1]}"


def submit(script: Path) -> str:
    """Submit a batch script and return the id of its job."""
    return call("sbatch", "--parsable", str(script)).strip().partition(";")[0]


def job_named(name: str) -> str:
    """The id of the job of this name, if it is in the queue; '' otherwise."""
    found = call("squeue", "--noheader", "--states=all", f"--name={name}", "--format=%F").split()
    return found[0] if found else ""


def would_start(script: str) -> str:
    """Where and when Slurm would start a script, in its words; nothing is submitted. SlurmError with the reason if it never would."""
    try:
        done = subprocess.run(("sbatch", "--test-only"), input=script, text=True, capture_output=True, timeout=PATIENCE_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return call("sbatch", "--version")  # says what is wrong
    if done.returncode:
        raise SlurmError(telling("sbatch", done.stderr))
    return done.stderr.strip()


def explained(message: str) -> str:
    """An error of sbatch, with the partitions that there are where it is about one."""
    if "partition" not in message.lower():
        return message
    return f"{message} (partitions: {', '.join(sorted({each.partition for each in listed()}))})"


def tasks(job: str) -> Mapping[int, Task]:
    """The elements of a job array by index, ended ones included for as long as Slurm remembers them (MinJobAge, five minutes)."""
    try:
        lines = call("squeue", "--noheader", "--array", "--states=all", f"--jobs={job}", "--format=%i|%T|%r|%N|%l").splitlines()
    except SlurmError as error:
        if "Invalid job id" in error.message:
            return {}
        raise
    return {task.index: task for task in map(_task, lines)}


def _task(line: str) -> Task:
    job, state, reason, nodes, limit = line.split("|")
    return Task(int(job.rpartition("_")[2]), state, reason, nodes, limit)


def state_in_accounts(job: str, index: int) -> str:
    """The state of a task that `squeue` has forgotten, from the accounting database; '' where there is none."""
    try:
        found = call("sacct", "--noheader", "--parsable2", "--allocations", f"--jobs={job}_{index}", "--format=State").split()
    except UserError:
        return ""
    return found[0] if found else ""


def cancel(jobs: Iterable[str]) -> None:
    """End jobs or elements of arrays ('12', '12_3'). Those that have ended already are none's error."""
    if each := sorted(set(jobs)):
        call("scancel", "--quiet", *each)


def setting(name: str) -> str:
    """A setting of the cluster: 'MaxArraySize'; '' if it has none of this name."""
    found = re.search(rf"^{name}\s*=\s*(\S+)", call("scontrol", "show", "config"), re.MULTILINE)
    return found[1] if found else ""


@dataclass(frozen=True)
class Listed:
    """A node in a partition, as `sinfo` shows it."""

    name: str
    partition: str
    cores: int
    features: tuple[str, ...]
    gpus: Mapping[str, int]
    """Type ('' if it has none) -> number."""
    state: str
    reason: str

    @property
    def problem(self) -> str:
        """Why no job can begin on it, whatever runs there; empty if one can."""
        state = self.state.rstrip("*~#!%$@^-")
        if state in ("idle", "mixed", "allocated", "completing", "planned", "reserved", "powering_up", "powered_down", "powering_down"):
            return "" if "*" not in self.state else f"{state}, but not responding"
        return f"{state}: {self.reason}" if self.reason not in ("", "none") else state


def could_take(node: Listed, labels: Mapping[str, str], gpus: int, partition: str | None) -> bool:
    """Whether a node is what labels and devices ask for, whatever its state. Of an expression of features all count as fulfilled."""
    feature, kind = labels.get("feature", ""), labels.get("gpu")
    features = not re.fullmatch(r"[\w.-]+", feature) or feature in node.features
    enough = gpus <= (node.gpus.get(kind, 0) if kind else sum(node.gpus.values()))
    return features and enough and labels.get("name") in (None, node.name) and partition in (None, "", node.partition)


def listed() -> Sequence[Listed]:
    """Every node once for each of its partitions."""
    lines = call("sinfo", "--Node", "--noheader", "--format=%N|%R|%c|%f|%G|%T|%E").splitlines()
    return [_listed(*line.split("|", 6)) for line in lines]


def _listed(name: str, partition: str, cores: str, features: str, gres: str, state: str, reason: str) -> Listed:
    shown = tuple(each for each in features.split(",") if each not in ("", "(null)"))
    return Listed(name, partition, int(cores.rstrip("+")), shown, dict(_gpus(gres)), state, reason)


def _gpus(gres: str) -> Iterator[tuple[str, int]]:
    """'gpu:h100:4(S:0-1),tmpdisk:100' -> ('h100', 4)."""
    for kind, number in re.findall(r"(?:^|,)gpu(?::([^:,()]+))?:(\d+)", gres):
        yield kind, int(number)
