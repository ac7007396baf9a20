"""The measured part of a cell as plain data. `enginebench.metrics.window` computes it whenever a run is read; it is never stored."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

State: TypeAlias = Literal["steady", "unsteady", "too short to tell", "changing by design"]


@dataclass(frozen=True)
class Window:
    """The part of a load that is measured, and whether the server was steady in it."""

    start_ns: int
    """On the client's monotonic clock."""
    end_ns: int
    """Inclusive, on the same clock."""
    state: State
    """Two states are not faults. 'too short to tell': there is no evidence. 'changing by design': the load itself changes over time."""
    why: str
    """What the state is based on, one clause."""
    head_s: float = 0.0
    """Time cut off after the first send. Head and tail together are at most half of the load."""
    tail_s: float = 0.0
    """Time cut off before the last end."""

    @property
    def length_s(self) -> float:
        """Length of the window."""
        return (self.end_ns - self.start_ns) / 1e9
