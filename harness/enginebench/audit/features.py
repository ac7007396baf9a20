"""Judges what an engine is said to be able to do: whether its adapter can switch it on. What it lacks is our gap, not the claim's."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from enginebench.adapter import Adapter, Unsupported
from enginebench.audit.finding import Judged
from enginebench.audit.kinds import Features
from enginebench.audit.phrases import precision_of
from enginebench.domain import Deployment, Parallelism
from enginebench.engines.registry import Registry

_OPTIONS: tuple[tuple[str, str], ...] = (
    (r"disaggregated", "disaggregated"),
    (r"offload", r"cpu_moe|cpu_offload|moe_cpu"),
    (r"expert\w* implementation|batched_mm|grouped_mm", r"expert"),
    (r"PARALLEL_LOADING|ASYNC_LOAD", "parallel_loading"),
    (r"several models", "^also$"),
    (r"^[A-Z][A-Z_]{5,}$", "env"),
    (r"speculative|draft", r"specul|draft|mtp"),
)
"""Words of a feature, and the names of the options that switch it on."""
_SPREADS: tuple[tuple[str, Parallelism], ...] = (
    (r"tensor parallel|(?:two|2) gpus", Parallelism(tp=2)),
    (r"expert parallel", Parallelism(tp=2, ep=2)),
    (r"pipeline parallel", Parallelism(pp=2)),
    (r"data parallel", Parallelism(dp_replicas=2)),
)


def features(claim: Features, registry: Callable[[], Registry]) -> Judged:
    engines = registry()
    if claim.engine not in engines:
        return Judged("not known here", [f"there is no adapter for {claim.engine}"])
    found = {feature: _how(feature, engines[claim.engine]) for feature in claim.has}
    reasons = [f"{feature}: {how}" for feature, how in found.items() if how]
    lacking = [feature for feature, how in found.items() if how is None]
    if lacking:
        return Judged("not known here", [f"the adapter of {claim.engine} has no option for: {', '.join(lacking)}", *reasons])
    return Judged("plausible", reasons)


def _how(feature: str, adapter: Adapter) -> str | None:
    """How a scenario switches a feature on; None if the adapter cannot."""
    names = [each.name for each in dataclasses.fields(adapter.options)] if dataclasses.is_dataclass(adapter.options) else []
    if re.match(r"batch \d+", feature):
        return "a load with that concurrency"
    for words, parallelism in _SPREADS:
        if re.search(words, feature, re.IGNORECASE):
            return _spread(adapter, parallelism)
    for words, option in _OPTIONS:
        if re.search(words, feature):
            name = next((name for name in names if re.search(option, name)), None)
            return f"option {name}" if name else None
    word = precision_of(feature).split()[0]
    known = adapter.precisions or frozenset()
    if word in known or any(each.startswith(word) for each in known):
        return "a precision of the adapter"
    return None


def _spread(adapter: Adapter, parallelism: Parallelism) -> str | None:
    precision = next(iter(sorted(adapter.precisions or ("bf16",))))
    try:
        adapter.check(Deployment(adapter.name, "any", precision, "any", parallelism=parallelism))
    except Unsupported:
        return None
    return " ".join(f"{name}: {value}" for name, value in vars(parallelism).items() if value != 1)
