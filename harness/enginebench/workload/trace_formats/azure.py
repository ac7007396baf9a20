"""Azure LLM inference traces of 2023 and 2024, CSV: TIMESTAMP (date and time), ContextTokens, GeneratedTokens.

That of multimodal requests (2025) has NumImages as well, which are not replayed.
"""

from collections.abc import Iterable, Iterator

from enginebench.workload.recording import Entry, Row, TraceFormat, count_of, moment_of


def _read(rows: Iterable[Row]) -> Iterator[Entry]:
    for row in rows:
        yield Entry(moment_of(row["TIMESTAMP"]), count_of(row["ContextTokens"]), count_of(row["GeneratedTokens"]))


FORMAT = TraceFormat(
    "azure", "Azure LLM inference traces 2023 and 2024", ("TIMESTAMP", "ContextTokens", "GeneratedTokens"), _read, "",
    "https://github.com/Azure/AzurePublicDataset", table=True, lost="images, where it counts them",
)  # fmt: skip
