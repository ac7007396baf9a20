"""Qwen-Bailian: JSON lines with chat_id, parent_chat_id (-1: none), timestamp (s), lengths, and hash_ids of blocks of 16 tokens.

Every row holds the whole context of its request. A turn is sent at its time, but not before the turn that it answers has ended, because the
recording does not say how long answers took.
"""

from collections.abc import Iterable, Iterator

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, fitting, ids_of, time_of

_BLOCK_TOKENS = 16


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    for row in rows:
        tokens = count_of(row["input_length"])
        blocks = fitting(ids_of(row.get("hash_ids") or [], "hash_ids"), tokens, _BLOCK_TOKENS)
        parent = row["parent_chat_id"]
        after = () if parent in (-1, None) else (parent,)
        yield Entry(time_of(row["timestamp"]), tokens, count_of(row["output_length"]), blocks, _BLOCK_TOKENS, row["chat_id"], after)


FORMAT = TraceFormat(
    "bailian", "Qwen-Bailian usage traces", ("chat_id", "parent_chat_id", "timestamp", "input_length", "output_length"), _read, "seconds",
    "https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon", lost="the kind of a request (text, search, image, file)",
)  # fmt: skip
