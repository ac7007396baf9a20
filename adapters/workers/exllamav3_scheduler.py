"""Runs an engine that generates tokens in steps, in its own thread: requests join and leave its batch between two steps."""

import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

SWITCH_S = 0.0005
"""How long one thread may hold Python. The default of 5 ms is as long as a token, which would wait that long to be sent."""


@dataclass(frozen=True)
class Ask:
    """One generation. seed None: the engine chooses. ignore_eos: exactly max_tokens tokens."""

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
    """Token counts of a finished request. timings: the engine's own, in ms."""

    prompt: int
    cached: int
    output: int
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """What one step did for one request."""

    request: int
    text: str = ""
    """May lag behind its tokens by an incomplete character."""
    tokens: Sequence[int] = ()
    finish: str | None = None
    """'length', 'stop' or 'error'; None while it continues."""
    usage: Usage | None = None
    error: str = ""
    refused: bool = False
    """It never ran, because of the error."""


class Backend(Protocol):
    """A loaded engine. `encode`, `encode_chat`, `gauges` and `about` may be called while a step runs, the others only between steps."""

    def encode(self, text: str) -> list[int]:
        """A prompt as token ids, with the tokens that the model needs before every text."""

    def encode_chat(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """Messages through the model's own template. Raises ValueError for a model that has none."""

    def enqueue(self, request: int, ask: Ask) -> None:
        """Add a request to the engine's queue. Raises ValueError for one that can never run."""

    def cancel(self, request: int) -> None:
        """Drop a request that was enqueued and has not finished."""

    def step(self) -> list[Piece]:
        """One pass of the engine over its batch."""

    def gauges(self) -> Mapping[str, float]:
        """Totals (names that end in _total) and values of the moment."""

    def about(self) -> Mapping[str, object]:
        """The configuration in force."""

    def close(self) -> None:
        """Release devices and other processes."""


class Scheduler:
    """One engine, its thread, and the requests that are in flight."""

    def __init__(self, load: Callable[[], Backend], deliver: Callable[[list[Piece]], None], failed: Callable[[int], None]) -> None:
        """deliver and failed (with an exit code) are called in the engine's thread; after failed no further piece follows."""
        self._load, self._deliver, self._failed = load, deliver, failed
        self._inbox: queue.SimpleQueue[tuple[int, Ask | None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._live: set[int] = set()
        self._loading = True
        self.backend: Backend | None = None
        """None while the model loads."""

    def start(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._thread.start()

    def submit(self, request: int, ask: Ask) -> None:
        self._inbox.put((request, ask))

    def cancel(self, request: int) -> None:
        """Remove a request from the batch before the next step; no piece of it follows. A request that has finished is ignored."""
        self._inbox.put((request, None))

    def stop(self, patience_s: float) -> bool:
        """End after the running step. False if that takes longer, or while the model loads, which nothing interrupts."""
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
        except Exception as error:  # noqa: BLE001  # whatever an engine raises, its state is then unknown
            self._loading = False
            traceback.print_exc()
            broken = f"the engine failed: {type(error).__name__}: {error}"
            self._hand_out([Piece(request, finish="error", error=broken) for request in sorted(self._live)])
            self._failed(1)

    def _admit(self, backend: Backend) -> bool:
        """Process new requests and cancellations; waits while there are none. False: stop."""
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
