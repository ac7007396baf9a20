"""The kinds of load: a closed loop, an open loop at a rate, a replayed trace. Each says what its level is and how its requests arrive.

A kind is a subclass of `Load` that declares its own fields. `enginebench.domain` imports each module with kinds, which registers them.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from enginebench.domain.load import Load
from enginebench.domain.load_field import load_field, redeclared

_USUAL_WARMUP = 4
_USUAL_SECONDS = 60
_FEWEST_OPEN = 64
_FEWEST_CLOSED = 16
_PER_STREAM = 4


@dataclass(frozen=True, kw_only=True)
class ClosedLoop(Load):
    """Keeps `concurrency` requests in flight: each stream sends its next request when the last one has ended."""

    kind = "closed loop"
    in_every_record = True
    axis = "streams (concurrency)"
    key = None
    sends = "a closed loop sends the next request when one has ended"
    level_fields = ("concurrency",)

    concurrency: int = redeclared(Load, "concurrency", default=1, least=1)
    ramp_s: float = load_field(
        "Closed loop: seconds over which the streams start, one after another.",
        default=0.0, least=0, most=1_000_000, examples=(5,), unit="s",
    )  # fmt: skip

    @property
    def level(self) -> float:
        return self.concurrency

    @property
    def level_text(self) -> str:
        return f"{self.concurrency} stream{'s' if self.concurrency != 1 else ''}"

    def at_level(self, level: float) -> Self:
        return replace(self, concurrency=int(level))

    @property
    def start_spread_s(self) -> float:
        return self.ramp_s

    @property
    def needs_server(self) -> str | None:
        return super().needs_server or ("a ramp" if self.ramp_s > 0 else None)

    @property
    def usual_requests(self) -> int:
        return max(_FEWEST_CLOSED, _PER_STREAM * self.concurrency)


@dataclass(frozen=True, kw_only=True)
class ScheduledLoad(Load):
    """Requests are sent when they are due, whatever the server does. `concurrency` limits those in flight."""

    open_loop = True

    concurrency: int = redeclared(Load, "concurrency", default=0)

    @property
    def usual_warmup(self) -> int:
        return self.concurrency or _USUAL_WARMUP

    def uses(self, name: str) -> bool:
        return super().uses(name) and (name != "concurrency" or self.concurrency > 0)


@dataclass(frozen=True)
class RateSegment:
    """A time in which the rate of arrivals is constant or changes linearly."""

    length_s: float
    """Infinite for the last segment of a load."""
    first: float
    """Arrivals/s at its start."""
    last: float
    """Arrivals/s at its end."""

    @property
    def arrivals(self) -> float:
        return (self.first + self.last) / 2 * self.length_s


@dataclass(frozen=True, kw_only=True)
class DrawnLoad(ScheduledLoad):
    """Arrivals are drawn from a random process, at a rate that may change over time. A conversation arrives once."""

    arrivals: Literal["poisson", "gamma", "constant"] = load_field(
        "Gaps of an open loop: poisson (exponential), gamma (with `burstiness`) or constant.", default="poisson", role="arrivals"
    )
    burstiness: float = load_field(
        "arrivals: gamma: its shape; 1 is Poisson, below 1 requests come in bursts.",
        default=1.0, role="arrivals", above=0, most=1_000, needs=("arrivals", "gamma"),
    )  # fmt: skip

    @abstractmethod
    def segments(self) -> Sequence[RateSegment]:
        """The rate over time. The last segment never ends."""


@dataclass(frozen=True, kw_only=True)
class OpenLoop(DrawnLoad):
    """Sends requests at a rate, constant or with a linear rise or fall over the load."""

    kind = "open loop"
    in_every_record = True
    axis = "requests/s offered"
    key = "rate"
    sends = "an open loop sends each request when it is due"
    level_fields = ("rate", "rate_to")

    rate: float = load_field(
        "Open loop: requests (or conversations) per second, sent when due, whatever the server does.",
        role="level", above=0, most=1_000_000,
    )  # fmt: skip
    rate_to: float | None = load_field(
        "The rate rises or falls linearly from `rate` to this over the load.", default=None, role="level", above=0, most=1_000_000
    )

    def __post_init__(self) -> None:
        if self.rate_to == self.rate:
            object.__setattr__(self, "rate_to", None)

    @property
    def level(self) -> float:
        return self.rate

    @property
    def level_text(self) -> str:
        return f"{self.rate:g} req/s" if self.rate_to is None else f"{self.rate:g} to {self.rate_to:g} req/s"

    def at_level(self, level: float) -> Self:
        return replace(self, rate=float(level), rate_to=None)

    @property
    def change(self) -> str:
        return "" if self.rate_to is None else f"the rate changes from {self.level_text}"

    @property
    def mean_rate(self) -> float:
        return (self.rate + (self.rate if self.rate_to is None else self.rate_to)) / 2

    @property
    def dispersion(self) -> float | None:
        return {"constant": 0.0, "poisson": 1.0, "gamma": 1 / self.burstiness}[self.arrivals] if self.rate_to is None else None

    @property
    def usual_requests(self) -> int:
        return max(_FEWEST_OPEN, math.ceil(_USUAL_SECONDS * self.mean_rate))

    def segments(self) -> Sequence[RateSegment]:
        """A rate that changes does so over duration_s or, without it, for as long as `requests` take on average; then it stays."""
        if self.rate_to is None:
            return (RateSegment(math.inf, self.rate, self.rate),)
        length_s = self.duration_s or math.ceil(self.requests / self.turns) / self.mean_rate
        return RateSegment(length_s, self.rate, self.rate_to), RateSegment(math.inf, self.rate_to, self.rate_to)


@dataclass(frozen=True, kw_only=True)
class TraceReplay(ScheduledLoad):
    """Replays the arrivals and lengths of a recording."""

    kind = "trace"
    in_every_record = True
    axis = "replay speed (1: as recorded)"
    key = "trace"
    sends = "a trace brings its own arrivals"
    level_fields = ("time_scale",)
    excluded: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("input_tokens", "output_tokens", "lengths"), "a trace brings its own lengths"),
        "turns": "a trace brings its own requests",
    }
    ends = True
    source = "trace"
    change = "the arrivals are those of a recording"
    usual_requests = 0
    token_lengths = ("data", "data")
    shape_text = "the trace's lengths"
    main_fields = ("trace", "time_scale")

    trace: str = load_field(
        "Open loop: recorded arrivals, lengths, sessions and shared blocks to replay; relative to this file. Its format is known by its "
        "content, or stated: bailian:FILE (see docs/workloads.md).",
        role="level", examples=("requests.jsonl",),
    )  # fmt: skip
    time_scale: float = load_field(
        "Factor on a trace's times: 0.5 replays it twice as fast.", default=1.0, role="level", above=0, most=1_000
    )
    time_unit: Literal["s", "ms", "us", "ns"] | None = load_field(
        "Unit of a trace's times; default: that of its format, unless only another one is plausible, which a note says.",
        default=None,
        sparse=True,
    )

    @property
    def level(self) -> float:
        return 1 / self.time_scale

    @property
    def level_text(self) -> str:
        return f"{self.trace.rpartition('/')[2]} x{1 / self.time_scale:g}"

    def at_level(self, level: float) -> Self:
        return replace(self, time_scale=1 / level)
