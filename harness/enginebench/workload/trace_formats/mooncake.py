"""Mooncake: JSON lines with timestamp (ms), input_length, output_length and, optionally, hash_ids of blocks of 512 tokens.

Also what AIPerf and Dynamo add to it: `session_id` with `delay` or `delay_ms` (ms after the answer to the turn before) and `tool_wait_ms`,
`wait_for` with the `request_id`s of other requests, and `block_size`. A turn with a `session_id` and without hash_ids holds its new tokens
only; the turns and answers before it are put in front of them.
"""

import math
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, ids_of, time_of

_BLOCK_TOKENS = 512


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    turns: dict[Hashable, Entry] = {}
    times: dict[Hashable, float] = {}
    for number, row in enumerate(rows):
        entry, session = _entry(row, number, times), row.get("session_id")
        if session is not None:
            entry = _turn(row, entry, turns.get(session))
            turns[session] = entry
        times[entry.id] = entry.time
        yield entry


def _entry(row: Row, number: int, times: dict[Hashable, float]) -> Entry:
    """times: when those before it were sent."""
    tokens, size, given = count_of(row["input_length"]), count_of(row.get("block_size") or _BLOCK_TOKENS), row.get("hash_ids")
    blocks = ids_of([] if given is None else given, "hash_ids")
    if blocks and len(blocks) not in (tokens // size, math.ceil(tokens / size)):
        raise ValueError(f"{len(blocks)} hash_ids for {tokens} tokens cannot be blocks of {size}")
    given_after = row.get("wait_for") or ()
    if not isinstance(given_after, list | tuple):
        raise ValueError("wait_for is not a list of request_ids")
    after = tuple(("id", name) for name in given_after)
    if row.get("timestamp") is not None or not (after or row.get("session_id") is not None):
        time = time_of(row["timestamp"])
    else:  # it has no time of its own: about that of what it waits for
        time = max((times[other] for other in after if other in times), default=next(reversed(times.values()), 0.0))
    name = ("id", row["request_id"]) if row.get("request_id") is not None else ("row", number)
    return Entry(time, tokens, count_of(row["output_length"]), blocks, size, name, after, _delay(row) if after else None)


def _delay(row: Row) -> float | None:
    """ms after what the request waits for; None if it has a time of its own instead."""
    given = [row[name] for name in ("delay_ms", "delay") if row.get(name) is not None][:1]
    given += [row["tool_wait_ms"]] if row.get("tool_wait_ms") is not None else []
    if given:
        return sum(map(time_of, given))
    return None if row.get("timestamp") is not None else 0.0


def _turn(row: Row, entry: Entry, before: Entry | None) -> Entry:
    """The request as a turn of its session."""
    if before is None:
        return entry
    time = entry.time if row.get("timestamp") is not None else before.time
    entry = replace(entry, after=entry.after or (before.id,), delay=_delay(row), time=time)
    if entry.blocks or before.blocks:
        return entry
    return replace(entry, input_tokens=before.input_tokens + before.output_tokens + entry.input_tokens, context=before.id)


FORMAT = TraceFormat(
    "mooncake", "Mooncake (with the sessions of AIPerf and Dynamo)", ("input_length",), _read, "milliseconds",
    "https://github.com/kvcache-ai/Mooncake/tree/main/FAST25-release",
)  # fmt: skip
