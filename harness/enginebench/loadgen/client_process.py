"""Sends the part of a load that belongs to one client process, on its own event loop and with the garbage collector off.

Does not know: how many processes share the load.
"""

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

from enginebench.loadgen.client import Client, OnProgress
from enginebench.loadgen.dispatch import Dispatch
from enginebench.loadgen.health import SelfWatch, Vitals
from enginebench.loadgen.request import LoadSpec, WorkerResult

AwaitStart: TypeAlias = Callable[[Client], Awaitable[int]]
"""Called when the connections of a client process are open. Returns the instant at which all processes start (monotonic ns)."""


def run_part(spec: LoadSpec, on_progress: OnProgress | None = None, await_start: AwaitStart | None = None) -> WorkerResult:
    name, factory = _event_loop()
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_run(spec, on_progress, await_start, name))


async def _run(spec: LoadSpec, on_progress: OnProgress | None, await_start: AwaitStart | None, loop_name: str) -> WorkerResult:
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
        client.transports.waits_ms or watch.lag_ms,
        cpu_s=watch.cpu_s,
        wall_s=watch.wall_s,
        reconnects=client.reconnects,
        stale=client.stale,
        loop=loop_name,
        stamps=client.transports.stamps,
        unstamped=client.transports.unstamped,
        acks=client.transports.acks,
        server_nodelay=client.transports.server_nodelay,
    )
    return WorkerResult(list(client.samples.values()), vitals, client.stopped, client.saturated)


def idle_lag_ms(seconds: float = 1.0) -> float:
    """p99 lag of an idle event loop: the error that this machine adds to every time stamp even without a load."""

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
    """Turn garbage collection off while measuring: a full collection takes tens of milliseconds and delays every time stamp."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _event_loop() -> tuple[str, Callable[[], asyncio.AbstractEventLoop] | None]:
    """Name and factory: uvloop if installed (handles 1,024 streams), else asyncio's own loop (handles about 200)."""
    try:
        import uvloop
    except ImportError:
        return "asyncio", None
    return "uvloop", uvloop.new_event_loop
