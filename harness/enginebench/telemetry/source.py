"""Helpers of what the sampler reads. Does not know: vendors, daemons, clocks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias, TypeVar

Values: TypeAlias = Mapping[str, float | None]
"""Values by the names in `subject.VALUES`; None or absent if the source does not provide one."""
T = TypeVar("T")


def try_read(read: Callable[[], T], errors: type[BaseException] | tuple[type[BaseException], ...]) -> T | None:
    """The result of `read`, or None on one of these errors (an unsupported or refused query)."""
    try:
        return read()
    except errors:
        return None


def compute_processes(pids: frozenset[int] | None, engine_pids: frozenset[int]) -> dict[str, float | None]:
    """Number of a device's processes that belong to the engine, to others, or to a process namespace that is not visible here."""
    if pids is None:
        return {"ours": None, "others": None, "unseen": None}
    others = pids - engine_pids
    visible = {pid for pid in others if Path(f"/proc/{pid}").exists()}
    return {"ours": len(pids & engine_pids), "others": len(visible), "unseen": len(others - visible)}
