"""What a load is where the scenario does not say: lengths, limits, and how many requests make a measurement."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from enginebench.domain import Load, Search, fields_of, kind_of
from enginebench.metrics.slo import Slo
from enginebench.metrics.statistics import samples_needed

OPEN_STREAMS = 64
"""Requests in flight that a server must take for an open loop without a limit."""


def completed(point: Mapping[str, Any], least: int = 0) -> Load:
    """The load of one point of an entry. None stands for a key that is not written; fields without effect have their defaults.

    So two points that differ only in a field without effect (the burstiness of constant arrivals) are one load. least: as in
    `default_requests`.
    """
    kind = kind_of(point)
    given = {name: point[name] for name in fields_of(kind) if point.get(name) is not None}
    if ":" in given["prompts"]:
        given = {"input_tokens": "data", "output_tokens": "data"} | given
    load = kind(**given)
    unused = {name: fields_of(kind)[name].default for name in given if fields_of(kind)[name].needs and not load.uses(name)}
    load = replace(load, **unused)
    if "requests" not in given:
        load = replace(load, requests=default_requests(load, least))
    return load if "warmup_requests" in given else replace(load, warmup_requests=load.usual_warmup)


def default_requests(load: Load, least: int = 0) -> int:
    """Requests where the scenario does not say: what the load calls usual, or 0, as many as there are, with a duration.

    least: fewest requests that a decision based on them needs.
    """
    if load.duration_s is not None or not load.usual_requests:
        return 0
    return max(least, load.usual_requests * load.turns)


def probe_requests(slo: Slo | None) -> int:
    """Fewest requests of a search's probe where the scenario does not say: what its share of good ones needs to be judged.

    A quarter more than `samples_needed`, because the steady window omits some. Any number decides a share of all requests.
    """
    return 0 if slo is None or slo.share >= 1 else math.ceil(1.25 * samples_needed(100 * slo.share))


def search_seconds(search: Search) -> tuple[float, float] | None:
    """The shortest and the longest time for which one search sends, over all ways that it can go; None where the server's pace decides.

    A probe above the limit may end early, and what is sent is followed by the last replies: the bounds are those of a server that keeps up.
    """
    if not search.base.open_loop and search.base.duration_s is None:
        return None
    known: dict[float, float] = {}
    for level in {level for path in search.paths() for level in path}:
        load = load_at(search, level)
        warmup = load.warmup_requests / level if load.open_loop else 0.0
        ends = [load.duration_s] if load.duration_s is not None else []
        ends += [load.requests / load.turns / level] if load.open_loop and load.requests else []
        known[level] = min(ends) + warmup
    times = [sum(known[level] for level in path) for path in search.paths()]
    return min(times), max(times)


def load_at(search: Search, level: float) -> Load:
    load = search.base.at_level(level)
    if "requests" in search.follows:
        load = replace(load, requests=default_requests(load, search.least))
    return replace(load, warmup_requests=load.usual_warmup) if "warmup_requests" in search.follows else load
