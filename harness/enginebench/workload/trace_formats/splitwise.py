"""Traces of the Splitwise simulator, CSV: arrival_timestamp (s), prompt_size and token_size, and further columns."""

from collections.abc import Iterable, Iterator

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, time_of


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    for row in rows:
        yield Entry(time_of(row["arrival_timestamp"]), count_of(row["prompt_size"]), count_of(row["token_size"]))


FORMAT = TraceFormat(
    "splitwise", "Splitwise simulator", ("arrival_timestamp", "prompt_size", "token_size"), _read, "seconds",
    "https://github.com/Mutinifni/splitwise-sim", table=True,
)  # fmt: skip
