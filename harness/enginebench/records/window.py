"""The measured part of a cell as plain data. It is found by `enginebench.metrics.window` whenever a run is read, and never stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["steady", "unsteady", "too short to tell", "changing by design"]


@dataclass(frozen=True)
class Window:
    """Where to measure, in ns of the client's clock, and whether the server was steady there.

    why: what that rests on, one clause. head_s, tail_s: what was cut off of the time from the first send to the last end.
    Never more than half is cut off. 'too short to tell' is no fault: there is no evidence for or against. 'changing by design' is none
    either: what is sent changes over the load, so the server had to.
    """

    start_ns: int
    end_ns: int
    state: State
    why: str
    head_s: float = 0.0
    tail_s: float = 0.0

    @property
    def length_s(self) -> float:
        """Length of the window."""
        return (self.end_ns - self.start_ns) / 1e9
