"""Measures the CPU time to compute figures and verdict from raw samples: ten million events, on one core.

    python benchmarks/postprocessing.py            # 10,000 requests of 1,000 events

Includes everything that a report computes for a cell (window, tokens, metrics, percentiles, validity), but not reading Parquet.
"""

from __future__ import annotations

import statistics
import sys
import time

import numpy as np
from enginebench.analysis.rows import CellResult, result_of
from enginebench.domain import Cell, ClosedLoop, Deployment
from enginebench.metrics.context import RunContext
from enginebench.metrics.slo import PRESETS
from enginebench.records.cell import CellRecord, ClientFacts
from enginebench.records.samples import Samples

STREAMS = 256


def seconds(requests: int = 10_000, events: int = 1_000, repeats: int = 3) -> float:
    """Median CPU seconds from the samples of `requests` requests with `events` output events each to all figures."""
    samples = synthetic(requests, events)
    return statistics.median(_once(samples)[0] for _ in range(repeats))


def synthetic(requests: int, events: int) -> Samples:
    """A closed loop of STREAMS streams with gamma-distributed gaps of 10 ms on average and one token per event."""
    rng = np.random.default_rng(0)
    gaps = rng.gamma(4, 2.5e6, (requests, events)).astype(np.int64)
    number = np.arange(requests)
    sent = 10**15 + number // STREAMS * (events * 10_000_000 + 60_000_000) + number % STREAMS * 100_000
    arrivals = sent[:, None] + 40_000_000 + np.cumsum(gaps, axis=1)
    nothing, unknown = np.zeros(requests, np.int64), np.full(requests, -1, np.int64)
    return Samples(
        index=number, asked_input_tokens=nothing + 128, asked_output_tokens=nothing + events, due_ns=sent, sent_ns=sent, headers_ns=nothing,
        end_ns=arrivals[:, -1] + 1_000, input_tokens=nothing + 128, output_tokens=nothing + events, cached_tokens=unknown,
        status_code=nothing + 200, outcome=("ok",) * requests, error=(None,) * requests, finish_reason=(None,) * requests,
        event_ns=arrivals.ravel(), event_tokens=np.full(requests * events, -1, np.int32),
        event_chars=np.full(requests * events, 4, np.int32), offsets=np.arange(requests + 1) * events,
        server_timings=(None,) * requests, first_answer_ns=arrivals[:, 0].copy(), local_tokens=unknown, conversation=unknown,
        turn=nothing, reasoning_tokens=unknown,
    )  # fmt: skip


def _once(samples: Samples) -> tuple[float, CellResult]:
    cell = Cell(Deployment("none", "none", "none", "none"), ClosedLoop(concurrency=STREAMS, requests=len(samples)))
    limit = {"events_per_s": 1e6, "streams": 2048.0}
    record = CellRecord(cell.id, cell.launch_id, cell.deployment, cell.load, 0, "ok", identity="proven", client=ClientFacts(limit=limit))
    fresh = samples.within(None)  # without cached results of earlier rounds
    began = time.process_time()
    found = result_of(record, fresh, RunContext(slo=PRESETS["mlperf/mixtral-8x7b"]))
    return time.process_time() - began, found


if __name__ == "__main__":
    size = [int(argument) for argument in sys.argv[1:3]]
    print(f"{seconds(*size):.2f} s of CPU time")
