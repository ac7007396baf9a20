"""The entry point: one load, on an event loop of its own, with the garbage collector out of the way.

Does not know: who calls it. It is synchronous, takes plain data and returns plain data, so it works in a worker process too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
from collections.abc import Callable, Iterator, Sequence
from time import monotonic_ns
from typing import Final

from enginebench.dialects import Dialect
from enginebench.errors import UserError
from enginebench.loadgen.client import Client, OnProgress
from enginebench.loadgen.closed_loop import ClosedLoop
from enginebench.loadgen.health import SelfWatch
from enginebench.loadgen.request import LoadResult, LoadSpec, Target, WireRequest


def run_load(
    target: Target,
    requests: Sequence[WireRequest],
    *,
    concurrency: int,
    dialect: Dialect,
    timeout_s: float,
    idle_timeout_s: float | None = None,
    on_progress: OnProgress | None = None,
    keep_text: bool = False,
) -> LoadResult:
    """Drive a closed loop over `requests` and return their raw samples; see `LoadSpec` for the parameters.

    Nothing a server does raises: every request that was tried has a sample with its outcome. Ctrl-C and cancellation end the
    load and return what there is, with `stopped='interrupted'`. An exception of on_progress ends the load and is raised.
    on_progress is called at most four times a second, on the event loop: it must be quick.
    """
    allow_open_files(concurrency)
    spec = LoadSpec(target, requests, concurrency, dialect, timeout_s, idle_timeout_s, keep_text)
    return run_spec(spec, on_progress)


SPARE_FILES: Final = 64
"""Open files that the rest of the process may need beside one connection per stream."""


def allow_open_files(connections: int) -> None:
    """Raise this process's soft limit of open files as far as these connections need. UserError when the hard limit is lower.

    The usual soft limit of 1,024 cannot hold 1,024 streams; hitting it would look like a server that refuses connections.
    """
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise UserError(f"{connections} streams need {needed} open files, and this process may have {hard}", advice=f"ulimit -Hn {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def run_spec(spec: LoadSpec, on_progress: OnProgress | None = None) -> LoadResult:
    """`run_load`, from one picklable value."""
    name, factory = _event_loop()
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_run(spec, on_progress, name))


async def _run(spec: LoadSpec, on_progress: OnProgress | None, loop_name: str) -> LoadResult:
    client = Client(spec, on_progress)
    arrivals = ClosedLoop(client)
    watch = SelfWatch()
    with _quiet_garbage_collector():
        try:
            await arrivals.open()
            watch.start()
            await arrivals.run()
        except asyncio.CancelledError:
            client.stop("interrupted")
        finally:
            watch.stop()
            await client.close()
    client.backlog.drain()
    samples = sorted(client.samples, key=lambda sample: sample.index)
    now = monotonic_ns()
    start_ns = min((sample.sent_ns for sample in samples if sample.sent_ns), default=now)
    end_ns = max((sample.end_ns for sample in samples if sample.sent_ns), default=now)
    health = watch.report(samples, end_ns - start_ns, reads=client.reads, reconnects=client.reconnects, stale=client.stale, loop=loop_name)
    return LoadResult(samples, start_ns, end_ns, health, client.stopped, arrivals.unsent)


@contextlib.contextmanager
def _quiet_garbage_collector() -> Iterator[None]:
    """No collection while measuring: a full one takes tens of milliseconds, in which no token is stamped."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _event_loop() -> tuple[str, Callable[[], asyncio.AbstractEventLoop] | None]:
    """uvloop where it is installed (it holds 1,024 streams), asyncio's own loop elsewhere (it holds about 200)."""
    try:
        import uvloop
    except ImportError:
        return "asyncio", None
    return "uvloop", uvloop.new_event_loop
