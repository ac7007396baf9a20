"""Requests that wait for others: turns of a recorded session, its branches and their joins.

Knows what waits for what, and nothing of connections, clocks or streams.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from enginebench.loadgen.request import WireRequest


def parts_of(session: Sequence[WireRequest]) -> list[Sequence[WireRequest]]:
    """The session, or each of its requests by itself where any of them says what it waits for."""
    return [(request,) for request in session] if any(request.after for request in session) else [session]


class Branches:
    """The requests of a load that wait for others, until those have ended. False if there are none."""

    def __init__(self, requests: Iterable[WireRequest]) -> None:
        self._missing: dict[int, int] = {}
        """Index of a request -> how many that it waits for have not ended."""
        self._since: dict[int, int] = {}
        """Index of a request -> when the last of those that have ended did."""
        self._followers: dict[int, list[WireRequest]] = defaultdict(list)
        for request in requests:
            if request.after:
                self._missing[request.index] = len(request.after)
                for other in request.after:
                    self._followers[other].append(request)

    def __bool__(self) -> bool:
        return bool(self._missing)

    def ended(self, request: WireRequest, at_ns: int, *, ok: bool) -> tuple[list[tuple[WireRequest, int]], int]:
        """Requests that nothing holds back any more, each with the end of the last one that it waited for; and how many are lost for good,
        because this one failed."""
        if not ok:
            return [], self._lose(request.index)
        free: list[tuple[WireRequest, int]] = []
        for other in self._followers.pop(request.index, ()):
            if other.index not in self._missing:
                continue  # lost
            self._missing[other.index] -= 1
            self._since[other.index] = max(at_ns, self._since.get(other.index, 0))
            if not self._missing[other.index]:
                del self._missing[other.index]
                free.append((other, self._since.pop(other.index)))
        return free, 0

    def _lose(self, index: int) -> int:
        """Forget all that waits for a request, directly or not. Returns how many that are."""
        lost, open_ = 0, [index]
        while open_:
            for other in self._followers.pop(open_.pop(), ()):
                if self._missing.pop(other.index, None) is not None:
                    lost += 1
                    open_.append(other.index)
        return lost
