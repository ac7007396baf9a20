"""Reads CPU time and memory of an engine: as a process tree, or as a container.

A container is read from its control group if its first process is visible on this machine. Else (rootless daemon, or another machine) the
daemon is asked, which updates once per second, and the process ids stay unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from enginebench.telemetry.source import Values, try_read

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.records.subject import Kind
    from enginebench.telemetry.cgroup import Cgroup

NS = 1e-9


class Processes:
    """All descendants of a process, without the process itself (a guardian or init)."""

    kind: Kind = "processes"

    def __init__(self, name: str, root: int) -> None:
        self.name, self._root = name, root
        self.facts: Mapping[str, JSON] = {}
        self.pids: frozenset[int] = frozenset()

    def read(self) -> Values:
        found = list(descendants(self._root))
        self.pids = frozenset(process.pid for process in found)
        usage = [try_read(lambda p=process: (_cpu_s(p), p.memory_info().rss), psutil.Error) for process in found]  # type: ignore[misc]
        known = [one for one in usage if one is not None]
        ended = try_read(lambda: _children_s(psutil.Process(self._root)), psutil.Error)
        if ended is None or not known:
            return {}
        return {"cpu_s": ended + sum(cpu for cpu, _ in known), "memory_bytes": sum(rss for _, rss in known), "processes": len(known)}


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


class Container:
    """One container of the Docker daemon."""

    kind: Kind = "container"

    def __init__(self, name: str, ident: str, client: Any) -> None:
        self.name, self._id, self._client = name, ident, client
        self.facts: Mapping[str, JSON] = {}
        self._root, self._group = self._find_locally()
        self.pids: frozenset[int] = frozenset()

    def read(self) -> Values:
        self.pids = frozenset(process.pid for process in descendants(self._root)) if self._root else frozenset()
        if self._group is not None:
            return self._group.read()
        return values_of(try_read(lambda: self._client.api.stats(self._id, stream=False, one_shot=True), Exception) or {})

    def _find_locally(self) -> tuple[int | None, Cgroup | None]:
        """First process and control group, if they are on this machine (process ids of another daemon mean nothing here)."""
        from enginebench.telemetry.cgroup import cgroup_of

        info = try_read(lambda: self._client.api.inspect_container(self._id), Exception) or {}
        pid = int(info.get("State", {}).get("Pid") or 0)
        groups = try_read(Path(f"/proc/{pid}/cgroup").read_text, OSError) or ""
        return (pid, cgroup_of(groups, self._id)) if pid and self._id in groups else (None, None)


def values_of(stats: Mapping[str, Any]) -> Values:
    """Convert the daemon's statistics of a container; empty if it has ended. Without a CPU quota there are no periods."""
    usage = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
    return dict(_values(usage, stats)) if usage.get("total_usage") else {}


def _values(usage: Mapping[str, Any], stats: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    throttling, memory = stats["cpu_stats"].get("throttling_data") or {}, stats.get("memory_stats") or {}
    yield "cpu_s", usage["total_usage"] * NS
    detail = memory.get("stats") or {}
    cache = detail.get("inactive_file", detail.get("total_inactive_file", 0))  # cgroup 2, cgroup 1
    yield "memory_bytes", memory["usage"] - cache if "usage" in memory else None
    if throttling.get("periods"):
        yield "periods", throttling["periods"]
        yield "throttled_periods", throttling["throttled_periods"]
        yield "throttled_s", throttling["throttled_time"] * NS
