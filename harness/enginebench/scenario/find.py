"""The load that a search sends at one of its levels. `enginebench.domain.search` decides which level comes next."""

from __future__ import annotations

from dataclasses import replace

from enginebench.domain import Load, Search
from enginebench.scenario.defaults import default_requests


def load_at(search: Search, level: float) -> Load:
    """The search's load at a level."""
    load = search.base.at_level(level)
    if "requests" in search.follows:
        load = replace(load, requests=default_requests(load, search.least))
    return replace(load, warmup_requests=load.usual_warmup) if "warmup_requests" in search.follows else load
