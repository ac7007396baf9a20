"""Checks whether this machine is fit for a benchmark and what is missing, and removes what ended runs left behind.

Thresholds are for measuring, not for running: an engine works on a busy machine, but its numbers are worthless.
"""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import psutil

from enginebench.checkpoints.cache import remove_drafts
from enginebench.checkpoints.locate import checkpoints_folder
from enginebench.domain.formatting import percent, size
from enginebench.engines.installed import Engine, list_engines
from enginebench.loadgen.transport.library import library
from enginebench.machine import host
from enginebench.machine.accelerators import gpus
from enginebench.machine.folders import cache_dir
from enginebench.machine.nvml import DRIVER
from enginebench.runner.quiet import Moment, others_since
from enginebench.runtime.exit_status import LaunchFailed
from enginebench.runtime.lease import leases_folder
from enginebench.runtime.leftovers import leases, sweep
from enginebench.runtime.machine_lease import remove_dead
from enginebench.runtime.unit_folder import remove_left_folders
from enginebench.telemetry.nvidia import nvml_version
from enginebench.validity.checks.machine import FOREIGN

Level: TypeAlias = Literal["ok", "warn", "no"]

GIB = 2**30
DOCKER_TIMEOUT_S = 5.0
FEW_CORES = 4
"""With fewer cores the load generator and the engine compete for them."""
LITTLE_DISK, LITTLE_MEMORY = 10 * GIB, 4 * GIB


@dataclass(frozen=True)
class Diagnosis:
    """The result of one check."""

    topic: str
    level: Level
    """no: something does not work. warn: numbers may be wrong."""
    text: str
    advice: str = ""
    """What to do about it; empty for ok."""


def doctor(adapters: Sequence[str | Path] = ()) -> list[Diagnosis]:
    """What this machine can run and what would disturb a measurement: the machine in one line, then CPU, memory, GPUs, Docker, leftovers,
    engines, labels by which a scenario can ask for a node like this, and at last which built-in scenarios can run here, and what to type.

    adapters: further adapter files. UserError if one of these is missing or broken.
    """
    from enginebench.machine.labels import labels_text
    from enginebench.runner.doctor_summary import can_run, machine_line  # needs plans, which a run's own cleaning does not

    engines = list_engines(adapters)
    text, advice = can_run(engines)
    last = Diagnosis("labels", "ok", labels_text()), Diagnosis("can run", "ok", text, advice)
    return [Diagnosis("machine", "ok", machine_line()), *diagnose(engines), *last]


def diagnose(engines: Iterable[Engine] = ()) -> list[Diagnosis]:
    """Run all checks, most general first."""
    checks = (_python, _uvloop, _receiver, _cores, _memory, _quiet, _disk, _gpus, _nvml, _leftovers)
    return [*(check() for check in checks), *_docker(), *map(_engine, engines)]


def _python() -> Diagnosis:
    return Diagnosis("Python", "ok", f"{platform.python_implementation()} {platform.python_version()}")


def _uvloop() -> Diagnosis:
    if importlib.util.find_spec("uvloop") is None:
        return Diagnosis("uvloop", "warn", "not installed: the load generator is slower", "pip install uvloop")
    return Diagnosis("uvloop", "ok", "installed")


def _receiver() -> Diagnosis:
    if library() is not None:
        return Diagnosis("time stamps", "ok", "by the kernel when tokens arrive (TLS: by the event loop)")
    text = "by the event loop when it reads a token: accurate up to some hundred streams"
    if not sys.platform.startswith("linux"):
        return Diagnosis("time stamps", "ok", text)
    advice = "install a C compiler (Debian: apt-get install gcc libc6-dev), then reinstall enginebench"
    return Diagnosis("time stamps", "warn", text, advice)


def _cores() -> Diagnosis:
    usable, quota = host.usable_cores() or 1, host.cpu_quota()
    text = f"{usable} usable" + (f", cgroup quota of {quota:g}" if quota is not None else "")
    if quota is not None and quota < usable:
        return Diagnosis("cores", "warn", text, "the kernel pauses a process above its quota: raise the quota, or pin to whole cores")
    if usable < FEW_CORES:
        return Diagnosis("cores", "warn", text, "load generator and engine compete for cores; trust comparisons, not absolute numbers")
    return Diagnosis("cores", "ok", text)


def _memory() -> Diagnosis:
    memory, limit = psutil.virtual_memory(), host.memory_limit()
    text = f"{size(memory.available)} of {size(memory.total)} available"
    if limit is not None and limit < memory.total:
        text += f", cgroup limit {size(limit)}"
    if min(memory.available, limit or memory.available) < LITTLE_MEMORY:
        return Diagnosis("memory", "warn", text, "only tiny models will fit: end other programs or raise the limit")
    return Diagnosis("memory", "ok", text)


def _quiet() -> Diagnosis:
    governor, share = host.governor(), others_since(Moment())
    text = f"other work uses {percent(share, 2)} of the CPUs" + (f", CPU governor {governor}" if governor else "")
    if share > FOREIGN:
        return Diagnosis("quiet", "warn", text, "other work is running; wait for it or end it")
    if governor and governor != "performance":
        return Diagnosis("quiet", "warn", text, "the clock frequency follows the load: sudo cpupower frequency-set -g performance")
    return Diagnosis("quiet", "ok", text)


def _disk() -> Diagnosis:
    place = cache_dir()
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    text = f"{size(free)} free for {place}"
    if free < LITTLE_DISK:
        return Diagnosis("disk", "warn", text, "engines take 0.1 to 10 GiB each; ENGINEBENCH_HOME moves them elsewhere")
    return Diagnosis("disk", "ok", text)


def _gpus() -> Diagnosis:
    from enginebench.physics.detect import undetected  # physics takes a while to import, and a run needs only what removes leftovers

    found = gpus()
    if not found:
        return Diagnosis("GPUs", "warn", "none seen", "only engines that run on CPUs can be launched; attach reaches servers elsewhere")
    names = [f"{gpu.name}{f' {size(gpu.memory_bytes)}' if gpu.memory_bytes else ''}" for gpu in found]
    counted = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    text = counted + (f", driver {found[0].driver}" if found[0].driver else "")
    if unknown := undetected(found):
        return Diagnosis("GPUs", "warn", f"{text}: {unknown.message}", unknown.advice or "")
    return Diagnosis("GPUs", "ok", text)


def _nvml() -> Diagnosis:
    """The source of power, clocks and throttling of NVIDIA GPUs. Not a problem on a machine without them."""
    try:
        driver, count = nvml_version()
    except LookupError as reason:
        needed = DRIVER.exists()
        advice = "power, energy per token and throttling of the GPUs stay unknown: install the driver's libnvidia-ml" if needed else ""
        return Diagnosis("NVML", "warn" if needed else "ok", f"does not answer: {reason}", advice)
    return Diagnosis("NVML", "ok", f"answers for {count} {'device' if count == 1 else 'devices'}, driver {driver}")


def _docker() -> Iterator[Diagnosis]:
    """The daemon, and containers that earlier runs left behind."""
    from enginebench.runtime.container.client import connect
    from enginebench.runtime.container.leftovers import find

    needed = "only needed for engines that run in containers"
    try:
        with contextlib.closing(connect(DOCKER_TIMEOUT_S)) as client:
            version, left = client.version(), find(client)
    except LaunchFailed as failure:
        yield Diagnosis("Docker", "warn", failure.reason, needed)
        return
    yield Diagnosis("Docker", "ok", f"daemon {version['Version']}, API {version['ApiVersion']}")
    dead = [item.text for item in left if not item.live]
    if dead:
        yield Diagnosis("containers", "warn", f"left by runs that have ended: {', '.join(dead)}", "bench clean removes them")
    elif left:
        text = f"{len(left)} containers and networks of other runs are up"
        yield Diagnosis("containers", "warn", text, "they take cores and memory from a measurement: wait for them")


def _leftovers() -> Diagnosis:
    launches = leases()
    dead = [lease.tag for lease in launches if not lease.live]
    if dead:
        text = f"launches of runs that have ended: {', '.join(dead)}"
        return Diagnosis("leftovers", "warn", text, "the next bench run ends those that are provably its own")
    if launches:
        text = f"{len(launches)} launches of other runs are up"
        return Diagnosis("leftovers", "warn", text, "they take cores and memory from a measurement: wait for them")
    return Diagnosis("leftovers", "ok", "none")


def _engine(engine: Engine) -> Diagnosis:
    name, title = engine.name, engine.title
    if engine.broken is not None:
        return Diagnosis(name, "no", engine.broken, "fix its adapter, or uninstall the package that contains it")
    if not engine.installs:
        return Diagnosis(name, "no", f"{title} is not installed", f"bench engines install {name}")
    best, *others = engine.installs
    place = best.binary or best.python
    text = f"{title} {best.version} ({best.variant})" + (f" in {place}" if place else "")
    return Diagnosis(name, "ok", text + (f"; also {', '.join(f'{each.variant} {each.version}' for each in others)}" if others else ""))


@dataclass(frozen=True)
class Cleanup:
    """What `clean` did."""

    actions: tuple[str, ...]
    """One sentence for everything that was ended, removed or left alone."""
    containers_problem: str | None = None
    """Why containers could not be looked at; None when they were."""


def clean() -> Cleanup:
    """End processes and remove containers and networks of runs whose harness has ended. Never raises for a missing Docker daemon."""
    actions, leases = remove_dead()
    actions += _left_files()
    problem, more = _clean_containers(leases, None)
    return Cleanup((*actions, *more), problem)


def remove_leftovers(*, docker: bool) -> list[str]:
    """What `clean` does, before a run. The Docker daemon is asked only if this run needs it or a killed run has used it."""
    actions, leases = remove_dead()
    actions += _left_files()
    if docker or leases:
        problem, more = _clean_containers(leases, str(leases_folder()))
        actions += [line for line in more if not line.startswith("left ")]
        if problem and leases:
            actions.append(f"containers of a killed run may be left: {problem}")
    return actions


def _left_files() -> list[str]:
    """End engines that outlived their harness, and remove what killed processes had begun to write."""
    return [*sweep(), *remove_drafts(checkpoints_folder()), *remove_drafts(cache_dir() / "hashes"), *remove_left_folders()]


def _clean_containers(leases: Sequence[Path], folder: str | None) -> tuple[str | None, list[str]]:
    """Why containers could not be looked at, and what was done. leases: of killed runs, deleted when their containers are removed.
    folder: only containers of runs with this folder of leases."""
    from enginebench.runtime.container.client import connect
    from enginebench.runtime.container.leftovers import clean as clean_containers

    try:
        with contextlib.closing(connect(DOCKER_TIMEOUT_S)) as client:
            actions = clean_containers(client, folder)
    except LaunchFailed as failure:
        return failure.reason, []
    if not any(action.startswith("could not") for action in actions):
        for lease in leases:
            lease.unlink(missing_ok=True)
    return None, actions
