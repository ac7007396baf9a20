"""The scenario's loads, shorter: what a race sends. Never equal to the scenario's own, so fresh restarts are not mixed with a race's."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from enginebench.domain import Load, fields_of
from enginebench.runner.tuning.race import LENGTHS

_LEAST_S = 2.0
_LEAST_REQUESTS = 8
_PER_STREAM = 2


def shorter(load: Load, stage: int) -> Load:
    """Half of its length in the screening, all of it in the race: fewer requests, less time; other prompts, by another seed.

    A load of which neither says how long it takes (a trace) is sent whole.
    """
    share, own = LENGTHS[stage], fields_of(type(load))
    changes: dict[str, Any] = {"seed": load.seed + 1 + stage}
    if load.duration_s is not None and "duration_s" in own and "duration_s" not in load.excluded:
        changes["duration_s"] = min(load.duration_s, max(_LEAST_S, share * load.duration_s))
    if load.requests and "requests" not in load.excluded:
        least = max(_LEAST_REQUESTS, _PER_STREAM * (load.streams or 0))
        wanted = min(load.requests, max(least, math.ceil(share * load.requests)))
        changes["requests"] = min(load.requests, load.turns * math.ceil(wanted / load.turns))
    return replace(load, **changes)
