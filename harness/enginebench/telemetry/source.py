"""What the sampler reads: something with a name that gives its values of this moment. Knows no vendor, no daemon and no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from enginebench.domain import JSON
    from enginebench.records.subject import Kind

Values: TypeAlias = Mapping[str, float | None]
"""Under the names of `subject.VALUES`; None, or left out, where the source does not say."""
T = TypeVar("T")


class Source(Protocol):
    """One subject that can be read. `read` raises nothing."""

    @property
    def kind(self) -> Kind: ...

    @property
    def name(self) -> str: ...

    @property
    def facts(self) -> Mapping[str, JSON]: ...

    def read(self) -> Values: ...


def told(ask: Callable[[], T], refusals: type[BaseException] | tuple[type[BaseException], ...]) -> T | None:
    """What a driver answers; None where it refuses or this device has no such thing."""
    try:
        return ask()
    except refusals:
        return None


def compute_processes(pids: frozenset[int] | None, ours: frozenset[int]) -> dict[str, float | None]:
    """How many of a device's processes are the engine's, somebody else's, or of a process namespace that is not visible from here."""
    if pids is None:
        return {"ours": None, "others": None, "unseen": None}
    others = pids - ours
    visible = {pid for pid in others if Path(f"/proc/{pid}").exists()}
    return {"ours": len(pids & ours), "others": len(visible), "unseen": len(others - visible)}
