"""BurstGPT, CSV: Timestamp (s), Request tokens, Response tokens; from its second version on also Session ID and Elapsed time (s).

Turns of a conversation follow one another: each after the answer to the one before, by the time that its user took. Without Elapsed time,
and for the API's log, every request is sent at its time.
"""

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, time_of


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    turns: list[tuple[str, float, Entry]] = []
    for number, row in enumerate(rows):
        time, session, elapsed = time_of(row["Timestamp"]), row.get("Session ID"), row.get("Elapsed time")
        entry = Entry(time, count_of(row["Request tokens"]), count_of(row["Response tokens"]), id=number)
        if session and elapsed and row.get("Log Type") == "Conversation log":
            turns.append((session, time + time_of(elapsed), entry))
        else:
            yield entry
    last: dict[str, tuple[Hashable, float]] = {}
    for session, end, entry in sorted(turns, key=lambda turn: turn[2].time):
        before = last.get(session)
        yield entry if before is None else replace(entry, after=(before[0],), delay=max(0.0, entry.time - before[1]))
        last[session] = entry.id, end


FORMAT = TraceFormat(
    "burstgpt", "BurstGPT", ("Timestamp", "Request tokens", "Response tokens"), _read, "seconds", "https://github.com/HPMLL/BurstGPT",
    table=True, lost="which text the turns of a conversation share, which it does not say",
)  # fmt: skip
