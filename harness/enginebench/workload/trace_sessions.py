"""What the requests of a session waited for, from their start and end: turns one after another, branches side by side, and their joins.

For recordings that say when a request began and ended, but not what it waited for. Does not know file formats.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from enginebench.workload.recording import Entry


@dataclass(frozen=True, slots=True)
class Span:
    """A request with the time at which it ended, and the session that it belongs to."""

    entry: Entry
    end: float
    session: Hashable


def chained(spans: Iterable[Span], parents: Mapping[Hashable, Hashable] | None = None) -> Iterator[Entry]:
    """The entries, each after those that had ended when it began, with the time that passed since then.

    Requests of a session that overlap are branches: they wait for the same earlier ones. The first request of a session with a parent waits
    for what had ended in the parent; later ones of the parent wait for the sessions that it had begun. The context of a request is that of
    the last one of its own session that it waits for.
    """
    parents = parents or {}
    of: dict[Hashable, list[Span]] = defaultdict(list)
    for span in sorted(spans, key=lambda span: span.entry.time):
        of[span.session].append(span)
    children: dict[Hashable, list[Span]] = defaultdict(list)
    for session, parent in parents.items():
        children[parent] += of.get(session, [])
    for session, own in of.items():
        above = of.get(parents.get(session), []) if session in parents else []
        for place, span in enumerate(own):
            earlier = [*own[:place], *children.get(session, ())] if place else above
            yield _waiting(span, _frontier(earlier, span.entry.time))


def _frontier(earlier: Sequence[Span], time: float) -> list[Span]:
    """Those that had ended by a time and that no other one, which had also ended, came after."""
    ended = [span for span in earlier if span.end <= time]
    last = max((span.entry.time for span in ended), default=0.0)
    return [span for span in ended if span.end > last or span.entry.time == last]


def _waiting(span: Span, before: Sequence[Span]) -> Entry:
    if not before:
        return span.entry
    last = max(before, key=lambda other: other.end)
    own = [other for other in before if other.session == span.session]
    context = max(own, key=lambda other: other.end).entry.id if own and not span.entry.blocks else None
    ids = tuple(other.entry.id for other in before)
    return replace(span.entry, after=ids, delay=span.entry.time - last.end, context=context)
