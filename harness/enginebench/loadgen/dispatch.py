"""Decides when each request is sent and on which connection: closed loops, open loops and conversations in one mechanism.

A *session* is one request, or the turns of one conversation in order. A *lane* is a connection with at most one session at a time.

Closed loop: all sessions wait from the start, and a fixed number of lanes takes them one after another. A request is due when its
lane becomes free. Open loop: a session starts to wait at its due time and takes an idle lane, or a new one if the limit allows. Due
times are absolute, so a late request does not delay later ones. Does not know: sockets, streams, metrics, or where a schedule comes from.
"""

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from time import monotonic_ns
from typing import Final

from enginebench.loadgen.branches import Branches, parts_of
from enginebench.loadgen.client import Client
from enginebench.loadgen.lane import Lane, Session
from enginebench.loadgen.request import WireRequest
from enginebench.loadgen.timer import AbsoluteTimer

_CONNECTS_AT_ONCE: Final = 64
"""Below the usual accept backlog of 128: an overflow would cost a SYN retransmission, one second."""
START_SPACING_NS: Final = 1_018_034
"""Time between the first requests of two streams. If all streams started at once and lengths were equal, requests would stay
synchronised for the whole load: prefills would come in waves, and reads here would queue. The value is not round because a server may
send tokens every 5 or 10 ms; with 1 ms, a tenth of the streams would share each of ten arrival times."""
_NEVER: Final = 2**63 - 1
_SPARE: Final = 16
"""Idle connections that an open loop keeps open, so that no request waits for a handshake."""
_SPIN_NS: Final = 100_000
"""The event loop runs without sleeping for this long before a due time, because timers are not more accurate than this."""


class Dispatch:
    """Sends every session of a load and knows when all have ended."""

    def __init__(self, client: Client) -> None:
        self._client: Final = client
        self._agenda: list[tuple[int, int, Callable[[], None]]] = []
        """Heap of (time, order, action). Times are relative to the start until the window opens, then absolute (ns)."""
        self._order = itertools.count()
        self._waiting: deque[tuple[Session, int | None]] = deque()
        """Sessions that wait for a lane, with their due times; None: due when a lane becomes free."""
        self._lanes: set[Lane] = set()
        self._idle: list[Lane] = []
        self._opening = 0
        self._closing = False
        """The duration has elapsed: requests in flight continue, no session starts."""
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: AbsoluteTimer | None = None
        self._spinning = False
        self._start_ns = 0
        sessions = [part for session in sessions_of(client.spec.requests) for part in parts_of(session)]
        self._branches = Branches(session[0] for session in sessions)
        self._left = len(sessions)
        """Sessions that have not ended."""
        self._limit = min(client.spec.concurrency or len(sessions), len(sessions))
        for session in sessions:
            if session[0].after:
                continue
            if session[0].due_ns is None:
                self._waiting.append((session, None))
            else:
                self._at(session[0].due_ns, partial(self._release, session))
        self._closed_loop = bool(self._waiting)
        self._spin_ns = 0 if self._closed_loop else _SPIN_NS

    async def open(self) -> None:
        """Open connections before the window starts. A connection that fails is retried by the first request that needs it."""
        count = self._limit if self._closed_loop else min(_SPARE, self._limit)
        lanes = [Lane(self, self._client) for _ in range(count)]
        for first in range(0, count, _CONNECTS_AT_ONCE):
            group = lanes[first : first + _CONNECTS_AT_ONCE]
            await asyncio.gather(*(lane.open() for lane in group))
            if not any(lane.usable for lane in group):
                break  # the server accepts no connections; the first requests record the error
        if self._closed_loop:
            self._lanes.update(lanes)
            for lane, at_ns in zip(lanes, self._client.spec.starts_ns or starts(count, self._client.spec.ramp_ns), strict=False):
                self._at(at_ns, partial(self._begin_lane, lane, at_ns))
        else:
            self._idle = [lane for lane in lanes if lane.usable]
            self._lanes.update(self._idle)

    async def run(self, start_ns: int | None = None) -> None:
        """Send all sessions, with times relative to start_ns (None: now). Returns when all have ended or the client has stopped."""
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
            # Break reference cycles: the garbage collector is off.
            self._timer = None
            for collection in (self._agenda, self._waiting, self._lanes, self._idle):
                collection.clear()

    # -- the agenda ------------------------------------------------------------------------------------------------------

    def later(self, at_ns: int, action: Callable[[], None]) -> None:
        """Call action at an absolute time, unless the duration ends before."""
        self._at(at_ns, action)
        self._turn()

    def _at(self, at_ns: int, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (at_ns, next(self._order), action))

    def _turn(self) -> None:
        """Run the actions that are due; then sleep until shortly before the next one."""
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
                asyncio.get_running_loop().call_soon(self._spun)  # sockets are still served in between
            return
        self._client.transports.free_until(_NEVER)
        self._check_finished()

    def _spun(self) -> None:
        self._spinning = False
        self._turn()

    def _close(self) -> None:
        """The duration has elapsed. Sessions already due still wait for a lane and are sent: dropping them would hide their delay."""
        self._closing = True
        self._agenda.clear()
        if self._closed_loop:
            self._waiting.clear()
        self._left = len(self._waiting) + sum(lane.in_flight for lane in self._lanes)
        self._check_finished()

    # -- sessions and lanes ----------------------------------------------------------------------------------------------

    def _begin_lane(self, lane: Lane, offset_ns: int) -> None:
        if self._waiting:
            lane.begin(self._waiting.popleft()[0], self._start_ns + offset_ns)

    def _release(self, session: Session, due_ns: int | None = None) -> None:
        """due_ns: an absolute time; None: that of the schedule."""
        due_ns = self._start_ns + (session[0].due_ns or 0) if due_ns is None else due_ns
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
        self._left -= 1
        self._client.departed += 1
        request, succeeded = lane.request, lane.succeeded
        self.free(lane, now)
        if self._branches and request is not None and not self.closing:
            self._follow(request, now, ok=succeeded)
        self._check_finished()

    def _follow(self, request: WireRequest, now: int, *, ok: bool) -> None:
        """Release the requests that waited for the one that has ended; those that wait for a failed one are never sent."""
        released, lost = self._branches.ended(request, now, ok=ok)
        self._left -= lost
        for follower, since_ns in released:
            due_ns = max(since_ns + follower.think_ns, self._start_ns + (follower.due_ns or 0))
            self._at(due_ns, partial(self._release, (follower,), due_ns))
        if released:
            self._turn()

    def free(self, lane: Lane, now: int) -> None:
        if self._client.stopped is None and self._waiting:
            session, due_ns = self._waiting.popleft()
            lane.begin(session, now if due_ns is None else due_ns)
        elif not self._closed_loop:
            self._idle.append(lane)

    @property
    def closing(self) -> bool:
        return self._closing or self._client.stopped is not None

    def _check_finished(self) -> None:
        if self._left == 0 and not self._finished.done():
            self._finished.set_result(None)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run a coroutine as a task and keep a reference until it ends (the event loop keeps only weak references)."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._spawned)

    def _spawned(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._client.stop("internal error in the load generator", error)

    def _stopped(self, error: BaseException | None) -> None:
        if self._finished.done():
            return
        if error is None:
            self._finished.set_result(None)
        else:
            self._finished.set_exception(error)


def starts(streams: int, ramp_ns: int) -> list[int]:
    """Start time of each stream of a closed loop, in ns from the start of the load."""
    spacing = max(START_SPACING_NS, ramp_ns // max(1, streams))
    return [number * spacing for number in range(streams)]


def sessions_of(requests: Sequence[WireRequest]) -> list[Session]:
    """Group the turns of each conversation; a request without a conversation is a session of its own."""
    sessions: list[Session] = []
    for conversation, group in itertools.groupby(requests, key=lambda request: request.conversation):
        turns = tuple(group)
        sessions += [turns] if conversation >= 0 else zip(turns)
    return sessions
