"""Reads CPU time and memory of an engine: as a process tree, or as a container.

A container is read from its control group (version 1 or 2) if its first process is visible on this machine. Else (rootless daemon, or
another machine) the daemon is asked, which updates once per second, and the process ids stay unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from enginebench.telemetry.source import Values, try_read

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.records.subject import Kind

ROOT = Path("/sys/fs/cgroup")
US, NS = 1e-6, 1e-9


class Processes:
    """All descendants of a process, without the process itself (a guardian or init)."""

    kind: Kind = "processes"

    def __init__(self, name: str, root: int) -> None:
        self.name, self._root = name, root
        self.facts: Mapping[str, JSON] = {}
        self.pids: frozenset[int] = frozenset()

    def _tree(self) -> list[psutil.Process]:
        return descendants(self._root)

    def read(self) -> Values:
        found = self._tree()
        self.pids = frozenset(process.pid for process in found)
        usage = [try_read(lambda p=process: (_cpu_s(p), p.memory_info().rss), psutil.Error) for process in found]  # type: ignore[misc]
        known = [one for one in usage if one is not None]
        ended = try_read(lambda: _children_s(psutil.Process(self._root)), psutil.Error)
        if ended is None or not known:
            return {}
        read = [bytes_read for process in found if (bytes_read := _disk_bytes(process)) is not None]
        return {
            "cpu_s": ended + sum(cpu for cpu, _ in known),
            "memory_bytes": sum(rss for _, rss in known),
            "processes": len(known),
            "read_bytes": sum(read) if read else None,
        }


class Attached(Processes):
    """The process that listens on a port of this machine, with its descendants: a server that was attached to.

    The fact `forwards` says that it has connections to other processes, as a proxy has: then it is not the engine, or not all of it.
    """

    def __init__(self, name: str, port: int) -> None:
        sockets = try_read(lambda: psutil.net_connections("tcp"), (psutil.Error, OSError)) or []
        pids = {s.pid for s in sockets if s.status == psutil.CONN_LISTEN and s.laddr and s.laddr.port == port and s.pid}
        super().__init__(name, min(pids, default=0))  # the oldest of several workers is their parent

    def _tree(self) -> list[psutil.Process]:
        root = try_read(lambda: psutil.Process(self._root), psutil.Error) if self._root else None
        found = [root, *descendants(self._root)] if root is not None else []
        if not self.facts.get("forwards"):
            self.facts = {"forwards": _has_peers(found)}
        return found


def _has_peers(processes: list[psutil.Process]) -> bool:
    """Whether any of the processes has opened a connection to one that is not among them."""
    found = [try_read(lambda p=each: p.net_connections("tcp"), (psutil.Error, OSError)) or [] for each in processes]  # type: ignore[misc]
    sockets = [socket for each in found for socket in each]
    own = {s.laddr.port for s in sockets if s.status == psutil.CONN_LISTEN}
    return any(s.status == psutil.CONN_ESTABLISHED and not {s.laddr.port, s.raddr.port} & own for s in sockets)


def descendants(root: int) -> list[psutil.Process]:
    """The running descendants of a process; empty if it has ended."""
    return try_read(lambda: psutil.Process(root).children(recursive=True), psutil.Error) or []


def _cpu_s(process: psutil.Process) -> float:
    """CPU time of the process and of its ended and reaped children."""
    times = process.cpu_times()
    return float(times.user + times.system) + _children_s(process)


def _children_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


def _disk_bytes(process: psutil.Process) -> int | None:
    """Bytes that the process had read from disks; None where the system does not tell (macOS, another user's process)."""
    counters = try_read(process.io_counters, psutil.Error) if hasattr(process, "io_counters") else None
    return int(counters.read_bytes) if counters is not None else None


class Container:
    kind: Kind = "container"

    def __init__(self, name: str, ident: str, client: Any) -> None:
        self.name, self._id, self._client = name, ident, client
        self._root, self._group = self._find_locally()
        self.facts: Mapping[str, JSON] = {"visible": self._root is not None}
        self.pids: frozenset[int] = frozenset()

    def read(self) -> Values:
        self.pids = frozenset(process.pid for process in descendants(self._root)) if self._root else frozenset()
        if self._group is not None:
            return self._group.read()
        return values_of(try_read(lambda: self._client.api.stats(self._id, stream=False, one_shot=True), Exception) or {})

    def _find_locally(self) -> tuple[int | None, Cgroup | None]:
        """First process and control group, if they are on this machine (process ids of another daemon mean nothing here)."""
        info = try_read(lambda: self._client.api.inspect_container(self._id), Exception) or {}
        pid = int(info.get("State", {}).get("Pid") or 0)
        groups = try_read(Path(f"/proc/{pid}/cgroup").read_text, OSError) or ""
        return (pid, cgroup_of(groups, self._id)) if pid and self._id in groups else (None, None)


def values_of(stats: Mapping[str, Any]) -> Values:
    """Convert the daemon's statistics of a container; empty if it has ended. Without a CPU quota there are no periods."""
    cpu, memory = stats.get("cpu_stats") or {}, stats.get("memory_stats") or {}
    used, throttling, detail = (cpu.get("cpu_usage") or {}).get("total_usage"), cpu.get("throttling_data") or {}, memory.get("stats") or {}
    if not used:
        return {}
    cache = detail.get("inactive_file", detail.get("total_inactive_file", 0))  # cgroup 2, cgroup 1
    disk = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    values = {
        "cpu_s": used * NS,
        "memory_bytes": memory["usage"] - cache if "usage" in memory else None,
        "read_bytes": sum(each["value"] for each in disk if each["op"].lower() == "read") if disk else None,
    }
    if throttling.get("periods"):
        periods = {name: throttling[name] for name in ("periods", "throttled_periods")}
        values |= periods | {"throttled_s": throttling["throttled_time"] * NS}
    return values


@dataclass(frozen=True)
class Cgroup:
    """The folders of one group: one for all controllers in version 2, one per controller in version 1."""

    cpu: Path
    cpuacct: Path
    memory: Path

    def read(self) -> Values:
        """The values of `subject.VALUES['container']`; empty if the group has ended. Without a CPU quota there are no periods."""
        stat, detail = _table(self.cpu / "cpu.stat"), _table(self.memory / "memory.stat")
        v1 = self.cpu != self.memory
        used = _number(self.cpuacct / "cpuacct.usage") if v1 else stat.get("usage_usec")
        memory = _number(self.memory / ("memory.usage_in_bytes" if v1 else "memory.current"))
        if used is None:
            return {}
        values: dict[str, float | None] = {
            "cpu_s": used * (NS if v1 else US),
            "memory_bytes": None if memory is None else memory - detail.get("total_inactive_file" if v1 else "inactive_file", 0),
            "read_bytes": None if v1 else _bytes_read(self.memory / "io.stat"),
        }
        if stat.get("nr_periods"):
            throttled_s = stat["throttled_time"] * NS if v1 else stat["throttled_usec"] * US
            values |= {"periods": stat["nr_periods"], "throttled_periods": stat["nr_throttled"], "throttled_s": throttled_s}
        return values


def cgroup_of(memberships: str, ident: str, root: Path = ROOT) -> Cgroup | None:
    """The group of a container. ident: its id. memberships: /proc/PID/cgroup of its first process. None if it is not visible here."""
    paths: dict[str, str] = {}
    for line in memberships.splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= dict.fromkeys(controllers.split(","), path.lstrip("/"))
    single = root / paths.get("", "")
    if ident in str(single) and (single / "cpu.stat").is_file():
        return Cgroup(single, single, single)
    folders = [root / name / paths.get(name, "") for name in ("cpu", "cpuacct", "memory")]
    return Cgroup(*folders) if all(ident in str(folder) and folder.is_dir() for folder in folders) else None


def _bytes_read(file: Path) -> int | None:
    """Over all devices of an io.stat of version 2; None if the controller is off."""
    words = (try_read(file.read_text, OSError) or "").split()
    read = [int(word.removeprefix("rbytes=")) for word in words if word.startswith("rbytes=")]
    return sum(read) if read else None


def _number(file: Path) -> int | None:
    text = try_read(file.read_text, OSError) or ""
    return int(text) if text.strip().isdigit() else None


def _table(file: Path) -> Mapping[str, int]:
    words = (line.split() for line in (try_read(file.read_text, OSError) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}
