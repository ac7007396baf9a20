"""Input and output of the load generator as plain, picklable data: a request is bytes, a result is raw samples.

Does not know: engines, models, tokenizers, metrics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from enginebench.dialects import Dialect
from enginebench.domain import JSON, Sample
from enginebench.loadgen.clock import Clock
from enginebench.loadgen.health import Acks, ClientHealth, Stamps, Vitals


@dataclass(frozen=True)
class Target:
    host: str
    port: int
    tls: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    """Added to every request (Authorization, for example)."""
    ca_file: str | None = None
    """tls: PEM file with the certificates to trust; None: those of the system."""

    def __post_init__(self) -> None:
        for name, value in self.headers.items():
            if any(c in name + value for c in "\r\n\0"):
                raise ValueError(f"header {name!r} contains a line break")

    @property
    def authority(self) -> str:
        """host:port for the Host header (IPv6 in brackets)."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Body: TypeAlias = bytes | tuple[bytes | int, ...]
"""A complete JSON body; or, for a later turn of a conversation, its pieces, in which a number n stands for the JSON-escaped text
generated in turn n."""


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One POST, ready to send."""

    index: int
    """Returned as `Sample.index`."""
    path: str
    body: Body
    asked_input_tokens: int
    asked_output_tokens: int
    due_ns: int | None = None
    """Due time, from the start of the window. None: as soon as a stream is free (closed loop); for a later turn, think_ns after the
    end of the previous turn."""
    think_ns: int = 0
    conversation: int = -1
    """The requests of one conversation are adjacent in the list; -1: none."""
    turn: int = 0
    abort_ns: int = 0
    """Time from sending it until the client closes its connection, if it is still in flight; 0: never."""
    after: tuple[int, ...] = ()
    """Indices of requests of the same conversation that must have ended: it is due think_ns after the last of them, but not before due_ns.
    If any request of a conversation has such, all of them are sent by these, on any connection, and not turn after turn."""


@dataclass(frozen=True)
class LoadSpec:
    """Everything the load generator needs, picklable so that it can run in another process."""

    target: Target
    requests: Sequence[WireRequest]
    concurrency: int
    """Most requests in flight; 0: no limit, which needs a due time for every first turn."""
    dialect: Dialect
    timeout_s: float
    """Longest time of one request, from sent. If two consecutive requests of a client process time out (or cannot connect) and no
    response arrives for this long, the load stops: a hung server costs at most two time-outs, a hung request only itself."""
    keep_text: bool = False
    """Store the generated text in the samples."""
    ramp_ns: int = 0
    """The starts of a closed loop's streams are spread over this time."""
    duration_ns: int | None = None
    """Requests due later than this after the start of the window are not sent."""
    dispersion: float | None = None
    """Variance of the number of arrivals over its mean (1: Poisson). If given, an open loop stops as soon as it is saturated."""
    stamps: Stamps = "kernel"
    """'kernel': arrival time in the kernel, where the machine supports it (see `receiver`); 'loop': time of the event loop's read."""
    acks: Acks = "usual"
    """'probe': find out, with kernel time stamps and on every other connection, whether the server sends without waiting for
    acknowledgements. A server that waits is delayed by 40 ms per response on these connections, so probe only in warm-ups. 'delayed'
    costs less CPU time and suits servers that do not wait."""
    end_marks: frozenset[str] = frozenset()
    """What streams of this server end with, as its warm-up showed (`LoadResult.end_marks`)."""
    starts_ns: Sequence[int] | None = None
    """Start time of each stream of a closed loop; None: spread evenly over ramp_ns."""

    def __post_init__(self) -> None:
        if self.concurrency < 0 or (self.concurrency == 0 and any(r.due_ns is None and r.turn == 0 and not r.after for r in self.requests)):
            raise ValueError("a load without due times needs a concurrency of at least 1")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be positive, not {self.timeout_s}")


@dataclass(frozen=True)
class Progress:
    requests: int
    sent: int
    ended: int
    failed: int
    events: int
    """Output events so far, approximately."""
    elapsed_s: float
    arrived: int = 0
    """Open-loop sessions that fell due so far, sent or not."""
    departed: int = 0
    """Open-loop sessions that have ended."""
    pace_s: tuple[float, float] | None = None
    """TTFT and TPOT of the request that ended last."""


@dataclass(frozen=True)
class HostShare:
    """What one client host sent of a load, and how."""

    name: str
    """Its address, as it was given."""
    streams: int
    """Most requests in flight; 0: no limit."""
    requests: int
    """That it was given."""
    clock: Clock
    health: ClientHealth
    notes: Mapping[str, JSON] = field(default_factory=dict)
    """What the host says besides (see `remote.agent.Agent`)."""


@dataclass(frozen=True)
class LoadResult:
    samples: list[Sample] = field(repr=False)
    """One sample per attempted request, ordered by index."""
    window_start_ns: int
    """First send (monotonic)."""
    window_end_ns: int
    """Last end (monotonic)."""
    client: ClientHealth
    stopped: str | None = None
    """Why the load ended early: 'interrupted', or the reason for which the client stopped it."""
    saturated: bool = False
    """It was stopped because the server cannot keep up with the arrival rate."""
    unsent: int = 0
    """Requests without a sample: not attempted because the load was stopped or its duration elapsed."""
    end_marks: frozenset[str] = frozenset()
    """What most streams ended with (`outcomes.END_MARKS`). A stream that ended without one of these has the outcome 'cut'."""
    server_nodelay: bool = False
    """`LoadSpec.acks` was 'probe', every connection that could show it showed that the server does not wait for acknowledgements, and
    every request succeeded."""
    shares: tuple[HostShare, ...] = ()
    """Of the client hosts, if it was sent from other hosts."""


@dataclass(frozen=True)
class WorkerResult:
    """The result of one client process. The repr is short because asyncio formats the result of a task."""

    samples: list[Sample] = field(repr=False)
    vitals: Vitals
    stopped: str | None
    saturated: bool
