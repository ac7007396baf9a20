"""Requests that an engine answers while something else is asked of it. Their times mean nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from enginebench.domain import ClosedLoop, Load
from enginebench.runner.engine import Engine

_INPUT, _OUTPUT = 64, 64
_PATIENCE_S = 120.0


@dataclass
class Beside:
    streams: int
    answered: int = 0
    error: str = ""

    @property
    def text(self) -> str:
        """'7 streams of 64 + 64 tokens, 420 requests answered'."""
        return f"{self.streams} streams of {_INPUT} + {_OUTPUT} tokens, {self.answered} requests answered"


@contextmanager
def serving(engine: Engine, load: Load, streams: int) -> Iterator[Beside]:
    """Keep so many streams of requests in the engine while the block runs. ValueError if there is no room for any, or none succeeded."""
    if streams < 1:
        raise ValueError("the deployment holds one request at a time (max_concurrency 1): there is no room for a load")
    length = min(_INPUT, max(1, engine.launch.deployment.max_context - _OUTPUT))
    other = ClosedLoop(
        concurrency=streams, requests=streams, input_tokens=length, output_tokens=_OUTPUT, api=load.api, timeout_s=load.timeout_s,
        warmup_requests=0,
    )  # fmt: skip
    beside, stop, begun = Beside(streams), threading.Event(), threading.Event()

    def serve() -> None:
        number = 0
        while not stop.is_set():
            prompts = engine.prompts.make(other, streams, salt=f"beside/{number}")
            number += 1
            begun.set()
            try:
                result = engine.run(prompts, other)
            except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  # it is reported, and ends this thread only
                beside.error = f"{type(error).__name__}: {error}"
                return
            answered = sum(sample.outcome == "ok" for sample in result.samples)
            beside.answered += answered
            if not answered:
                beside.error = next((sample.error or sample.outcome for sample in result.samples), "nothing was sent")
                return

    thread = threading.Thread(target=serve, name="beside", daemon=True)
    thread.start()
    begun.wait(_PATIENCE_S)
    try:
        yield beside
    finally:
        stop.set()
        thread.join(_PATIENCE_S + load.timeout_s)
    if beside.error or not beside.answered:
        raise ValueError(f"the load beside it was not served: {beside.error or 'no request was answered'}")
