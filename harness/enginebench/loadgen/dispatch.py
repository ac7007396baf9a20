"""When each request goes out, and on which connection: closed loops, open loops, conversations, in one mechanism.

A *session* is a request, or the turns of a conversation one after another. A *lane* is a connection with at most one session on
it. In a closed loop all sessions wait from the beginning and a fixed number of lanes takes them, one after another. In an open
loop a session starts waiting when it is due; it takes an idle lane, or a new one if the limit allows. So a request of a closed
loop is due when its lane falls free, one of an open loop when the schedule says, on an absolute grid: lateness of one request
never moves the next, and `sent - due` shows it.

Does not know: sockets, streams, metrics, or where a schedule comes from.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import monotonic_ns
from typing import Final

from enginebench.loadgen.client import Client
from enginebench.loadgen.lane import Lane, Session
from enginebench.loadgen.request import WireRequest
from enginebench.loadgen.timer import AbsoluteTimer

_CONNECTS_AT_ONCE: Final = 64
"""Below the usual accept backlog of 128: an overflow would cost a SYN retransmission, one second."""
START_SPACING_NS: Final = 1_018_034
"""Between the first requests of two streams. Streams that begin together end together when lengths are equal, and begin together again:
all at the same instant, they would for ever come in waves, of prefills at the server and of stamps that wait for each other here.
Not a round figure, as a server may send its tokens every 5 or 10 ms: a tenth of the streams would share each of ten instants."""
_NEVER: Final = 2**63 - 1
_SPARE: Final = 16
"""Idle connections that an open loop keeps at hand, so that no request waits for a handshake."""
_SPIN_NS: Final = 100_000
"""From so long before an instant of a schedule on, the loop is turned without sleeping: no timer wakes up more exactly than this."""


class Dispatch:
    """Sends every session of a load and knows when all have ended."""

    def __init__(self, client: Client) -> None:
        self._client: Final = client
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        """What happens at which instant, in order: ns from the start while the window is not open yet, then absolute."""
        self._order = itertools.count()
        self._waiting: deque[tuple[Session, int | None]] = deque()
        """Sessions that could go out, with when they were due; None: when a lane falls free."""
        self._lanes: set[Lane] = set()
        self._idle: list[Lane] = []
        self._opening = 0
        self._closing = False
        """The time is over: what is in flight goes on, nothing new is begun."""
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: AbsoluteTimer | None = None
        self._spinning = False
        self._start_ns = 0
        sessions = sessions_of(client.spec.requests)
        self._left = len(sessions)
        """Sessions that have not ended."""
        self._limit = min(client.spec.concurrency or len(sessions), len(sessions))
        for session in sessions:
            if session[0].due_ns is None:
                self._waiting.append((session, None))
            else:
                self._at(session[0].due_ns, partial(self._release, session))
        self._closed_loop = bool(self._waiting)
        self._spin_ns = 0 if self._closed_loop else _SPIN_NS

    async def open(self) -> None:
        """Open connections before the window. One that fails is tried again by the first request that needs it."""
        count = self._limit if self._closed_loop else min(_SPARE, self._limit)
        lanes = [Lane(self, self._client) for _ in range(count)]
        for first in range(0, count, _CONNECTS_AT_ONCE):
            group = lanes[first : first + _CONNECTS_AT_ONCE]
            await asyncio.gather(*(lane.open() for lane in group))
            if not any(lane.usable for lane in group):
                break  # of a server that takes none, the first requests will tell
        if self._closed_loop:
            self._lanes.update(lanes)
            for lane, at_ns in zip(lanes, self._client.spec.starts_ns or starts(count, self._client.spec.ramp_ns), strict=False):
                self._at(at_ns, partial(self._begin_lane, lane, at_ns))
        else:
            self._idle = [lane for lane in lanes if lane.usable]
            self._lanes.update(self._idle)

    async def run(self, start_ns: int | None = None) -> None:
        """Send everything, counted from start_ns (None: from now); returns when all has ended, or the client has stopped."""
        self._start_ns = start = monotonic_ns() if start_ns is None else start_ns
        self._agenda = [(start + at, order, action) for at, order, action in self._agenda]  # still a heap
        if self._client.spec.duration_ns is not None:
            self._at(start + self._client.spec.duration_ns, self._close)
        self._timer = AbsoluteTimer(self._turn)
        self._client.begin(self._stopped)
        try:
            self._turn()
            await self._finished
        except asyncio.CancelledError:
            self._client.stop("interrupted")
            raise
        finally:
            self._timer.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            # All of these refer back to us, and it can take many loads until somebody looks for cycles.
            self._timer = None
            for held in (self._agenda, self._waiting, self._lanes, self._idle):
                held.clear()

    # -- the agenda ------------------------------------------------------------------------------------------------------

    def later(self, at_ns: int, action: Callable[[], None]) -> None:
        """Do something at an absolute instant, unless the time is over before."""
        self._at(at_ns, action)
        self._turn()

    def _at(self, at_ns: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (at_ns, next(self._order), action))

    def _turn(self) -> None:
        """Do what is due; then sleep until shortly before the next instant."""
        while self._agenda and not self._finished.done():
            at_ns = self._agenda[0][0]
            ahead_ns = at_ns - monotonic_ns()
            if ahead_ns <= 0:
                heapq.heappop(self._agenda)[2]()
                continue
            self._client.transports.free_until(at_ns - self._spin_ns)
            if ahead_ns > self._spin_ns:
                assert self._timer is not None  # noqa: S101
                self._timer.set(at_ns - self._spin_ns)
            elif not self._spinning:
                self._spinning = True
                asyncio.get_running_loop().call_soon(self._spun)  # the sockets are served meanwhile
            return
        self._client.transports.free_until(_NEVER)
        self._check_finished()

    def _spun(self) -> None:
        self._spinning = False
        self._turn()

    def _close(self) -> None:
        """The time is over. What was due in it and waits for a lane still goes out: leaving it out would hide that it waited."""
        self._closing = True
        self._agenda.clear()
        if self._closed_loop:
            self._waiting.clear()
        self._left = len(self._waiting) + sum(lane.in_flight for lane in self._lanes)
        self._check_finished()

    # -- sessions and lanes ----------------------------------------------------------------------------------------------

    def _begin_lane(self, lane: Lane, offset_ns: int) -> None:
        """A stream of a closed loop starts."""
        if self._waiting:
            lane.begin(self._waiting.popleft()[0], self._start_ns + offset_ns)

    def _release(self, session: Session) -> None:
        """A session of an open loop is due."""
        due_ns = self._start_ns + (session[0].due_ns or 0)
        self._client.arrived += 1
        lane = self._take_lane()
        if lane is not None:
            lane.begin(session, due_ns)
        else:
            self._waiting.append((session, due_ns))
        if len(self._idle) + self._opening < _SPARE // 2 and len(self._lanes) < self._limit and self._agenda:
            self._opening += 1
            self.spawn(self._open_spare(self._new_lane()))

    def _take_lane(self) -> Lane | None:
        while self._idle:
            lane = self._idle.pop()
            if lane.usable:
                return lane
            lane.close()  # the server has closed an idle connection
            self._lanes.discard(lane)
        return self._new_lane() if len(self._lanes) < self._limit else None

    def _new_lane(self) -> Lane:
        lane = Lane(self, self._client)
        self._lanes.add(lane)
        return lane

    async def _open_spare(self, lane: Lane) -> None:
        await lane.open()
        self._opening -= 1
        self.free(lane, monotonic_ns())

    def ended(self, lane: Lane, now: int) -> None:
        """A lane's session is over."""
        self._left -= 1
        self._client.departed += 1
        self.free(lane, now)
        self._check_finished()

    def free(self, lane: Lane, now: int) -> None:
        """A lane has nothing to do."""
        if self._client.stopped is None and self._waiting:
            session, due_ns = self._waiting.popleft()
            lane.begin(session, now if due_ns is None else due_ns)
        elif not self._closed_loop:
            self._idle.append(lane)

    @property
    def closing(self) -> bool:
        """Whether nothing new may be begun."""
        return self._closing or self._client.stopped is not None

    def _check_finished(self) -> None:
        if self._left == 0 and not self._finished.done():
            self._finished.set_result(None)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run something that has to wait; the task is held until it ends, as the event loop alone would let it be collected."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._client.stop("a bug in the load generator", error)

    def _stopped(self, error: BaseException | None) -> None:
        if self._finished.done():
            return
        if error is None:
            self._finished.set_result(None)
        else:
            self._finished.set_exception(error)


def starts(streams: int, ramp_ns: int) -> list[int]:
    """When each stream of a closed loop starts, in ns from the beginning of the load."""
    spacing = max(START_SPACING_NS, ramp_ns // max(1, streams))
    return [number * spacing for number in range(streams)]


def sessions_of(requests: Sequence[WireRequest]) -> list[Session]:
    """Each request alone, or with the other turns of its conversation."""
    sessions: list[Session] = []
    for conversation, group in itertools.groupby(requests, key=lambda request: request.conversation):
        turns = tuple(group)
        sessions += [turns] if conversation >= 0 else zip(turns)
    return sessions
