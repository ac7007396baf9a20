"""What is known of a load before a run: whether it can be sent, how long its requests are, and how many there are.

Cheap enough for a plan: files are read once. Does not know tokenizers, and asks no server and no hub.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from enginebench.dialects.form import parts_of
from enginebench.domain import DrawnLoad, Load, TraceReplay, fields_of
from enginebench.errors import UserError
from enginebench.workload.arrivals import due_times, due_within
from enginebench.workload.datasets import is_data_set, known_records, read_records
from enginebench.workload.forms import check_form
from enginebench.workload.lengths import Lengths
from enginebench.workload.traces import Trace, read_trace

MAX_REQUESTS = 2_000_000
"""Of one load. All are made before it begins, and each takes a kilobyte or more."""


def check(load: Load, base: Path) -> None:
    """UserError for a load that cannot be sent, whatever the deployment. base: the folder that relative file names start from.

    `enginebench.scenario` checks which keys go together. This checks files, expressions, counts and bounds of numbers.
    """
    for key, wrong, message, advice in _rules(load):
        if wrong:
            raise UserError(message, key=key, advice=advice)
    check_form(load, base)
    if isinstance(load, TraceReplay):
        if load.prefix_cache == "cold" and _replayed(load, base).shares:
            raise UserError("prompts of this trace share blocks, which a prefix cache would keep", key="trace", advice=_ALLOW_CACHE)
    else:
        _check_lengths(load)
    _check_count(load, base)
    if is_data_set(load.prompts):
        _check_records(load, base)


def _check_lengths(load: Load) -> None:
    lengths = Lengths.of(load)
    if not is_data_set(load.prompts) and (lengths.largest is None or lengths.shortest_input is None):
        raise UserError("only a data set has lengths of its own", key="prompts", advice="write tokens, or 'prompts: sharegpt:FILE'")
    if any(lengths.shared) and (load.prefix_groups or load.prefix_cache == "cold"):
        message = "the requests of a class share text, which a prefix cache would keep"
        raise UserError(message, key="lengths", advice=f"{_ALLOW_CACHE}, without `prefix_groups`")
    shortest = lengths.shortest_input
    if load.system_tokens and shortest is not None and load.system_tokens + load.prefix_tokens >= shortest:
        message = f"a system message of {load.system_tokens} tokens leaves nothing of a prompt of {shortest}"
        raise UserError(message, key="system_tokens", advice="it is counted within input_tokens")
    if load.prefix_groups and shortest is not None and load.prefix_tokens >= shortest:
        message = f"a shared prefix of {load.prefix_tokens} tokens leaves nothing of a prompt of {shortest}"
        raise UserError(message, key="prefix_tokens", advice="it is counted within input_tokens")


def _check_count(load: Load, base: Path) -> None:
    """Neither more requests than can be made beforehand or than were recorded, nor none at all."""
    key = load.key or "requests"
    if (expected := _expected(load, base)) > MAX_REQUESTS:
        message = f"about {expected:,.0f} requests would be sent, and {MAX_REQUESTS:,} is the most that one load can have"
        raise UserError(message, key=key, advice="write fewer `requests`, a shorter `duration_s` or a lower `rate`")
    if (
        isinstance(load, TraceReplay)
        and load.duration_s is None
        and load.requests > (recorded := len(read_trace(load.trace, base, load.time_unit)))
    ):
        advice = f"write 'requests: {recorded}' or fewer, or leave it out for all of them"
        raise UserError(f"{load.trace} has {recorded:,} requests, and {load.requests:,} are wanted", key="requests", advice=advice)
    if isinstance(load, DrawnLoad) and load.duration_s is not None and due_times(load, 1)[0] >= load.duration_s:
        message = f"no request is due within {load.duration_s:g} s: the first would be after {due_times(load, 1)[0]:.3g} s"
        raise UserError(message, key=key, advice="write a longer `duration_s` or a higher `rate`")


def _expected(load: Load, base: Path) -> float:
    """The largest number of requests of a load, for drawn arrivals the mean; 0 where it depends on the server's pace."""
    if load.mean_rate is None or load.duration_s is None:
        return natural_count(load, base) or load.requests
    found = load.mean_rate * load.duration_s * load.turns
    return min(found, load.requests) if load.requests else found


def _check_records(load: Load, base: Path) -> None:
    """A cold load needs a record for each of its requests; a closed loop with a duration sends as many as there are."""
    records = known_records(load.prompts, base)
    if load.api in ("responses", "messages") and records is not None:
        _check_parts(load, base)
    if records is None or load.prefix_cache != "cold" or (load.duration_s is not None and not load.open_loop):
        return
    wanted = natural_count(load, base) or load.requests
    if wanted > records:
        advice = "ask for fewer requests, or write 'prefix_cache: allowed' to send them again"
        raise UserError(f"{load.prompts} has {records:,} records, and {wanted:,} requests are wanted", key="prompts", advice=advice)


def _check_parts(load: Load, base: Path) -> None:
    """UserError for a request of a batch file with parts of messages that this route is not sent here, such as sound."""
    for record in read_records(load.prompts, base):
        for message in json.loads(record[0].messages or "[]"):
            try:
                parts_of(message.get("content"))
            except ValueError as error:
                advice = "write 'api: chat', which is sent messages as they are"
                raise UserError(f"{load.prompts}: {error}", key="api", advice=advice) from None


def largest_request(load: Load, base: Path) -> int | None:
    """Most tokens, input and output, of one request (of a conversation: all its turns together).

    None where only a tokenizer can count them: a data set with lengths of its own.
    """
    if isinstance(load, TraceReplay):
        return _replayed(load, base).largest
    largest = Lengths.of(load).largest
    return None if largest is None else largest * load.turns


def natural_count(load: Load, base: Path) -> int | None:
    """How many requests an open loop sends: those due within its duration or in its trace, at most `requests`.

    Later turns are counted as if every conversation had all of them. None for a closed loop.
    """
    if isinstance(load, TraceReplay):
        due = read_trace(load.trace, base, load.time_unit).due_s * load.time_scale
        found = len(due) if load.duration_s is None else int(np.searchsorted(due, load.duration_s))
    elif isinstance(load, DrawnLoad):
        found = load.requests if load.duration_s is None else due_within(load, load.duration_s) * load.turns
    else:
        return None
    return min(found, load.requests) if load.requests else found


def _replayed(load: TraceReplay, base: Path) -> Trace:
    return read_trace(load.trace, base, load.time_unit).first(natural_count(load, base) or 0)


def _rules(load: Load) -> Iterator[tuple[str, bool, str, str]]:
    """What is not allowed: the field, whether it applies, the message, the advice."""
    for key, declared in fields_of(type(load)).items():
        problem = declared.problem(getattr(load, key))
        yield key, bool(problem), f"{key} {problem}", f"write another {key}"
    traced, grouped, recorded = isinstance(load, TraceReplay), load.prefix_groups > 0, is_data_set(load.prompts)
    cold = load.prefix_cache == "cold"
    yield "trace", traced and recorded, "a trace has the lengths of prompts, not their text", "write 'prompts: random' or 'prompts: text'"
    yield "trace", traced and grouped, "a trace has its own shared prefixes", "write 'prefix_groups: 0'"
    yield "turns", load.turns > 1 and cold, "each turn repeats those before it, which a prefix cache would keep", _ALLOW_CACHE
    yield "prefix_groups", grouped and cold, "shared prefixes fill a prefix cache", _ALLOW_CACHE
    yield "system_tokens", load.system_tokens > 0 and (recorded or traced), "a recording has its own system messages", "leave it out"
    yield "prefix_groups", grouped and recorded, "a data set has prompts of its own", "write 'prompts: random' or 'prompts: text'"
    warm = load.prefix_cache == "warm"
    yield "prefix_cache", warm and not grouped, "nothing is shared that could be sent before", "write prefix_groups and prefix_tokens"
    yield "prefix_cache", warm and load.turns > 1, "the answers of a conversation are not known before", _ALLOW_CACHE


_ALLOW_CACHE = "write 'prefix_cache: allowed'"
