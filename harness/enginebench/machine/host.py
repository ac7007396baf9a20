"""Facts about this machine, for the provenance of a result. Does not know engines and judges nothing (`doctor` does).

Any fact may be missing: it is then None or empty, never an error. No host name, user name or serial number is read, so that a record can be
published unchanged. Tested on Linux only.
"""

import importlib.metadata
import itertools
import os
import platform
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from enginebench import __version__
from enginebench.machine.accelerators import Gpu, ask, gpus

CGROUP = Path("/sys/fs/cgroup")
SELF_CGROUP = Path("/proc/self/cgroup")
CPUFREQ = Path("/sys/devices/system/cpu")
NO_LIMIT = 2**60
"""cgroup v1 writes "no limit" as a number near 2**63."""


@dataclass(frozen=True)
class Host:
    """The machine at one moment. `enginebench.domain.plain` turns it into JSON."""

    system: str
    kernel: str
    architecture: str
    cpu: str | None
    logical_cores: int | None
    physical_cores: int | None
    usable_cores: int | None
    """Logical cores that the scheduler affinity allows."""
    cpu_quota: float | None
    """Cores' worth of time that the cgroup allows."""
    memory_bytes: int
    memory_limit_bytes: int | None
    governor: str | None
    """The distinct CPU frequency governors."""
    load_average: tuple[float, float, float] | None
    """Over 1, 5 and 15 minutes."""
    clock_resolution_ns: float
    """Of time.monotonic_ns(), as the system reports it."""
    clock_step_ns: int
    """Of time.monotonic_ns(), as measured."""
    python: str
    enginebench: str
    revision: str | None
    """The checkout's commit, with '-dirty' when tracked files differ from it; None outside a checkout."""
    packages: Mapping[str, str]
    gpus: tuple[Gpu, ...]


def facts() -> Host:
    """Read them now. Takes under 0.1 s on a machine without accelerators."""
    return Host(
        system=_system(),
        kernel=platform.release(),
        architecture=platform.machine(),
        cpu=cpu_name(),
        logical_cores=psutil.cpu_count(logical=True),
        physical_cores=psutil.cpu_count(logical=False),
        usable_cores=usable_cores(),
        cpu_quota=cpu_quota(),
        memory_bytes=psutil.virtual_memory().total,
        memory_limit_bytes=memory_limit(),
        governor=governor(),
        load_average=load_average(),
        clock_resolution_ns=time.get_clock_info("monotonic").resolution * 1e9,
        clock_step_ns=_clock_step_ns(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        enginebench=__version__,
        revision=_revision(),
        packages=_packages(),
        gpus=gpus(),
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


# -- CPU and memory ------------------------------------------------------------------------------------------------------------


def _system() -> str:
    if sys.platform == "darwin":
        return f"macOS {platform.mac_ver()[0]}"
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


def cpu_name() -> str | None:
    if sys.platform == "darwin":
        return ask(["sysctl", "-n", "machdep.cpu.brand_string"], 2.0)
    found = re.search(r"^model name\s*:\s*(.+)$", _read(Path("/proc/cpuinfo")) or "", re.MULTILINE)
    if found is None:  # ARM kernels write numbers there; lscpu has the names
        found = re.search(r"^Model name:\s*(.+)$", ask(["lscpu"], 2.0) or "", re.MULTILINE)
    return found[1] if found else None


def usable_cores() -> int | None:
    """Logical cores this process may be scheduled on; macOS has no affinity, so all of them there."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()


def cpu_quota() -> float | None:
    """Cores' worth of CPU time per second that the tightest enclosing cgroup (v1 or v2) allows; None: no limit."""
    quotas = []
    for folder, version in _cgroups("cpu"):
        if version == 2:
            words = (_read(folder / "cpu.max") or "").split()
        else:
            words = [_read(folder / f"cpu.cfs_{part}_us") or "" for part in ("quota", "period")]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit():  # "max" and "-1" mean no limit
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Bytes that the tightest enclosing cgroup (v1 or v2) allows; None: no limit below the machine's memory."""
    limits = []
    for folder, version in _cgroups("memory"):
        text = _read(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes")) or ""
        if text.isdigit() and int(text) < NO_LIMIT:
            limits.append(int(text))
    return min(limits, default=None)


def _cgroups(controller: str) -> Iterator[tuple[Path, int]]:
    """This process's cgroup folders for a controller and their parents, with the cgroup version; limits are inherited.

    In a container the path in /proc/self/cgroup may be the host's and not exist here, but its top folder does.
    """
    for line in (_read(SELF_CGROUP) or "").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names and controller not in names.split(","):
            continue
        root = CGROUP / controller if names else CGROUP
        folder = root / path.strip("/")
        yield folder, 1 if names else 2
        for above in folder.parents:
            if above.is_relative_to(root):
                yield above, 1 if names else 2


def governor() -> str | None:
    """The CPU frequency governors in use; None where the kernel does not report them (most virtual machines, macOS)."""
    found = {_read(path) for path in CPUFREQ.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {None}
    return ", ".join(sorted(filter(None, found))) or None


def load_average() -> tuple[float, float, float] | None:
    try:
        return os.getloadavg()
    except OSError:
        return None


def _clock_step_ns() -> int:
    """The smallest step between two readings of the clock: the resolution of a latency."""
    reads = [time.monotonic_ns() for _ in range(1000)]
    return min((b - a for a, b in itertools.pairwise(reads) if b > a), default=0)


# -- software ------------------------------------------------------------------------------------------------------------------


def _revision() -> str | None:
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():  # installed: a repository around site-packages is another project's
        return None
    return ask(["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"], 2.0)


def _packages() -> dict[str, str]:
    versions = {}
    try:
        for requirement in importlib.metadata.requires("enginebench") or []:
            name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
            if "extra ==" not in requirement:
                versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
    return versions
