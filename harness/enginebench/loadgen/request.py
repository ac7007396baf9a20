"""What goes into the load generator and what comes out of it: plain, picklable data.

Does not know: engines, models, tokenizers, metrics. A request is bytes, a result is raw samples; how the bytes were spelled
is the adapter's business and what the samples mean is the analysis's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from enginebench.dialects import Dialect
from enginebench.domain import Sample
from enginebench.loadgen.health import Acks, ClientHealth, Stamps, Vitals


@dataclass(frozen=True)
class Target:
    """The server under test. headers are added to every request (Authorization, for example)."""

    host: str
    port: int
    tls: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.headers.items():
            if any(c in name + value for c in "\r\n\0"):
                raise ValueError(f"header {name!r} holds a line break")

    @property
    def authority(self) -> str:
        """host:port as the Host header wants it (IPv6 in brackets)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Body: TypeAlias = bytes | tuple[bytes | int, ...]
"""A finished JSON body; or, for a later turn of a conversation, its pieces, where a number stands for the JSON-escaped text that
the server answered to that turn."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One POST, ready to send. index comes back as `Sample.index`.

    due_ns: when it is due, counted from the start of the window; None: as soon as a stream is free (closed loop) or, for a later
    turn, think_ns after the answer to the turn before. The requests of one conversation follow each other in the list.
    """

    index: int
    path: str
    body: Body
    asked_input_tokens: int
    asked_output_tokens: int
    due_ns: int | None = None
    think_ns: int = 0
    conversation: int = -1
    turn: int = 0


@dataclass(frozen=True)
class LoadSpec:
    """Everything a load generator needs, in one picklable piece, so that it can run in another process.

    concurrency: most requests in flight; 0: no limit, which needs a due time for every request (every first turn). ramp_ns: the
    streams of a closed loop start spread over so long. duration_ns: nothing that falls due later than this after the start of the
    window is sent.
    timeout_s bounds one request, from sent. Two requests of a client process that time out, or cannot connect in time, with nothing heard
    for as long, end the run: a hung server costs two time-outs at most and not one for each request, and one hung request only itself.
    dispersion: variance of the number of arrivals over its mean (1: Poisson); given, an open loop ends as soon as it is plain that
    the server can never keep up. stamps: 'kernel' for the time at which the kernel received a read, where the machine can do that
    (see `receiver`), or 'loop' for the time at which the event loop came to it. acks: 'probe' finds out on every other connection, where
    the kernel stamps, whether the server sends on without acknowledgements; one that does not is held up there by the kernel's delay
    (40 ms) in each response, so nothing that counts should be probed. 'delayed' is cheaper, and right for a server that sends on.
    starts_ns: when each stream of a closed loop starts; None: one after another over ramp_ns.
    """

    target: Target
    requests: Sequence[WireRequest]
    concurrency: int
    dialect: Dialect
    timeout_s: float
    keep_text: bool = False
    ramp_ns: int = 0
    duration_ns: int | None = None
    dispersion: float | None = None
    stamps: Stamps = "kernel"
    acks: Acks = "usual"
    starts_ns: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if self.concurrency < 0 or (self.concurrency == 0 and any(r.due_ns is None and r.turn == 0 for r in self.requests)):
            raise ValueError("a load without due times needs a concurrency of at least 1")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be positive, not {self.timeout_s}")


@dataclass(frozen=True)
class Progress:
    """Running totals of a load. ttft_s, tpot_s: of the request that ended last. events: output events so far, about. arrived, departed:
    sessions of an open loop that were due so far, sent or not, and that are over."""

    requests: int
    sent: int
    ended: int
    failed: int
    events: int
    elapsed_s: float
    arrived: int = 0
    departed: int = 0
    ttft_s: float | None = None
    tpot_s: float | None = None


@dataclass(frozen=True)
class LoadResult:
    """The samples of every request that was tried, in order of index, and the window they span (monotonic ns).

    The window runs from the first send to the last end. stopped: why the load ended before every request had been tried
    ('interrupted', or what made the client give up); saturated: that was because the server could never have kept up. unsent:
    how many were not tried and have no sample, because the load was stopped or its time was over. sends_on: while probing (`LoadSpec.acks`)
    the server was seen not to wait for acknowledgements, on every connection that could show it, and every request ended well.
    """

    samples: list[Sample] = field(repr=False)
    window_start_ns: int
    window_end_ns: int
    client: ClientHealth
    stopped: str | None = None
    saturated: bool = False
    unsent: int = 0
    sends_on: bool = False


@dataclass(frozen=True)
class WorkerResult:
    """What one client process brings home of a load. asyncio takes the repr of what a task returns, so that must be short."""

    samples: list[Sample] = field(repr=False)
    vitals: Vitals
    stopped: str | None
    saturated: bool
