"""What an engine takes of this machine: as a tree of processes, or as a container of the Docker daemon.

A container whose first process can be found here is read from its control group; else its daemon is asked (rootless, or on another
machine), which answers in steps of a second, and its process ids stay unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from enginebench.telemetry.source import Values, told

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.records.subject import Kind
    from enginebench.telemetry.cgroup import Cgroup

NS = 1e-9


class Processes:
    """All descendants of a process; that itself (a guardian, an init) is not counted."""

    kind: Kind = "processes"

    def __init__(self, name: str, root: int) -> None:
        self.name, self._root = name, root
        self.facts: Mapping[str, JSON] = {}
        self.pids: frozenset[int] = frozenset()

    def read(self) -> Values:
        found = list(descendants(self._root))
        self.pids = frozenset(process.pid for process in found)
        usage = [told(lambda p=process: (_cpu_s(p), p.memory_info().rss), psutil.Error) for process in found]  # type: ignore[misc]
        known = [one for one in usage if one is not None]
        ended = told(lambda: _children_s(psutil.Process(self._root)), psutil.Error)
        if ended is None or not known:
            return {}
        return {"cpu_s": ended + sum(cpu for cpu, _ in known), "memory_bytes": sum(rss for _, rss in known), "processes": len(known)}


def descendants(root: int) -> list[psutil.Process]:
    """The living descendants of a process; empty when it is gone."""
    return told(lambda: psutil.Process(root).children(recursive=True), psutil.Error) or []


def _cpu_s(process: psutil.Process) -> float:
    """Of the process and of those of its children that have ended and been waited for."""
    times = process.cpu_times()
    return float(times.user + times.system) + _children_s(process)


def _children_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.children_user + times.children_system)


class Container:
    """One container."""

    kind: Kind = "container"

    def __init__(self, name: str, ident: str, client: Any) -> None:
        self.name, self._id, self._client = name, ident, client
        self.facts: Mapping[str, JSON] = {}
        self._root, self._group = self._found_here()
        self.pids: frozenset[int] = frozenset()

    def read(self) -> Values:
        self.pids = frozenset(process.pid for process in descendants(self._root)) if self._root else frozenset()
        if self._group is not None:
            return self._group.read()
        said = told(lambda: self._client.api.stats(self._id, stream=False, one_shot=True), Exception)
        return values_of(said or {})

    def _found_here(self) -> tuple[int | None, Cgroup | None]:
        """Its first process and its control group, where they are this machine's: another daemon numbers processes in its own way."""
        from enginebench.telemetry.cgroup import cgroup_of

        said = told(lambda: self._client.api.inspect_container(self._id), Exception) or {}
        pid = int(said.get("State", {}).get("Pid") or 0)
        groups = told(Path(f"/proc/{pid}/cgroup").read_text, OSError) or ""
        return (pid, cgroup_of(groups, self._id)) if pid and self._id in groups else (None, None)


def values_of(said: Mapping[str, Any]) -> Values:
    """The daemon's statistics of a container; empty when it has ended. Without a quota there are no periods."""
    cpu, memory = said.get("cpu_stats") or {}, said.get("memory_stats") or {}
    usage, held = cpu.get("cpu_usage") or {}, cpu.get("throttling_data") or {}
    if not usage.get("total_usage"):
        return {}
    return dict(_values(usage, held, memory))


def _values(usage: Mapping[str, Any], held: Mapping[str, Any], memory: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    yield "cpu_s", usage["total_usage"] * NS
    detail = memory.get("stats") or {}
    cache = detail.get("inactive_file", detail.get("total_inactive_file", 0))  # cgroup 2, cgroup 1
    yield "memory_bytes", memory["usage"] - cache if "usage" in memory else None
    if held.get("periods"):
        yield "periods", held["periods"]
        yield "throttled_periods", held["throttled_periods"]
        yield "throttled_s", held["throttled_time"] * NS
