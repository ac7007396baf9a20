"""Reads a control group (version 1 or 2) from the kernel, which is faster than the daemon's statistics (updated once per second)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enginebench.telemetry.source import Values, try_read

ROOT = Path("/sys/fs/cgroup")
US, NS = 1e-6, 1e-9


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


def _number(file: Path) -> int | None:
    text = try_read(file.read_text, OSError) or ""
    return int(text) if text.strip().isdigit() else None


def _table(file: Path) -> Mapping[str, int]:
    """Parse lines of a name and a number."""
    words = (line.split() for line in (try_read(file.read_text, OSError) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in words if len(pair) == 2 and pair[1].isdigit()}
