"""Traces of the Vidur simulator, CSV: arrived_at (s), num_prefill_tokens, num_decode_tokens.

Forks add session_id, whose requests follow one another, and block_hash_ids ('11|22', of blocks of 16 tokens unless block_size says so).
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, fitting, time_of

_BLOCK_TOKENS = 16


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    turns: list[tuple[str, Entry]] = []
    for number, row in enumerate(rows):
        tokens, size = count_of(row["num_prefill_tokens"]), count_of(row.get("block_size") or _BLOCK_TOKENS)
        blocks = fitting([int(block) for block in (row.get("block_hash_ids") or "").split("|") if block], tokens, size)
        entry = Entry(time_of(row["arrived_at"]), tokens, count_of(row["num_decode_tokens"]), blocks, size, number)
        if session := row.get("session_id"):
            turns.append((session, entry))
        else:
            yield entry
    last: dict[str, Hashable] = {}
    for session, entry in sorted(turns, key=lambda turn: turn[1].time):
        yield replace(entry, after=(last[session],)) if session in last else entry
        last[session] = entry.id


FORMAT = TraceFormat(
    "vidur", "Vidur simulator", ("arrived_at", "num_prefill_tokens", "num_decode_tokens"), _read, "seconds",
    "https://github.com/microsoft/vidur/tree/main/data/processed_traces", table=True,
)  # fmt: skip
