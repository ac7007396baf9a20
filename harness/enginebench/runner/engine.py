"""What a cell needs from a running engine, whatever its runtime.

Knows neither processes nor sockets: `http_engine` and `offline` implement it, `launch` starts it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from enginebench.adapter import Resolved
from enginebench.domain import Load
from enginebench.loadgen import Acks, LoadResult, Progress
from enginebench.records.launch import LaunchRecord
from enginebench.runner.prompt_source import PromptSource
from enginebench.runtime.place import Started
from enginebench.workload import Prompt


class Engine(Protocol):
    """A running engine."""

    launch: LaunchRecord
    """The record of this server start, completed while the engine runs."""
    prompts: PromptSource

    @property
    def served_name(self) -> str | None:
        """The model name that requests carry; None if requests carry none."""
        ...

    def run(
        self,
        prompts: Sequence[Prompt],
        load: Load,
        *,
        on_progress: Callable[[Progress], None] | None = None,
        keep_text: bool = False,
        acks: Acks = "usual",
    ) -> LoadResult:
        """Send these prompts under this load and return all samples. acks: see `LoadSpec`; ignored without a network."""
        ...

    def counters(self) -> Mapping[str, float]:
        """The engine's own counters, under neutral names."""
        ...

    def resolved(self) -> Resolved:
        """The configuration that the engine reports."""
        ...

    def started(self) -> Mapping[str, Started]:
        """The processes or containers that were started: 'engine' and each 'member NAME'. Empty for an attached server."""
        ...

    def ending(self, patience_s: float = 0.0) -> str | None:
        """How the engine ended; None while it runs. patience_s: wait so long if it has not ended yet."""
        ...

    def log_tail(self) -> tuple[str, ...]:
        """The last lines of the engine's log; empty if there is none."""
        ...
