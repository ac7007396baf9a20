"""What goes into the load generator and what comes out of it: plain, picklable data.

Does not know: engines, models, tokenizers, metrics. A request is bytes, a result is raw samples; how the bytes were spelled
is the adapter's business and what the samples mean is the analysis's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enginebench.dialects import Dialect
from enginebench.loadgen.health import ClientHealth
from enginebench.nouns import Sample


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


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One POST, ready to send: body is the finished JSON. index comes back as `Sample.index`."""

    index: int
    path: str
    body: bytes
    asked_input_tokens: int
    asked_output_tokens: int


@dataclass(frozen=True)
class LoadSpec:
    """Everything a load generator needs, in one picklable piece, so that it can run in another process.

    timeout_s bounds one request, from sent. idle_timeout_s bounds the silence of the whole server (None: as timeout_s): nothing
    but headers on any connection for that long ends the run, so a hung server costs one time-out and not one for each request.
    """

    target: Target
    requests: Sequence[WireRequest]
    concurrency: int
    dialect: Dialect
    timeout_s: float
    idle_timeout_s: float | None = None
    keep_text: bool = False

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {self.concurrency}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s must be positive, not {self.timeout_s}")


@dataclass(frozen=True)
class Progress:
    """Running totals of a load. failed counts what the transport knows; what a stream *says* is decoded later.

    ttft_s, tpot_s: of the request that ended last, taken from when the pieces of its body arrived. reads: about one per token.
    Both are for eyes only; results come from the decoded samples.
    """

    requests: int
    sent: int
    ended: int
    failed: int
    reads: int
    elapsed_s: float
    ttft_s: float | None = None
    tpot_s: float | None = None


@dataclass(frozen=True)
class LoadResult:
    """The samples of every request that was tried, in order of index, and the window they span (monotonic ns).

    The window runs from the first send to the last end. stopped: why the load ended before every request had been tried
    ('interrupted', or what made the client give up); unsent: how many then were not tried and have no sample.
    """

    samples: list[Sample]
    window_start_ns: int
    window_end_ns: int
    client: ClientHealth
    stopped: str | None = None
    unsent: int = 0
