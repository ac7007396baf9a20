"""An open loop that changes its rate in steps within one cell: one phase per step."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import ClassVar, Self

from enginebench.domain.load import Phase
from enginebench.domain.load_field import fields_of, load_field
from enginebench.domain.loads import DrawnLoad, OpenLoop, RateSegment

_STEP = re.compile(r"(\d+(?:\.\d+)?)\s*@\s*(\d+(?:\.\d+)?)")
_MOST = 1_000_000


def parse_steps(text: str) -> tuple[tuple[float, float], ...]:
    """'2@30, 8@60' -> ((2.0, 30.0), (8.0, 60.0)): requests/s and seconds. ValueError for anything else."""
    found: list[tuple[float, float]] = []
    for part in text.split(","):
        match = _STEP.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"'{part.strip()}' is not a step RATE@SECONDS")
        rate, seconds = map(float, match.groups())
        if not (0 < rate <= _MOST and 0 < seconds <= _MOST):
            raise ValueError(f"'{part.strip()}': rate and seconds must be above 0 and at most {_MOST:,}")
        found.append((rate, seconds))
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class SteppedLoop(DrawnLoad):
    """Sends requests at one rate after another. `duration_s` follows from the steps."""

    kind = "stepped open loop"
    axis = "requests/s offered in the highest step"
    key = "steps"
    sends = "`steps` says when requests are sent"
    level_fields = ("steps",)
    excluded: ClassVar[Mapping[str, str]] = {"duration_s": "the steps say how long the load lasts"}
    ends = True
    usual_requests = 0

    steps: str = load_field(
        "Open loop: rates in steps, 'RATE@SECONDS, ...' in requests (or conversations) per second; e.g. '2@30, 8@30, 2@60'.",
        role="level", check=parse_steps, examples=("'2@30, 8@30, 2@60'",),
    )  # fmt: skip

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", _written(self._steps))
        object.__setattr__(self, "duration_s", sum(seconds for _, seconds in self._steps))

    @cached_property
    def _steps(self) -> tuple[tuple[float, float], ...]:
        return parse_steps(self.steps)

    @property
    def level(self) -> float:
        return max(rate for rate, _ in self._steps)

    @property
    def level_text(self) -> str:
        (rate, seconds), *others = self._steps
        return ", ".join([f"{rate:g} req/s for {seconds:g} s", *(f"{rate:g} for {seconds:g} s" for rate, seconds in others)])

    def at_level(self, level: float) -> Self:
        factor = level / self.level
        return replace(self, steps=_written(tuple((factor * rate, seconds) for rate, seconds in self._steps)))

    def phases(self) -> tuple[Phase, ...]:
        ends = list(accumulate(seconds for _, seconds in self._steps))
        return tuple(
            Phase(i, f"{rate:g} req/s", rate, end_s - seconds, end_s)
            for i, ((rate, seconds), end_s) in enumerate(zip(self._steps, ends, strict=True))
        )

    def in_phase(self, phase: Phase) -> OpenLoop:
        seconds = None if phase.end_s is None else phase.end_s - phase.start_s
        shared = {name: getattr(self, name) for name in fields_of(DrawnLoad)}
        return OpenLoop(**shared | {"rate": phase.level, "duration_s": seconds})

    @property
    def change(self) -> str:
        return f"the rate changes in {len(self._steps)} steps" if len(self._steps) > 1 else ""

    @property
    def mean_rate(self) -> float:
        return sum(rate * seconds for rate, seconds in self._steps) / sum(seconds for _, seconds in self._steps)

    def segments(self) -> Sequence[RateSegment]:
        last = self._steps[-1][0]
        return (*(RateSegment(seconds, rate, rate) for rate, seconds in self._steps), RateSegment(math.inf, last, last))


def _written(steps: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{rate:.12g}@{seconds:.12g}" for rate, seconds in steps)
