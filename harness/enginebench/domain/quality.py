"""What of a deployment's quality is measured beside its speed, in the same server: the checks of a scenario as plain data."""

from __future__ import annotations

from dataclasses import dataclass

ALICE = "alice"
"""The text that ships with the project."""
HUB = "hf:"
"""Beginning of a text that is a file of a data set on the hub: hf:ORG/NAME/FILE."""


@dataclass(frozen=True)
class PerplexityCheck:
    """Perplexity of a text. The defaults are the rule of llama.cpp's own tool with a context of 512 tokens."""

    text: str = ALICE
    """'alice', a file of text (.txt, or .parquet with a column `text`), or one on the hub: hf:ORG/NAME/FILE."""
    windows: int = 16
    """At most so many windows, from the beginning of the text."""
    window: int = 512
    """Tokens of a window; each window is scored by itself."""
    stride: int | None = None
    """Tokens from the start of a window to the start of the next; None: a whole window, so that they do not overlap."""
    scored: int | None = None
    """How many of a window's last tokens are scored, each given all tokens before it in the window; None: half of them, less one."""
    max_increase: float | None = None
    """A deployment whose perplexity is surely above the reference's by more than this share is not ranked; None: no rule."""

    @property
    def step(self) -> int:
        return self.window if self.stride is None else self.stride

    @property
    def last(self) -> int:
        """How many tokens of each window are scored."""
        return max(1, self.window // 2 - 1) if self.scored is None else self.scored

    @property
    def first(self) -> int:
        """Index of the first token of a window that is scored."""
        return self.window - self.last


@dataclass(frozen=True)
class DivergenceCheck:
    """How far a deployment's predictions are from those of the reference, on the windows of the perplexity check."""

    top: int = 10
    """The most probable tokens that are kept in each place."""
    places: int = 16
    """Places of each window, evenly spaced among those that are scored."""
    prompts: int = 4
    """Prompts that are continued greedily: the beginnings of so many windows."""
    output_tokens: int = 32
    """Tokens of each continuation."""


@dataclass(frozen=True)
class TaskCheck:
    """One task of lm-evaluation-harness, on the served engine."""

    name: str
    """Of the task, as lm-evaluation-harness knows it."""
    limit: int | None = None
    """At most so many documents; None: all of them."""
    api: str = "completions"
    """Route of the engine: completions or chat."""
    folder: str | None = None
    """Folder with the task's YAML file and its data; None: a task that comes with lm-evaluation-harness."""


@dataclass(frozen=True)
class QualityCheck:
    """What is measured once per deployment, after its loads."""

    perplexity: PerplexityCheck = PerplexityCheck()
    """Perplexity of a text, always measured."""
    reference: str | None = None
    """Label of the deployment that others of its model are compared with; None: the one with the lowest perplexity."""
    divergence: DivergenceCheck | None = None
    """None: not measured."""
    tasks: tuple[TaskCheck, ...] = ()
    """Tasks whose answers are scored; few take less than minutes."""
    under_load: bool = False
    """Measure the perplexity again while requests are answered, because batches change the arithmetic."""
