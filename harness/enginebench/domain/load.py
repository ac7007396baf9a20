"""What is sent to a deployment, and when. Frozen plain data; `enginebench.workload` makes requests of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Length: TypeAlias = int | str
"""Tokens: a number, a distribution such as 'uniform(64,256)' (see `enginebench.workload.lengths`), or 'data': as the data set has it."""


@dataclass(frozen=True)
class Load:
    """What is sent to a deployment, and when.

    Arrivals: a *closed loop* keeps `concurrency` requests in flight, the next one sent the moment one ends. With `rate` (requests/s)
    or `trace` it is an *open loop*: requests are sent when they are due, whatever the server does, and `concurrency` is the most
    that may be in flight then (0: no limit). Conversations of `turns` take the place of single requests in both: the next turn
    goes out `think_s` after the answer to the one before.

    The load ends when `requests` have been sent or `duration_s` has passed, whichever is first. warmup_requests are sent before
    and never measured.
    """

    concurrency: int = 1
    rate: float | None = None
    rate_to: float | None = None
    """Where the rate ends, if it rises or falls linearly over the load."""
    arrivals: Literal["poisson", "gamma", "constant"] = "poisson"
    """Gaps between the due times of an open loop: exponential, gamma-distributed with shape `burstiness`, or all the same."""
    burstiness: float = 1.0
    """Shape of the gamma distribution; 1 is Poisson, below 1 requests come in bursts."""
    ramp_s: float = 0.0
    """Closed loop: the streams start one after another, spread over so many seconds."""
    trace: str | None = None
    """File with recorded arrivals and lengths; replaces rate, input_tokens and output_tokens."""
    time_scale: float = 1.0
    """Factor on a trace's times: 0.5 replays it twice as fast."""
    input_tokens: Length = 128
    output_tokens: Length = 64
    lengths: str | None = None
    """Pairs of input+output tokens to draw from, 'IN+OUT[*WEIGHT], ...'; replaces input_tokens and output_tokens."""
    requests: int = 16
    """With a duration, the most that may be sent; 0: as many as fit into it."""
    duration_s: float | None = None
    warmup_requests: int = 1
    prompts: str = "random"
    """'random', 'text', or a data set: 'sharegpt:FILE', 'jsonl:FILE[#COLUMN]', 'hf:ORG/NAME[:CONFIG][/SPLIT][#COLUMN]'."""
    prefix_groups: int = 0
    """Number of groups whose prompts share their first prefix_tokens (counted within input_tokens); 0: nothing is shared."""
    prefix_tokens: int = 0
    turns: int = 1
    think_s: float = 0.0
    api: Literal["completions", "chat"] = "completions"
    prefix_cache: Literal["cold", "allowed"] = "cold"
    temperature: float = 0.0
    seed: int = 0
    timeout_s: float = 600.0

    @property
    def open_loop(self) -> bool:
        """Whether requests are sent when they are due, whatever the server does."""
        return self.rate is not None or self.trace is not None

    @property
    def level(self) -> float:
        """How heavy the load is: streams of a closed loop, requests/s of an open one, replay speed of a trace."""
        return self.rate if self.rate is not None else 1 / self.time_scale if self.trace is not None else self.concurrency

    @property
    def level_text(self) -> str:
        """'1 stream', '64 streams', '2.5 req/s', '1 to 8 req/s', 'mooncake.jsonl x2' (a trace, twice as fast)."""
        if self.rate is not None:
            return f"{self.rate:g} req/s" if self.rate_to is None else f"{self.rate:g} to {self.rate_to:g} req/s"
        if self.trace is not None:
            return f"{self.trace.rpartition('/')[2]} x{1 / self.time_scale:g}"
        return f"{self.concurrency} stream{'s' if self.concurrency != 1 else ''}"

    @property
    def shape_text(self) -> str:
        """'128 + 64 tokens', 'uniform(64,256) + 64 tokens', '128+64, 2048+256 tokens'."""
        if self.trace is not None:
            return "the trace's lengths"
        return f"{self.lengths or f'{self.input_tokens} + {self.output_tokens}'} tokens"
