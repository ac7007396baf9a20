"""BurstGPT, CSV: Timestamp (s), Request tokens, Response tokens; from its second version on also Session ID and Elapsed time (s).

Turns of a conversation follow one another: each after the answer to the one before, by the time that its user took. Without Elapsed time,
and for the API's log, every request is sent at its time.
"""

from collections.abc import Iterable, Iterator

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, time_of


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    turns: dict[str, tuple[int, float]] = {}
    for number, row in enumerate(rows):
        time, session, elapsed = time_of(row["Timestamp"]), row.get("Session ID"), row.get("Elapsed time")
        after: tuple[int, ...] = ()
        delay = None
        if session and elapsed and row.get("Log Type") == "Conversation log":
            before = turns.get(session)
            if before is not None:
                after, delay = (before[0],), max(0.0, time - before[1])
            turns[session] = number, time + time_of(elapsed)
        yield Entry(time, count_of(row["Request tokens"]), count_of(row["Response tokens"]), id=number, after=after, delay=delay)


FORMAT = TraceFormat(
    "burstgpt", "BurstGPT", ("Timestamp", "Request tokens", "Response tokens"), _read, "seconds", "https://github.com/HPMLL/BurstGPT",
    table=True, lost="which text the turns of a conversation share, which it does not say",
)  # fmt: skip
