"""What an engine reports about itself, under neutral names: its counters and its resolved configuration. Does not know engines."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from enginebench.domain import JSON, PrefixRule

TOTALS: Mapping[str, str] = {
    "prompt_tokens": "tokens of prompts, cached ones included",
    "cached_tokens": "tokens of prompts that came from a prefix cache",
    "output_tokens": "tokens generated",
    "preemptions": "requests that lost their KV cache to others and were computed again",
    "drafts": "steps for which speculation proposed tokens",
    "draft_tokens": "tokens proposed by speculation",
    "accepted_tokens": "proposed tokens that the model accepted",
}
"""Counters that only grow. A cell's value is the difference between its end and its beginning."""

POSITIONS = 16
"""Proposed tokens of a step of which adapters may report one by one how often they were accepted."""


def accepted_at(position: int) -> str:
    """The total of steps in which the proposed token at this position, from 1, was accepted: 'accepted_at_1'."""
    return f"accepted_at_{position}"


COUNTED: tuple[str, ...] = (*TOTALS, *map(accepted_at, range(1, POSITIONS + 1)))
"""Every name of a total: those of TOTALS, and one for each position of a proposed token."""

GAUGES: Mapping[str, str] = {
    "running": "requests in the batch",
    "waiting": "requests in the queue",
    "kv_use": "share of the KV cache in use, 0 to 1",
}
"""Values of the moment."""


@dataclass(frozen=True)
class Resolved:
    """The engine's configuration, read back after launch under neutral names. None: the engine does not report it."""

    version: str | None = None
    """Version of the running engine, in its own notation."""
    model: str | None = None
    """Name or path of the checkpoint that it has loaded."""
    precision: str | None = None
    """Of the weights, under the name that scenarios use if the adapter knows one."""
    context: int | None = None
    """Tokens that one request may hold."""
    slots: int | None = None
    """Requests that it can run at once."""
    prefix_cache: bool | None = None
    """Whether prompts may reuse the KV cache of earlier ones."""
    prefix_rule: PrefixRule | None = None
    """What of a prompt its prefix cache shares with later ones; None: unknown, or it has none."""
    kv_dtype: str | None = None
    """Type of the KV cache's elements."""
    kv_tokens: int | None = None
    """Tokens that the whole KV cache holds."""
    chunked_prefill: bool | None = None
    """Whether a long prompt is processed in several forward passes."""
    batch_tokens: int | None = None
    """Most tokens of one forward pass."""
    graphs: str | None = None
    """How device graphs are used, in the engine's word; 'off' where they are not."""
    stream_interval: int | None = None
    """Tokens in one event of a stream."""
    options: Mapping[str, JSON] = field(default_factory=dict)
    """Engine options that it reports, under the names that the scenario uses."""
    raw: Mapping[str, JSON] = field(default_factory=dict)
    """Its replies by path, stored as they are."""


@dataclass(frozen=True)
class Difference:
    """One field in which the engine's resolved configuration differs from the deployment."""

    name: str
    """Of the field of `Resolved`; an engine option has its own name."""
    asked: JSON
    """What the deployment asks for."""
    got: JSON
    """What the engine reports, or why the setting was not sent."""
