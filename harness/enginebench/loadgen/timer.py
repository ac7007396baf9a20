"""A timer for absolute times of the monotonic clock, accurate to some tens of microseconds.

Event-loop timers have a resolution of 1 ms (libuv) or are up to 1 ms late (asyncio), which is too coarse for these measurements. On
Linux the timer is a timerfd; elsewhere it is the event loop's own.
"""

import asyncio
import ctypes
import os
import sys
import time
from collections.abc import Callable


class AbsoluteTimer:
    """Calls `expired` on the running event loop at the time that was set."""

    def __init__(self, expired: Callable[[], None]) -> None:
        self._expired = expired
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._fd = _timerfd()
        if self._fd >= 0:
            self._loop.add_reader(self._fd, self._read)

    def set(self, at_ns: int, period_ns: int = 0) -> None:
        """Expire at `at_ns` (at once if that is past), then every period_ns if `periodic`. Replaces the time set before."""
        if self._fd >= 0:
            _set(self._fd, max(1, at_ns), period_ns)
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_later(max(0.0, (at_ns - time.monotonic_ns()) / 1e9), self._expired)

    @property
    def periodic(self) -> bool:
        return self._fd >= 0

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # set again in the same iteration of the loop
            return
        self._expired()


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval_s", ctypes.c_long), ("interval_ns", ctypes.c_long), ("value_s", ctypes.c_long), ("value_ns", ctypes.c_long))


def _timerfd() -> int:
    """A non-blocking timerfd on CLOCK_MONOTONIC, or -1 if unavailable. (os.timerfd_create needs Python 3.13.)"""
    if not sys.platform.startswith("linux"):
        return -1
    try:
        fd: int = ctypes.CDLL(None).timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, AttributeError):
        return -1
    return fd


def _set(fd: int, at_ns: int, period_ns: int) -> None:
    absolute = 1
    spec = _Itimerspec(*divmod(period_ns, 1_000_000_000), *divmod(at_ns, 1_000_000_000))
    ctypes.CDLL(None).timerfd_settime(fd, absolute, ctypes.byref(spec), None)
