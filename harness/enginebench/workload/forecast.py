"""What can be known of a load before a run: whether it makes sense, how long its requests are, and how many there are.

Cheap enough for a plan: files are read once. Knows no tokenizer, and asks no server and no hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from enginebench.errors import UserError
from enginebench.nouns import Load
from enginebench.workload.arrivals import due_within
from enginebench.workload.datasets import check_reachable, is_data_set
from enginebench.workload.files import find
from enginebench.workload.lengths import Lengths
from enginebench.workload.traces import Trace, read_trace


def check(load: Load, base: Path) -> None:
    """UserError for a load that cannot be sent, whatever the deployment. base: the folder that relative file names start from."""
    for key, wrong, message, advice in _rules(load):
        if wrong:
            raise UserError(message, key=key, advice=advice)
    if is_data_set(load.prompts):
        check_reachable(load.prompts, base)
    if load.trace is not None:
        if _trace(load, base).shares and load.prefix_cache == "cold":
            message = "prompts of this trace share blocks, which a prefix cache would keep"
            raise UserError(message, key="trace", advice="write 'prefix_cache: allowed'")
        return
    lengths = Lengths.of(load)
    if not is_data_set(load.prompts) and (lengths.largest is None or lengths.shortest_input is None):
        raise UserError("only a data set has lengths of its own", key="prompts", advice="write tokens, or 'prompts: sharegpt:FILE'")
    shortest = lengths.shortest_input
    if load.prefix_groups and shortest is not None and load.prefix_tokens >= shortest:
        message = f"a shared prefix of {load.prefix_tokens} tokens leaves nothing of a prompt of {shortest}"
        raise UserError(message, key="prefix_tokens", advice="it is counted within input_tokens")


def largest_request(load: Load, base: Path) -> int | None:
    """Most tokens, input and output, that a request can hold (a conversation: all its turns together).

    None where only a tokenizer could tell: a data set whose lengths are its own.
    """
    if load.trace is not None:
        return _trace(load, base).largest
    largest = Lengths.of(load).largest
    return None if largest is None else largest * load.turns


def natural_count(load: Load, base: Path) -> int | None:
    """How many requests an open loop sends: those due within its duration or in its trace, at most `requests`.

    Later turns are counted as if every conversation had all of them. None for a closed loop.
    """
    if load.trace is not None:
        due = _trace(load, base).due_s * load.time_scale
        found = len(due) if load.duration_s is None else int(np.searchsorted(due, load.duration_s))
    elif load.rate is not None:
        found = load.requests if load.duration_s is None else due_within(load, load.duration_s) * load.turns
    else:
        return None
    return min(found, load.requests) if load.requests else found


def _trace(load: Load, base: Path) -> Trace:
    return read_trace(find(load.trace or "", base, "trace"))


def _rules(load: Load) -> Iterator[tuple[str, bool, str, str]]:
    """What must not be: the field, whether it is so, what is wrong, what to write instead."""
    traced, grouped, recorded = load.trace is not None, load.prefix_groups > 0, is_data_set(load.prompts)
    yield "trace", traced and load.rate is not None, "a trace has its own arrivals", "write either rate or trace"
    yield "trace", traced and recorded, "a trace says how long prompts are, not what they say", "write 'prompts: random' or 'prompts: text'"
    yield "trace", traced and load.turns > 1, "a trace has no conversations", "write 'turns: 1'"
    yield "trace", traced and grouped, "a trace has its own shared prefixes", "write 'prefix_groups: 0'"
    yield "time_scale", not load.time_scale > 0, "a time scale is positive", "0.5 replays a trace twice as fast"
    yield "rate", load.rate is not None and not load.rate > 0, "a rate is positive", "write requests per second: 2.5"
    yield "rate_to", load.rate_to is not None and not load.rate_to > 0, "a rate is positive", "write requests per second: 2.5"
    yield "rate_to", load.rate_to is not None and load.rate is None, "a rate that changes begins somewhere", "write rate, too"
    yield "burstiness", not load.burstiness > 0, "burstiness is positive", "1 is Poisson, below 1 requests come in bursts"
    endless = not load.requests and load.duration_s is None and not traced
    yield "requests", endless, "this load never ends", "write a number of requests, or duration_s"
    yield "turns", load.turns < 1, "a conversation has a turn", "write 'turns: 1' for single requests"
    yield "prefix_groups", grouped and load.prefix_cache == "cold", "shared prefixes fill a prefix cache", "write 'prefix_cache: allowed'"
    yield "prefix_groups", grouped and recorded, "a data set has the prompts that it has", "write 'prompts: random' or 'prompts: text'"
    yield "prefix_tokens", grouped and load.prefix_tokens < 1, "groups share a prefix of at least 1 token", "write 'prefix_tokens: 64'"
    yield "prefix_tokens", bool(load.prefix_tokens) and not grouped, "nobody shares this prefix", "write 'prefix_groups: 4'"
