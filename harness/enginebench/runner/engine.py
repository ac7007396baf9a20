"""A running engine, whatever its runtime: what a cell needs of it. `http_engine` and `offline` are the two kinds, `launch` starts them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from enginebench.adapter import Adapter, Get, Resolved
from enginebench.dialects.scoring import Question, Scores, Scoring
from enginebench.domain import JSON, Load
from enginebench.loadgen import Acks, LoadResult, Progress
from enginebench.records.launch import LaunchRecord
from enginebench.runner.prompts import PromptSource
from enginebench.runner.redaction import redacted, secrets_of
from enginebench.runtime import EngineProcess, ProcessGroup
from enginebench.runtime.place import Started
from enginebench.workload import Prompt

OnProgress: TypeAlias = Callable[[Progress], None] | None


@dataclass
class Engine(ABC):
    """A running engine."""

    adapter: Adapter
    launch: LaunchRecord
    """The record of this server start, completed while the engine runs."""
    prompts: PromptSource
    process: EngineProcess | ProcessGroup | None
    """None: the server is attached."""
    get: Get
    """Replies of the engine's HTTP API, or what it would reply."""
    served_name: str | None
    """The model name that requests carry; None if requests carry none."""

    @property
    def left_out(self) -> Mapping[str, JSON]:
        """Fields of requests that the server refuses, with the value that they would have had."""
        return {}

    @abstractmethod
    def run(
        self, prompts: Sequence[Prompt], load: Load, *, on_progress: OnProgress = None, keep_text: bool = False, acks: Acks = "usual",
        measured: bool = False,
    ) -> LoadResult:  # fmt: skip
        """Send these prompts under this load and return all samples. acks: see `LoadSpec`; ignored without a network. measured: from the
        client hosts, where there are any; else from this machine. ClientLost if one of its clients is lost."""

    @abstractmethod
    def score(self, scoring: Scoring, question: Question) -> Scores:
        """The engine's own log-probabilities of the tokens of a window. Raises NotAnswered, and ValueError for an unexpected reply."""

    def resolved(self) -> Resolved:
        """The configuration that the engine reports."""
        return self.adapter.resolved(self.get)

    def started(self) -> Mapping[str, Started]:
        """The processes or containers that were started: 'engine' and each 'member NAME'. Empty for an attached server."""
        return self.process.started if isinstance(self.process, ProcessGroup) else {}

    def ending(self, patience_s: float = 0.0) -> str | None:
        """How the engine ended; None while it runs. patience_s: wait so long if it has not ended yet."""
        if self.process is None:
            return None
        self.process.wait(patience_s)
        return self.process.ending

    def log_tail(self) -> tuple[str, ...]:
        """The last lines of the engine's log; empty if there is none."""
        return tuple(redacted(self.process.log_tail(), secrets_of(self.launch.deployment)).splitlines()) if self.process else ()
