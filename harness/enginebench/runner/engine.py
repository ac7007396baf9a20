"""What a cell needs of a deployment that is up, whatever its runtime, and what is learned while it comes up.

Knows nothing of processes, sockets or records: `served` and `offline` implement it, `opening` brings it up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from enginebench.adapter import Difference, Install, Launch, Resolved
from enginebench.checkpoints import Vocabulary
from enginebench.domain import JSON, Load
from enginebench.loadgen import Acks, LoadResult, Progress
from enginebench.runtime.place import Started
from enginebench.workload import Prompt, TextScale, make_prompts


class Engine(Protocol):
    """What a cell needs of a deployment that is up."""

    opening: Opening

    @property
    def served_name(self) -> str | None:
        """The model's name in every request; None where requests carry none."""
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
        """Send these prompts under this load and return every sample. acks: see `LoadSpec`; means nothing where there is no network."""
        ...

    def counters(self) -> Mapping[str, float]:
        """The engine's own totals so far, under neutral names."""
        ...

    def resolved(self) -> Resolved:
        """What the engine says of its own configuration."""
        ...

    def started(self) -> Mapping[str, Started]:
        """What was started for it, 'engine' and each 'member NAME'; empty when somebody else has started it."""
        ...

    def ending(self, patience_s: float = 0.0) -> str | None:
        """How the engine ended, in words; None while it is up. patience_s: wait that long for an end that is likely."""
        ...

    def log_tail(self) -> tuple[str, ...]:
        """The last lines the engine wrote; empty where there is no log."""
        ...


@dataclass
class Opening:
    """What is known once an engine is up; becomes the launch record."""

    launch: Launch | None = None
    install: Install | None = None
    packages: Mapping[str, str] = field(default_factory=dict)
    inherited: tuple[str, ...] = ()
    container: Mapping[str, JSON] = field(default_factory=dict)
    """docker: image, its id and digests."""
    start_s: float | None = None
    stop_s: float | None = None
    identity: str | None = None
    resolved: Resolved = field(default_factory=Resolved)
    differences: tuple[Difference, ...] = ()
    vocabulary: Vocabulary | None = None
    scales: dict[str, TextScale] = field(default_factory=dict)
    """How an engine whose tokenizer is unknown counts text, by the kind of text; measured by `gauge`."""
    first_s: float = 0.0
    """What the first generation took, a few tokens of an engine that had nothing else to do."""
    counts: bool = True
    """Whether the server said, at its first generation, how many tokens that was."""
    base: Path = Path()
    """The folder that data sets and traces are looked for in."""
    max_context: int | None = None
    """Tokens that a recorded prompt may have with its answer."""

    def prompts(self, load: Load, count: int, *, salt: str) -> list[Prompt]:
        """`make_prompts` with what is known of this engine."""
        scale = self.scales.get(kind_of_text(load))
        return make_prompts(self.vocabulary, load, count, salt=salt, scale=scale, base=self.base, limit=self.max_context)


def kind_of_text(load: Load) -> str:
    """What decides how many tokens a server makes of a word, and adds to a prompt: the route, and random words or a language's."""
    return f"{load.api} {'random' if load.prompts == 'random' else 'text'}"
