"""The clients that run against truthserver in their own process: enginebench with both kinds of time stamps, and `bare`, a control.

A client takes a case and a port. It returns for each request the id, when it was sent, and when each event arrived. Modules are imported
where they are used, because a client's memory is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from cases import LOOP, Case

if TYPE_CHECKING:
    from enginebench.loadgen.health import Stamps

WARM_UP_STREAMS, WARM_UP_TOKENS = 4, 16


def bodies(tokens: int, count: int) -> list[bytes]:
    prompt = [1] * 64
    asked = {"model": "truth", "prompt": prompt, "max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}}
    return [json.dumps({**asked, "user": f"u{i}"}).encode() for i in range(count)]


def enginebench_client(case: Case, port: int, stamps: Stamps = "kernel") -> dict[str, Any]:
    """enginebench's load generator, after a warm-up as in `bench run`. All events are decoded at the end."""
    from enginebench.dialects import OpenAICompletions
    from enginebench.loadgen import LoadSpec, Target, WireRequest, run_load

    dialect = OpenAICompletions()
    count = case.streams * case.rounds
    target = Target("127.0.0.1", port)
    (body,) = bodies(WARM_UP_TOKENS, 1)
    warm_up_requests = [WireRequest(count + i, dialect.path, body, 64, WARM_UP_TOKENS) for i in range(WARM_UP_STREAMS)]
    warm_up = LoadSpec(target, warm_up_requests, WARM_UP_STREAMS, dialect, 120.0, stamps=stamps, acks="probe")
    nodelay = run_load(warm_up).server_nodelay
    requests = [WireRequest(i, dialect.path, body, 64, case.tokens) for i, body in enumerate(bodies(case.tokens, count))]
    spec = replace(warm_up, requests=requests, concurrency=case.streams, acks="delayed" if nodelay else "usual")
    began = time.monotonic()
    result = run_load(spec, processes=case.processes)
    wall_s = time.monotonic() - began
    bad = [sample for sample in result.samples if sample.outcome != "ok"]
    if bad:
        sys.exit(f"{len(bad)} requests failed: {bad[0].outcome} {bad[0].error}")
    if result.client.stamps != stamps:
        sys.exit(f"no {stamps} time stamps")
    window_s = (result.window_end_ns - result.window_start_ns) / 1e9
    events = sum(len(sample.event_ns) for sample in result.samples)
    return {
        "samples": [(f"-{s.index:012x}", s.sent_ns, s.event_ns) for s in result.samples],
        "events": events,
        "window_s": window_s,
        "wall_s": wall_s,
        "cpu_s": result.client.cpu_s,
        "lag_p99_ms": result.client.lag_p99_ms,
    }


def bare_client(case: Case, port: int) -> dict[str, Any]:
    """The minimum cost of an event loop in Python: reads are stamped and dropped, nothing is parsed."""
    from array import array

    import uvloop
    from enginebench.loadgen.dispatch import START_SPACING_NS
    from enginebench.loadgen.timer import AbsoluteTimer

    count = case.streams * case.rounds
    messages = [
        b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nX-Request-Id: b-%d\r\nContent-Length: %d\r\n\r\n%b" % (i, len(body), body)
        for i, body in enumerate(bodies(case.tokens, count))
    ]
    left = iter(enumerate(messages))
    samples: list[tuple[str, int, array[int]]] = []
    ends: list[int] = []
    done: asyncio.Future[None]

    class Stream(asyncio.Protocol):
        stamps: array[int]

        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def send(self) -> None:
            index, message = next(left, (0, b""))
            if message:
                self.stamps = array("q")
                samples.append((f"-{index}", time.monotonic_ns(), self.stamps))
                self.transport.write(message)
            elif len(ends) == count and not done.done():
                done.set_result(None)

        def data_received(self, data: bytes) -> None:
            stamp = time.monotonic_ns()
            if not data.startswith(b"HTTP/") or data.find(b"\r\n\r\n") != len(data) - 4:  # not for the headers alone
                self.stamps.append(stamp)
            if data.endswith(b"\r\n0\r\n\r\n"):
                ends.append(stamp)
                self.send()

    async def main() -> tuple[float, float]:
        nonlocal done
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        streams = [(await loop.create_connection(Stream, "127.0.0.1", port))[1] for _ in range(case.streams)]
        began = time.process_time(), time.monotonic()
        for number, stream in enumerate(streams):
            at_ns = round(began[1] * 1e9) + number * START_SPACING_NS
            tick = asyncio.Event()
            timer = AbsoluteTimer(tick.set)
            timer.set(at_ns)
            await tick.wait()
            timer.close()
            stream.send()
        await done
        took = time.process_time() - began[0], time.monotonic() - began[1]
        for stream in streams:
            stream.transport.abort()
        await asyncio.sleep(0.01)  # let the loop close them
        return took

    cpu_s, window_s = uvloop.run(main())
    return {
        "samples": samples,
        "events": count * case.tokens // case.chunk,
        "window_s": window_s,
        "wall_s": window_s,
        "cpu_s": cpu_s,
    }


CLIENTS: Mapping[str, Callable[[Case, int], dict[str, Any]]] = {
    "enginebench": enginebench_client,
    LOOP: partial(enginebench_client, stamps="loop"),
    "bare": bare_client,
}
