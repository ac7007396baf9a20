"""What every load needs, whatever its arrival process: connections, requests in flight, time-outs, totals.

Does not know: when a request is sent (`dispatch` decides), engines, metrics.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic_ns
from typing import Final

from enginebench.domain import Sample
from enginebench.loadgen import outcomes
from enginebench.loadgen.decode import Decoder
from enginebench.loadgen.exchange import Exchange
from enginebench.loadgen.request import LoadSpec, Progress, WireRequest
from enginebench.loadgen.saturation import SaturationWatch
from enginebench.loadgen.transport.connection import Connection
from enginebench.loadgen.transport.factory import open_transports

CONNECT_TIMEOUT_S: Final = 10.0
_WATCH_S: Final = 0.05
_WATCHES_PER_PROGRESS: Final = 5
_PAUSE_S: Final = 0.001
_SLICE_NS: Final = 100_000
"""Longest time spent decoding ended requests in one turn of the event loop."""
_IDS: Final = b"%08x-%04x-4000-8000-%012x\r\nContent-Length: %d\r\n\r\n"
"""A UUID that ends in the request's index (llama-cpp-python accepts only UUIDs), and the end of the headers."""
_TIMEOUTS_TO_STOP: Final = 2
"""The server hangs if this many consecutive requests time out and no response body arrives meanwhile."""
_MANY_PIECES: Final = 256
_MAX_UNSETTLED: Final = 2048
"""Most ended requests that wait to be decoded; bounds memory."""

OnProgress = Callable[[Progress], None]


class Client:
    """One load on one event loop. Use it from the coroutine that runs the load."""

    def __init__(self, spec: LoadSpec, on_progress: OnProgress | None = None) -> None:
        self.spec: Final = spec
        self.reconnects = 0
        self.stale = 0
        """Requests sent again because the server closed a keep-alive connection."""
        self.reuse = True
        """Whether connections are reused. False once the server closed a keep-alive connection on a request; then each request gets a
        new connection, opened before the request is due."""
        self.samples: dict[int, Sample] = {}
        """Sample of every attempted request, by index."""
        self.arrived = self.departed = 0
        """Open-loop sessions that fell due (sent or not) and that have ended. `dispatch` counts them."""
        self.stopped: str | None = None
        """Why the load was stopped; None while it runs."""
        self._on_progress = on_progress
        self._in_flight: dict[Exchange, Connection] = {}  # in order of sending, so the oldest deadline is always the first
        self._connections: set[Connection] = set()
        self._heads: dict[str, bytes] = {}
        self._addresses: list[str] = []
        self.transports: Final = open_transports(spec.target, spec.stamps, spec.acks)
        self._ended = self._failed = 0
        self._pace_s: tuple[float, float] | None = None
        self._start_ns = self._last_response_ns = 0
        self._completed = self._last_completed = self._events = 0
        self._consecutive_timeouts = 0
        """Requests that timed out since the last response body."""
        self._unsettled: deque[Exchange] = deque()
        self._settler: asyncio.TimerHandle | None = None
        self._watches = 0
        self._watcher: asyncio.TimerHandle | None = None
        self._on_stop: Callable[[BaseException | None], None] | None = None
        self.saturated = False
        """The load was stopped because the server cannot keep up with the arrival rate."""
        self._saturation = SaturationWatch(spec.dispersion) if spec.dispersion is not None else None

    # -- the window ------------------------------------------------------------------------------------------------------

    def begin(self, on_stop: Callable[[BaseException | None], None]) -> None:
        """Open the window. on_stop is called once if the client stops early, with the exception if it is an internal error."""
        self._on_stop = on_stop
        self._start_ns = self._last_response_ns = monotonic_ns()
        self._watcher = asyncio.get_running_loop().call_later(_WATCH_S, self._watch)

    def stop(self, reason: str, error: BaseException | None = None) -> None:
        if self.stopped is not None:
            return
        self.stopped = reason
        if self._on_stop is not None:
            self._on_stop(error)
        now = monotonic_ns()
        self._time_out(now)
        for exchange, connection in list(self._in_flight.items()):
            connection.fail(exchange, outcomes.CANCELLED, reason, now)

    async def close(self) -> None:
        """End the window: decode what is left, close every connection and wait until the event loop has closed them."""
        self._settle_all()
        if self._watcher is not None:
            self._watcher.cancel()
        if self.stopped is None and self._on_progress is not None:
            self._on_progress(self._progress())
        for connection in self._connections:
            connection.abort()
        for _ in range(100):
            if all(connection.closed for connection in self._connections):
                break
            await asyncio.sleep(0.001)
        self.transports.close()
        self._settle_all()
        self._connections.clear()
        self._watcher = self._on_stop = None  # break reference cycles: the garbage collector is off

    # -- connections and requests ----------------------------------------------------------------------------------------

    async def connect(self) -> Connection:
        """Open a connection, including the TLS handshake. Raises OSError, or TimeoutError if it takes too long."""
        limit_s = min(CONNECT_TIMEOUT_S, self.spec.timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                return await self._connect()
        except TimeoutError:
            raise TimeoutError(f"no connection within {limit_s:g} s") from None

    async def _connect(self) -> Connection:
        target, loop = self.spec.target, asyncio.get_running_loop()
        error: OSError = OSError(f"{target.host} has no address")
        if not self._addresses:
            found = await loop.getaddrinfo(target.host, target.port, type=1)
            self._addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in self._addresses:
            connection = Connection(self)
            try:
                await self.transports.connect(address, target.port, connection)
            except OSError as failure:
                error = failure
                continue
            self._addresses = [address]  # resolve once, and keep the address that worked
            self._connections.add(connection)
            if not connection.usable:
                self.drop(connection)
                raise ConnectionResetError("closed as soon as it was open")
            return connection
        raise error

    def drop(self, connection: Connection) -> None:
        connection.abort()
        if connection.closed:
            self._connections.discard(connection)

    def send(
        self, connection: Connection, request: WireRequest, replies: Sequence[bytes], due_ns: int, on_end: Callable[[Exchange], None]
    ) -> None:
        """Send one request on a usable connection and call on_end when it has ended. replies: JSON-escaped text of the previous turns."""
        sample = self._sample(request, due_ns)
        decoder = Decoder(sample, self.spec.dialect, keep_text=self.spec.keep_text)
        exchange = Exchange(sample, decoder, on_end)
        body = request.body
        if not isinstance(body, bytes):
            body = b"".join([piece if isinstance(piece, bytes) else replies[piece] for piece in body])
        tail = _IDS % (self._start_ns >> 16 & 0xFFFFFFFF, self._start_ns & 0xFFFF, request.index, len(body))
        message = self._head(request.path) + tail + body
        self._in_flight[exchange] = connection
        connection.send(exchange, message)
        if request.abort_ns:
            asyncio.get_running_loop().call_later(request.abort_ns / 1e9, self._abort, exchange, connection, request.abort_ns)

    def _abort(self, exchange: Exchange, connection: Connection, after_ns: int) -> None:
        if exchange in self._in_flight and self.stopped is None:
            connection.fail(exchange, outcomes.ABORTED, f"aborted by the load after {after_ns / 1e9:g} s", monotonic_ns())

    def unreachable(self, request: WireRequest, due_ns: int, outcome: str, message: str, *, late: bool = False) -> None:
        """Record a request that got no connection. late: connecting timed out."""
        self._consecutive_timeouts += late
        sample = self._sample(request, due_ns)
        sample.outcome, sample.error, sample.end_ns = outcome, message, monotonic_ns()
        self._ended += 1
        self._failed += 1

    def _sample(self, request: WireRequest, due_ns: int) -> Sample:
        sample = Sample(request.index, request.asked_input_tokens, request.asked_output_tokens, due_ns)
        sample.conversation, sample.turn = request.conversation, request.turn
        sample.outcome = outcomes.CANCELLED  # until it has ended
        self.samples[request.index] = sample
        return sample

    def _head(self, path: str) -> bytes:
        """Everything before the value of X-Request-Id. That header lets an engine's log be matched with the samples."""
        head = self._heads.get(path)
        if head is None:
            target = self.spec.target
            lines = [f"POST {path} HTTP/1.1", f"Host: {target.authority}"]
            lines += ["Content-Type: application/json", "Accept: text/event-stream, application/json", "Accept-Encoding: identity"]
            lines += [f"{name}: {value}" for name, value in target.headers.items()]
            head = self._heads[path] = ("\r\n".join(lines) + "\r\nX-Request-Id: ").encode("latin-1")
        return head

    # -- callbacks of connections ----------------------------------------------------------------------------------------

    def ended(self, exchange: Exchange) -> None:
        self._in_flight.pop(exchange, None)
        if exchange.stale and self.stopped is None:
            self.stale += 1
            exchange.on_end(exchange)
            return
        if exchange.sample.conversation >= 0:
            self._settle(exchange)  # the next turn needs the answer
            exchange.on_end(exchange)
            return
        exchange.on_end(exchange)
        if exchange.unsettled > _MANY_PIECES:  # bound memory
            self._settle(exchange)
            return
        # Streams that start together end together, and first tokens of the next requests are about to arrive: decode a little later.
        self._unsettled.append(exchange)
        if len(self._unsettled) > _MAX_UNSETTLED:
            self._settle(self._unsettled.popleft())
        elif self._settler is None:
            self._settler = asyncio.get_running_loop().call_later(_PAUSE_S, self._settle_some)

    def _settle_some(self) -> None:
        self._settler = None
        deadline_ns = monotonic_ns() + _SLICE_NS
        while self._unsettled and monotonic_ns() < deadline_ns:
            try:
                self._settle(self._unsettled.popleft())
            except Exception as error:  # noqa: BLE001 -- an internal error: server errors are outcomes, not exceptions
                self.stop("the load generator failed", error)
        if self._unsettled:
            self._settler = asyncio.get_running_loop().call_later(_PAUSE_S, self._settle_some)

    def _settle_all(self) -> None:
        if self._settler is not None:
            self._settler.cancel()
            self._settler = None
        while self._unsettled:
            self._settle(self._unsettled.popleft())

    def _settle(self, exchange: Exchange) -> None:
        """Decode the rest of an ended exchange and add it to the totals."""
        exchange.settle()
        self._ended += 1
        self._completed += exchange.complete
        self._events += exchange.events
        self._failed += exchange.sample.outcome not in outcomes.WANTED
        self._pace_s = exchange.pace_s or self._pace_s

    # -- time-outs, hung servers and progress: checked every 50 ms, which costs less than one timer per request ------------

    def _watch(self) -> None:
        try:
            running = self._check()
        except Exception as error:  # noqa: BLE001 -- without this check nothing would ever time out
            self.stop("the load generator failed", error)
        else:
            if running:
                self._watcher = asyncio.get_running_loop().call_later(_WATCH_S, self._watch)

    def _check(self) -> bool:
        """Apply time-outs, detect hung and saturated servers, report progress. Returns whether the load continues."""
        now = monotonic_ns()
        # A hung engine may still send headers. Only response body, or any complete response, shows that the server works.
        alive = self._completed > self._last_completed or self.transports.last_event_ns > self._last_response_ns
        alive = alive or any(exchange.body_since(self._last_response_ns) for exchange in self._in_flight)
        if alive:
            self._last_completed, self._last_response_ns, self._consecutive_timeouts = self._completed, now, 0
        self._time_out(now)
        # While other requests are served, two may time out because they queued too long; wait the full time-out before stopping.
        patience_s = self.spec.timeout_s if self._in_flight else min(CONNECT_TIMEOUT_S, self.spec.timeout_s)
        if self._consecutive_timeouts >= _TIMEOUTS_TO_STOP and now - self._last_response_ns >= patience_s * 1e9:
            self.stop(f"no response from the server while {self._consecutive_timeouts} consecutive requests timed out")
            return False
        self._watches += 1
        if self._saturation is not None and self._watches % _WATCHES_PER_PROGRESS == 0:
            verdict = self._saturation.observe((now - self._start_ns) / 1e9, self.arrived, self.departed)
            if verdict is not None:
                self.saturated = True
                self.stop(verdict)
                return False
        if self._on_progress is not None and self._watches % _WATCHES_PER_PROGRESS == 0:
            try:
                self._on_progress(self._progress())
            except BaseException as error:  # noqa: BLE001 -- the arrival process raises it where the caller can see it
                self.stop("the progress callback failed", error)
                return False
        return True

    def _time_out(self, now: int) -> None:
        limit_ns = int(self.spec.timeout_s * 1e9)
        for exchange, connection in list(self._in_flight.items()):
            if now - exchange.sample.sent_ns < limit_ns:
                return
            self._consecutive_timeouts += 1
            connection.fail(exchange, outcomes.TIMEOUT, f"not complete after {self.spec.timeout_s:g} s", now)

    def _progress(self) -> Progress:
        return Progress(
            requests=len(self.spec.requests),
            sent=len(self.samples),
            ended=self._ended,
            failed=self._failed,
            events=self._events + sum(exchange.events for exchange in self._in_flight) + self.transports.pending,
            elapsed_s=(monotonic_ns() - self._start_ns) / 1e9,
            arrived=self.arrived,
            departed=self.departed,
            pace_s=self._pace_s,
        )
