"""Which requests of a recording are replayed, and in which order: whole sessions by their start, each request after what it waits for.

Does not know file formats, units or texts.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from enginebench.errors import UserError
from enginebench.workload.recording import Entry


def present(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with input and output. What waited for another one waits for what that one waited for."""
    gone = {entry.id: entry for entry in entries if not (entry.input_tokens and entry.output_tokens)}
    if not gone:
        return list(entries)

    def standing(names: Sequence[Hashable]) -> Iterator[Hashable]:
        left, seen = [*reversed(names)], set[Hashable]()
        while left:
            name = left.pop()
            if name not in gone:
                yield name
            elif name not in seen:
                seen.add(name)
                left += reversed(gone[name].after)

    kept = [entry for entry in entries if entry.input_tokens and entry.output_tokens]
    return [replace(entry, after=tuple(standing(entry.after))) if entry.after else entry for entry in kept]


def ordered(entries: Sequence[Entry], file: Path) -> list[list[int]]:
    """The sessions in order of their start, each as its rows: by time, and after all that they wait for."""
    place = _places(entries, file)
    parents = [[place[name] for name in entry.after if name in place] for entry in entries]
    root = list(range(len(entries)))

    def find(row: int) -> int:
        while root[row] != row:
            root[row] = root[root[row]]
            row = root[row]
        return row

    for row, before in enumerate(parents):
        for other in before:
            root[find(other)] = find(row)
    members: dict[int, list[int]] = {}
    for row in range(len(entries)):
        members.setdefault(find(row), []).append(row)
    sessions = [_in_order(rows, parents, entries, file) if len(rows) > 1 or parents[rows[0]] else rows for rows in members.values()]
    return sorted(sessions, key=lambda rows: (entries[rows[0]].time, rows[0]))


def _places(entries: Sequence[Entry], file: Path) -> dict[Hashable, int]:
    """The row of each id. UserError for an id that another request waits for and several have."""
    counts = Counter(entry.id for entry in entries if entry.id is not None)
    for entry in entries:
        if (name := next((name for name in entry.after if counts[name] > 1), None)) is not None:
            advice = "give every request an id of its own"
            message = f"a request waits for {_shown(name)}, and {counts[name]} requests of the trace are called so"
            raise UserError(message, file=file, advice=advice)
    return {entry.id: row for row, entry in enumerate(entries) if entry.id is not None}


def _in_order(rows: Sequence[int], parents: Sequence[Sequence[int]], entries: Sequence[Entry], file: Path) -> list[int]:
    missing = {row: len(set(parents[row])) for row in rows}
    followers: dict[int, list[int]] = {row: [] for row in rows}
    for row in rows:
        for other in set(parents[row]):
            followers[other].append(row)
    ready = [(entries[row].time, row) for row in rows if not missing[row]]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, row = heapq.heappop(ready)
        order.append(row)
        for other in followers[row]:
            missing[other] -= 1
            if not missing[other]:
                heapq.heappush(ready, (entries[other].time, other))
    if len(order) < len(rows):
        name = entries[next(row for row in rows if missing[row])].id
        raise UserError(f"request {_shown(name)} of the trace waits for itself", file=file, advice="check what it says it waits for")
    return order


def _shown(name: Hashable) -> Hashable:
    """An id as the file has it: readers put a kind in front of some."""
    return name[-1] if isinstance(name, tuple) else name
