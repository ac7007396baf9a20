"""What is stored about the quality of a deployment, in the record of the server start that was asked. Numbers as they were returned:
perplexity, divergence and verdicts are computed when they are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rule:
    """How a text was divided and what of it was scored. Two records may be compared only if theirs are equal."""

    text: str
    """'alice', or the file as the scenario names it."""
    sha256: str
    """Of the text."""
    tokens_sha256: str
    """Of the token ids of all windows, as JSON: equal for equal text, tokenizer, windows and beginnings."""
    windows: int
    """Number of windows."""
    window: int
    """Tokens of each window, its beginning included."""
    stride: int
    """Tokens from the start of one window to the start of the next."""
    scored: int
    """The last tokens of each window that were scored, each given all tokens before it in its window."""
    begins: tuple[int, ...] = ()
    """Token ids that the model's tokenizer puts before a text (BOS); they replace the first ones of every window."""


@dataclass(frozen=True)
class Scored:
    """The engine's log-probabilities of a text."""

    rule: Rule
    """What was scored."""
    how: str
    """What of the engine gave the log-probabilities."""
    nats: tuple[float, ...]
    """Negative log-probabilities, natural, summed over the scored tokens of each window."""
    seconds: float
    """How long it took."""
    invalid: int = 0
    """Scored tokens whose log-probability was not a finite number, or above 0; with any, `nats` is empty."""
    beside: str = ""
    """The load that was served meanwhile; empty: none."""
    wanted: int = 0
    """Windows that were asked for, of which a short text has fewer; 0: not stored."""


@dataclass(frozen=True)
class Prediction:
    """The most probable next tokens in one place of a text."""

    window: int
    """Number of the window, from 0."""
    place: int
    """Index of the token in its window."""
    ids: tuple[int, ...]
    """The most probable tokens, the best first."""
    logprobs: tuple[float, ...]
    """Their natural logarithms."""


@dataclass(frozen=True)
class Continuation:
    """The greedy continuation of a piece of the text."""

    window: int
    """Number of the window whose beginning was the prompt, from 0."""
    ids: tuple[int, ...]
    """Token ids of the output, as the checkpoint's tokenizer encodes its text without leading spaces."""


@dataclass(frozen=True)
class TaskScore:
    """The result of one task."""

    task: str
    """Its name."""
    metric: str
    """'acc', 'exact_match', ..., with the filter after a comma where there is one."""
    value: float
    """As lm-evaluation-harness reports it."""
    stderr: float | None = None
    """Its standard error, as lm-evaluation-harness reports it."""
    documents: tuple[str, ...] = ()
    """Hash of each document, in the order of `right`."""
    right: tuple[int, ...] = ()
    """1 for each document that was answered correctly, else 0; empty where the metric is not of that kind."""
    asked: str = ""
    """The group of tasks that was asked for and has this one; empty: the task itself was."""


@dataclass(frozen=True)
class QualityRecord:
    """All that was measured on one server start."""

    perplexity: Scored | None = None
    """With no other request in the engine."""
    under_load: Scored | None = None
    """While it answered other requests."""
    predictions: tuple[Prediction, ...] = ()
    """On the text of `perplexity`."""
    continuations: tuple[Continuation, ...] = ()
    """Of the first windows of that text."""
    tasks: tuple[TaskScore, ...] = ()
    """In the order of the scenario."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """'perplexity', 'under_load', 'predictions', 'continuations', or a task -> why it could not be measured."""
