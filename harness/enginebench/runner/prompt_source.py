"""Makes prompts for one running engine: `enginebench.workload.make_prompts` with what is known about the engine's tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from enginebench.checkpoints import Vocabulary
from enginebench.domain import Load
from enginebench.workload import Prompt, TextScale, make_prompts


@dataclass
class PromptSource:
    """What is known about how one engine counts the tokens of a prompt."""

    base: Path = Path()
    """Folder that relative paths of data sets and traces start from."""
    max_context: int | None = None
    """Most tokens of a recorded prompt with its output."""
    vocabulary: Vocabulary | None = None
    """The engine's vocabulary; None if it cannot be read here."""
    scales: dict[str, TextScale] = field(default_factory=dict)
    """Kind of text -> how the engine counts it; measured by `priming.fit_text_scale`."""

    def make(self, load: Load, count: int, *, salt: str) -> list[Prompt]:
        """The first `count` prompts of a load."""
        scale = self.scales.get(kind_of_text(load))
        return make_prompts(self.vocabulary, load, count, salt=salt, scale=scale, base=self.base, limit=self.max_context)


def kind_of_text(load: Load) -> str:
    """Loads with the same kind have the same tokens per word and the same tokens added to each prompt."""
    return f"{load.api} {'random' if load.prompts == 'random' else 'text'}"
