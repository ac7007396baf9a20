"""The share of prompt tokens that came from the prefix cache, and the share that could have."""

from enginebench.metrics import prefix_cache
from enginebench.metrics.context import Context, Floats
from enginebench.metrics.registry import Shown, metric, one


@metric(
    "prefix hit rate", header="cached", scope="cell", unit="1", better=None, missing="the engine does not report cached tokens",
    shown=(Shown(53, 14, least=0.001),),
)  # fmt: skip
def prefix_hit_rate(c: Context) -> Floats:
    """Prefix hit rate: prompt tokens that came from the engine's prefix cache / prompt tokens, over the load.

    From the engine's counters around the load, else from the usage of its replies, whichever counts more.
    """
    return one(prefix_cache.hit_rate(c.record, c.samples))


@metric(
    "reusable share of prompts", header="reusable", scope="cell", unit="1", better=None,
    missing="only raw completions with `prefix_cache: allowed` or `warm` tell what their prompts share",
    shown=(Shown(54, 15, least=0.001),),
)  # fmt: skip
def reusable_share(c: Context) -> Floats:
    """Reusable share: prompt tokens that an earlier prompt of the load begins with as well / prompt tokens, from the prompts themselves.

    It is the prefix hit rate of a cache that keeps every prompt whole and has each before the next arrives. An engine that shares whole
    blocks, evicts, or runs the first requests of a group at once stays below it.
    """
    facts = c.record.prompts if c.record is not None else None
    return one(facts.reusable_tokens / facts.tokens if facts is not None and facts.tokens and facts.reusable_tokens is not None else None)


@metric(
    "prefix hit rate by rule", header="by rule", scope="cell", unit="1", better=None,
    missing="only raw completions to an engine whose adapter states a rule (docs/speculation.md) have one",
    shown=(Shown(54, 16, least=0.001),),
)  # fmt: skip
def rule_hit_rate(c: Context) -> Floats:
    """Prefix hit rate by rule: what the engine's prefix cache has by its own design / prompt tokens, if it forgets nothing.

    Only whole blocks count, and only prompts that could be shared when a request was sent: those that were sent, were computed or had
    ended, as the engine's design says. From the prompts and the client's times, not from anything that the engine counts.
    """
    tokens, facts = int(c.samples.asked_input_tokens.sum()), c.record.prompts if c.record is not None else None
    return one(facts.rule_tokens / tokens if facts is not None and facts.rule_tokens is not None and tokens else None)
