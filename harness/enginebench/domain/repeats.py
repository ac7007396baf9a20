"""`repeats: auto`: after how many restarts a run looks at its result, and the error that each look may make. Pure.

Looking often and stopping at the first good result finds winners that are none: five looks at 5 % each make about 13 %. So the 5 % are
divided among the looks before the run (alpha spending; Lan and DeMets 1983), and their sum bounds the error, whatever the looks have in
common. The first look gets what the complete separation of 4 + 4 restarts needs, 2/70; the others share the rest equally.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

ERROR = 0.05
"""Of all looks together."""
FIRST_LOOK = 4
"""Restarts each: the fewest with which the exact rank test can be below 5 %."""
MOST = 64
_FIRST_ERROR = 0.0287
"""A little above 2/70, the smallest p of 4 + 4 restarts."""
_STEPS = (4, 6, 8, 12, 16, 24, 32, 48, 64)


Repeats: TypeAlias = int | Literal["auto"]
"""A fixed number of restarts, or `AutoRepeats`."""


@dataclass(frozen=True)
class AutoRepeats:
    """Restarts are added while they can still change an answer."""

    most: int = 12
    """Restarts of a deployment after which no more are added; FIRST_LOOK to MOST."""
    budget_s: float | None = None
    """Seconds of engine time (starts and cells) after which none are added; None: no limit."""

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """Restarts at which the result is looked at: 4, 6, 8, 12, 16, 24, ..., `most`."""
        return tuple(sorted({*(step for step in _STEPS if step < self.most), self.most}))

    @cached_property
    def errors(self) -> tuple[float, ...]:
        """For each look the probability with which it may name a winner that is none; together ERROR."""
        later = len(self.looks) - 1
        return (ERROR,) if not later else (_FIRST_ERROR, *[(ERROR - _FIRST_ERROR) / later] * later)
