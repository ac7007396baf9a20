"""Entry point of the load generator: sends one load from one or more client processes, here or on other hosts.

Synchronous, with plain data in and out, so it also works in a worker process.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic_ns
from typing import TYPE_CHECKING

from enginebench.domain import Sample
from enginebench.loadgen import outcomes
from enginebench.loadgen.client import OnProgress
from enginebench.loadgen.client_process import run_part
from enginebench.loadgen.health import health_of
from enginebench.loadgen.open_files import allow_open_files
from enginebench.loadgen.request import HostShare, LoadResult, LoadSpec, WorkerResult

if TYPE_CHECKING:
    from enginebench.loadgen.remote.host import ClientHost


def run_load(spec: LoadSpec, on_progress: OnProgress | None = None, *, processes: int = 1, hosts: Sequence[ClientHost] = ()) -> LoadResult:
    """Send a load and return its raw samples.

    A server error never raises: every attempted request has a sample with its outcome. Ctrl-C and cancellation end the load and return
    the samples so far, with `stopped='interrupted'`. on_progress is called at most four times per second for each client process, and must
    be fast; an exception that it raises ends the load and is raised here. processes: number of client processes, for more streams or
    events than one core can handle. hosts: clients that send it in the place of this machine, each from so many processes; ClientLost if
    one of them is lost.
    """
    results, shares = _send(spec, on_progress, processes, hosts)
    samples = sorted((sample for result in results for sample in result.samples), key=lambda sample: sample.index)
    end_marks = _fail_cut_streams(samples, spec.end_marks)
    now = monotonic_ns()
    start_ns = min((sample.sent_ns for sample in samples if sample.sent_ns), default=now)
    end_ns = max((sample.end_ns for sample in samples if sample.sent_ns), default=now)
    scheduled = any(request.due_ns is not None for request in spec.requests)
    health = health_of(samples, spec.concurrency, [result.vitals for result in results], scheduled=scheduled)
    stopped = next((result.stopped for result in results if result.stopped), None)
    saturated = any(result.saturated for result in results)
    nodelay = all(result.vitals.server_nodelay for result in results) and all(sample.outcome == outcomes.OK for sample in samples)
    unsent = len(spec.requests) - len(samples)
    return LoadResult(samples, start_ns, end_ns, health, stopped, saturated, unsent, end_marks, nodelay, tuple(shares))


def _send(
    spec: LoadSpec, on_progress: OnProgress | None, processes: int, hosts: Sequence[ClientHost]
) -> tuple[list[WorkerResult], Sequence[HostShare]]:
    if hosts:
        from enginebench.loadgen.remote.worker import run_on_hosts

        return run_on_hosts(spec, on_progress, hosts, processes)
    processes = min(processes, spec.concurrency or processes, max(1, len(spec.requests)))
    allow_open_files(spec)  # client processes inherit the limit
    if processes == 1:
        return [run_part(spec, on_progress)], ()
    from enginebench.loadgen.workers import run_parts

    return run_parts(spec, on_progress, processes), ()


def _fail_cut_streams(samples: Sequence[Sample], expected: frozenset[str]) -> frozenset[str]:
    """Fail each stream that ended without what most streams of this server end with, however properly its HTTP response ended: a proxy
    completes a body that an engine has left. Returns what streams are expected to end with."""
    ok = [sample for sample in samples if sample.outcome == outcomes.OK]
    kind = expected | {mark for mark in outcomes.END_MARKS if 2 * sum(mark in sample.end_marks for sample in ok) > len(ok)}
    for sample in ok:
        if missing := [mark for mark in outcomes.END_MARKS if mark in kind - sample.end_marks]:
            sample.outcome = outcomes.CUT
            sample.error = f"the stream ended without {', '.join(missing)}, with which this server's other streams end"
    return kind
