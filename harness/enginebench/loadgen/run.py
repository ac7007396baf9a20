"""The entry point: one load, on an event loop of its own, with the garbage collector out of the way.

Does not know: who calls it. It is synchronous, takes plain data and returns plain data, so it works in a worker process too.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
from collections.abc import Awaitable, Callable, Iterator
from time import monotonic_ns
from typing import Final, TypeAlias

from enginebench.errors import UserError
from enginebench.loadgen import outcomes
from enginebench.loadgen.client import Client, OnProgress
from enginebench.loadgen.dispatch import Dispatch
from enginebench.loadgen.health import SelfWatch, Vitals, health_of
from enginebench.loadgen.request import LoadResult, LoadSpec, Share

AwaitStart: TypeAlias = Callable[[Client], Awaitable[int]]
"""Called in a client process when its connections are open; returns the instant at which all processes begin (monotonic ns)."""


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
        shares = [run_share(spec, on_progress)]
    else:
        from enginebench.loadgen.workers import run_shares

        shares = run_shares(spec, on_progress, processes)
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


def run_share(spec: LoadSpec, on_progress: OnProgress | None = None, await_start: AwaitStart | None = None) -> Share:
    """The part of a load that this process sends. await_start: called when every connection is open; says when to begin."""
    name, factory = _event_loop()
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_run(spec, on_progress, await_start, name))


async def _run(spec: LoadSpec, on_progress: OnProgress | None, await_start: AwaitStart | None, loop_name: str) -> Share:
    client = Client(spec, on_progress)
    dispatch = Dispatch(client)
    watch = SelfWatch()
    with _quiet_garbage_collector():
        try:
            await dispatch.open()
            start_ns = await await_start(client) if await_start is not None else None
            watch.start()
            await dispatch.run(start_ns)
        except asyncio.CancelledError:
            client.stop("interrupted")
        finally:
            watch.stop()
            await client.close()
    vitals = Vitals(
        *(client.wires.waits_ms or watch.lag_ms),
        cpu_s=watch.cpu_s,
        wall_s=watch.wall_s,
        reconnects=client.reconnects,
        stale=client.stale,
        loop=loop_name,
        stamps=client.wires.stamps,
        unstamped=client.wires.unstamped,
        acks=client.wires.acks,
        sends_on=client.wires.sends_on,
    )
    return Share(list(client.samples.values()), vitals, client.stopped, client.saturated)


def idle_lag_ms(seconds: float = 1.0) -> float:
    """p99 of the lag of an event loop that does nothing: what the machine itself, and not a load, adds to every time stamp."""

    async def idle() -> float:
        watch = SelfWatch()
        watch.start()
        await asyncio.sleep(seconds)
        watch.stop()
        return watch.lag_ms[1]

    with asyncio.Runner(loop_factory=_event_loop()[1]) as runner:
        return runner.run(idle())


@contextlib.contextmanager
def _quiet_garbage_collector() -> Iterator[None]:
    """No collection while measuring: a full one takes tens of milliseconds, in which no token is stamped."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _event_loop() -> tuple[str, Callable[[], asyncio.AbstractEventLoop] | None]:
    """uvloop where it is installed (it holds 1,024 streams), asyncio's own loop elsewhere (it holds about 200)."""
    try:
        import uvloop
    except ImportError:
        return "asyncio", None
    return "uvloop", uvloop.new_event_loop
