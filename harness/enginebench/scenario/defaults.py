"""What a load is where the scenario does not say: lengths, limits, and how many requests make a measurement."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from enginebench.domain import Load
from enginebench.metrics.slo import Slo
from enginebench.metrics.statistics import samples_needed

_CLOSED_LEAST = 16
_PER_STREAM = 4
_OPEN_SECONDS = 60
_OPEN_LEAST = 64
_OPEN_WARMUP = 4
OPEN_STREAMS = 64
"""Requests in flight that an open loop without a limit is thought to need at most."""


def completed(point: Mapping[str, Any], least: int = 0) -> Load:
    """The load of one point of an entry. None stands for what is not written; what does not apply there falls to its default.

    So two points that differ only in what does not apply (the burstiness of constant arrivals) are one load. least: as in
    `default_requests`.
    """
    given = {key: value for key, value in point.items() if value is not None}
    data = ":" in given["prompts"]
    first = {
        "concurrency": 0 if "rate" in given or "trace" in given else 1,
        "input_tokens": "data" if data else 128,
        "output_tokens": "data" if data else 64,
    }
    applies = {
        "rate_to": given.get("rate_to") != given.get("rate"),
        "burstiness": given["arrivals"] == "gamma",
        "think_s": given["turns"] > 1,
        "prefix_tokens": given["prefix_groups"] > 0,
        "prefix_groups": given["prefix_tokens"] > 0,
    }
    load = Load(**first | {key: value for key, value in given.items() if applies.get(key, True)})
    if "requests" not in given:
        load = replace(load, requests=default_requests(load, least))
    return load if "warmup_requests" in given else replace(load, warmup_requests=default_warmup(load))


def default_requests(load: Load, least: int = 0) -> int:
    """Closed loop: 4 per stream, at least 16. A rate: a minute's worth, at least 64. As many as there are, with a duration or a trace.

    least: what is needed for a decision that hangs on them; fewer are never the default.
    """
    if load.duration_s is not None or load.trace is not None:
        return 0
    if load.rate is None:
        return max(least, max(_CLOSED_LEAST, _PER_STREAM * load.concurrency) * load.turns)
    mean = (load.rate + (load.rate if load.rate_to is None else load.rate_to)) / 2
    return max(least, max(_OPEN_LEAST, math.ceil(_OPEN_SECONDS * mean)) * load.turns)


def probe_requests(slo: Slo | None) -> int:
    """Fewest requests that a probe of a search is given where the scenario does not say: what its share of good ones needs to be judged.

    A quarter more than `samples_needed`, because the steady window leaves some out. A share of all requests is decided by any number.
    """
    return 0 if slo is None or slo.share >= 1 else math.ceil(1.25 * samples_needed(100 * slo.share))


def default_warmup(load: Load) -> int:
    """One per stream; a few where nothing says how many there will be."""
    return load.concurrency or _OPEN_WARMUP
