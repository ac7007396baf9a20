"""The load generator: one load, shared among as many client processes as were asked for.

Does not know: who calls it. It is synchronous, takes plain data and returns plain data, so it works in a worker process too.
"""

from __future__ import annotations

import resource
from time import monotonic_ns
from typing import Final

from enginebench.errors import UserError
from enginebench.loadgen import outcomes
from enginebench.loadgen.client import OnProgress
from enginebench.loadgen.client_process import run_part
from enginebench.loadgen.health import health_of
from enginebench.loadgen.request import LoadResult, LoadSpec


def run_load(spec: LoadSpec, on_progress: OnProgress | None = None, *, processes: int = 1) -> LoadResult:
    """Send a load and return its raw samples.

    Nothing a server does raises: every request that was tried has a sample with its outcome. Ctrl-C and cancellation end the
    load and return what there is, with `stopped='interrupted'`. An exception of on_progress ends the load and is raised.
    on_progress is called at most four times a second, on the event loop: it must be quick. processes: share the load among so
    many client processes, for more streams or events than one core can serve.
    """
    processes = min(processes, spec.concurrency or processes, max(1, len(spec.requests)))
    allow_open_files(spec)  # client processes inherit the limit
    if processes == 1:
        shares = [run_part(spec, on_progress)]
    else:
        from enginebench.loadgen.workers import run_parts

        shares = run_parts(spec, on_progress, processes)
    samples = sorted((sample for share in shares for sample in share.samples), key=lambda sample: sample.index)
    now = monotonic_ns()
    start_ns = min((sample.sent_ns for sample in samples if sample.sent_ns), default=now)
    end_ns = max((sample.end_ns for sample in samples if sample.sent_ns), default=now)
    scheduled = any(request.due_ns is not None for request in spec.requests)
    health = health_of(samples, spec.concurrency, [share.vitals for share in shares], scheduled=scheduled)
    stopped = next((share.stopped for share in shares if share.stopped), None)
    saturated = any(share.saturated for share in shares)
    sends_on = all(share.vitals.sends_on for share in shares) and all(sample.outcome == outcomes.OK for sample in samples)
    return LoadResult(samples, start_ns, end_ns, health, stopped, saturated, len(spec.requests) - len(samples), sends_on)


SPARE_FILES: Final = 64
"""Open files that the rest of the process may need beside one connection per stream."""


def allow_open_files(spec: LoadSpec) -> None:
    """Raise this process's soft limit of open files as far as the load needs. UserError when the hard limit is lower.

    The usual soft limit of 1,024 cannot hold 1,024 streams; hitting it would look like a server that refuses connections. How many
    connections an open loop without a limit needs is up to the server, so it gets what there is.
    """
    needed = (spec.concurrency or len(spec.requests)) + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        if spec.concurrency:
            message = f"{spec.concurrency} streams need {needed} open files, and this process may have {hard}"
            raise UserError(message, advice=f"ulimit -Hn {needed}")
        needed = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
