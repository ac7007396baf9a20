"""What can be wrong with a cell, as data: each check with the advice that goes with it, and a reason as one finding of a check.

Finds nothing itself: the other modules of `enginebench.validity` do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal, TypeAlias

Severity: TypeAlias = Literal["unranked", "suspect", "invalid"]
"""unranked: the figures are sound, and yet say nothing about which deployment is better."""


class Check(Enum):
    """What can be wrong with a cell, and the advice that goes with it."""

    CLIENT_BOUND = "the client, not the server, may be the limit: lower the concurrency or free the client's cores"
    RATE_NOT_ACHIEVED = "requests went out later than they were due: free the client's cores, or raise `concurrency` if it caps the load"
    OVERSATURATED = "the queue grew without bound: this rate is more than the server can take, lower it"
    NOT_STEADY = "the server was not in a steady state, so the figures depend on how long the load lasted: raise `requests` or `duration_s`"
    LENGTH_MISMATCH = "the server did not produce or count what was asked: does this engine honour a forced length?"
    COUNTS_DISAGREE = "output tokens were counted in two ways that differ: find out which is right before you trust either"
    CACHE_HITS = "prompt tokens came from a prefix cache although it was to be cold: switch the cache off or allow it in the load"
    PREEMPTED = "the KV cache is too small for this load: give it more memory, or lower the concurrency"
    QUEUED = "the batch was never large enough, so latencies hold the time in the queue: raise the engine's slots or lower the load"
    KV_FULL = "the KV cache, not the batch size, limits how many run at once: give it more memory, or a smaller type"
    GPU_THROTTLED = "the figures are those of its cooling or its power supply as well: cool it, or raise its limit, and measure again"
    GPU_SHARED = "part of the device, and of the energy, went into other work: end it or wait for it, and measure again"
    CPU_THROTTLED = "processors were held back: raise the container's `cpus`, or cool the machine, and measure again"
    CPU_STOLEN = "engine and client were paused at times that nobody chose: use a machine of your own, or measure when it is quiet"
    TIMINGS_DISAGREE = "something between engine and client holds tokens back or bundles them: look at proxies and at the client's load"
    BURST_DELIVERY = "many tokens arrived in one instant: TPOT and ITL describe the delivery, not the generation"
    FEW_EVENTS = "many tokens came in each event, so TTFT and TPOT describe the delivery: does something buffer the stream?"
    ENDED_EARLY = "the load was not the one that was asked for: find out what stopped it and measure the cell again"
    FAILED_REQUESTS = "some requests failed: see the outcomes of this cell"
    RANDOM_ROUTING = "marked, never ranked: use trained weights, or force the routing where the engine can"
    UNPROVEN_SERVER = "it could not be proven which process answered: compare the server's own log"
    FEW_REQUESTS = "too few requests to call this a steady load: raise `requests`"
    SHORT_WINDOW = "the measured window is shorter than half a second: raise `requests` or `output_tokens`"
    NO_COUNTS = "the server did not count its tokens, so throughput is unknown: ask it for usage"


@dataclass(frozen=True)
class Reason:
    """One thing that is wrong: which check, how bad, and the figures. withholds: metrics that mean nothing in this cell."""

    check: Check
    severity: Severity
    detail: str
    withholds: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.detail}; {self.check.value}"
