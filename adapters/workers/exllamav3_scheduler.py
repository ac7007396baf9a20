"""Runs an engine that makes tokens in steps, in a thread of its own: requests join and leave its batch between two steps.

Does not know HTTP, nor which engine it is: an engine is whatever keeps to `Backend`. Standard library only.
"""

from __future__ import annotations

import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

SWITCH_S = 0.0005
"""How long one thread may keep Python from the other. By default 5 ms: as long as a token, which would wait for it unsent."""


@dataclass(frozen=True)
class Ask:
    """One generation. seed None: the engine's own choice. ignore_eos: exactly max_tokens tokens, whatever they are."""

    prompt: Sequence[int]
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Usage:
    """What a finished request took, in tokens. timings: the engine's own, in ms."""

    prompt: int
    cached: int
    output: int
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """What one step did for one request: text, which may lag behind its tokens by an unfinished character, and how it ended if it did.

    finish: 'length', 'stop' or 'error', None while it goes on. error: why; refused: it never ran.
    """

    request: int
    text: str = ""
    tokens: Sequence[int] = ()
    finish: str | None = None
    usage: Usage | None = None
    error: str = ""
    refused: bool = False


class Backend(Protocol):
    """A loaded engine. `encode`, `encode_chat`, `gauges` and `about` may be called while a step runs, the others only between steps."""

    def encode(self, text: str) -> list[int]:
        """A prompt as token ids, with what the model wants to see in front of every text."""
        ...

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Messages through the model's own template. Raises ValueError for a model that has none."""
        ...

    def enqueue(self, request: int, ask: Ask) -> None:
        """Put a request into the engine's queue. Raises ValueError for one that can never run."""
        ...

    def cancel(self, request: int) -> None:
        """Forget a request that was enqueued and has not finished."""
        ...

    def step(self) -> list[Piece]:
        """One pass of the engine over its batch."""
        ...

    def gauges(self) -> Mapping[str, float]:
        """Totals (names that end in _total) and how it is now."""
        ...

    def about(self) -> Mapping[str, object]:
        """The configuration that is really in force."""
        ...

    def close(self) -> None:
        """Let go of devices and of other processes."""
        ...


class Scheduler:
    """One engine, its thread, and the requests that are in flight."""

    def __init__(self, load: Callable[[], Backend], deliver: Callable[[list[Piece]], None], failed: Callable[[], None]) -> None:
        """deliver and failed are called in the engine's thread; failed: no further piece will come."""
        self._load, self._deliver, self._failed = load, deliver, failed
        self._inbox: queue.SimpleQueue[tuple[int, Ask | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._live: set[int] = set()
        self._loading = True
        self.backend: Backend | None = None
        """None while it loads."""

    def start(self) -> None:
        """Begin to load; returns at once."""
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def submit(self, request: int, ask: Ask) -> None:
        """Have a request join the batch before the next step."""
        self._inbox.put((request, ask))

    def cancel(self, request: int) -> None:
        """Have a request leave the batch before the next step; no piece of it follows that step. One that has finished is no error."""
        self._inbox.put((request, None))

    def stop(self, patience_s: float) -> bool:
        """End after the step that is running. False if that takes longer, or if the model is being loaded: nothing interrupts a load."""
        self._inbox.put(None)
        if self._thread.is_alive() and not self._loading:
            self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.backend = backend = self._load()
            self._loading = False
            while self._admit(backend):
                if self._live:
                    self._hand_out(backend.step())
            backend.close()
        except Exception as error:  # noqa: BLE001  # whatever an engine raises, its state is unknown from here on
            self._loading = False
            traceback.print_exc()
            broken = f"the engine failed: {type(error).__name__}: {error}"
            self._hand_out([Piece(request, finish="error", error=broken) for request in sorted(self._live)])
            self._failed()

    def _admit(self, backend: Backend) -> bool:
        """Take in what has been asked for; sleeps while there is nothing to do. False: it is over."""
        while True:
            try:
                message = self._inbox.get(block=not self._live)
            except queue.Empty:
                return True
            if message is None:
                return False
            request, ask = message
            if ask is not None:
                self._enqueue(backend, request, ask)
            elif request in self._live:
                backend.cancel(request)
                self._live.remove(request)

    def _enqueue(self, backend: Backend, request: int, ask: Ask) -> None:
        try:
            backend.enqueue(request, ask)
        except ValueError as error:
            self._hand_out([Piece(request, finish="error", error=str(error), refused=True)])
        else:
            self._live.add(request)

    def _hand_out(self, pieces: list[Piece]) -> None:
        if pieces:
            self._live.difference_update(piece.request for piece in pieces if piece.finish)
            self._deliver(pieces)
