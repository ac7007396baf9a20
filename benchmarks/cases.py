"""The cases of the client benchmark: server behaviour, number of streams, and clients."""

from __future__ import annotations

from dataclasses import dataclass

LOOP = "enginebench, loop stamps"
"""enginebench with the event loop's time stamps, as on machines without the C receiver."""


@dataclass(frozen=True)
class Case:
    """One case of the table."""

    name: str
    server: tuple[str, ...]
    streams: int
    rounds: int
    tokens: int
    processes: int = 1
    clients: tuple[str, ...] = ("bare", "enginebench", LOOP)
    rivals: bool = False
    """Whether other load generators run, too (one round only: they take a minute each)."""
    chunk: int = 1
    """Tokens per event."""


PACED = ("--spin", "--ttft-ms", "50", "--itl-ms", "10")
CASES = (
    Case("256 streams", PACED, 256, 4, 128, rivals=True),
    Case("1,024 streams", PACED, 1024, 4, 128, rivals=True),
    Case("1,024 in lockstep", (*PACED, "--tick-ms", "10"), 1024, 4, 128),
    Case("2,048 streams", PACED, 2048, 3, 128),
    Case("1,024, 8 tokens an event", (*PACED, "--tokens-per-chunk", "8"), 1024, 4, 1024, chunk=8),
    Case("burst, one by one", ("--burst",), 64, 8, 1000),
    Case("burst, 32 at a time", ("--burst", "--burst-batch", "32"), 64, 128, 1000),
    Case("burst, two processes", ("--burst", "--burst-batch", "32"), 64, 128, 1000, processes=2, clients=("enginebench",)),
)
