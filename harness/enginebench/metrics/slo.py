"""Service level objectives (SLOs): the limits that a request must meet, how they are written, and the limits that MLPerf publishes.

A limit is a field of `Slo`, and the metric that it applies to names it with `slo_limit`. Does not know samples.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from enginebench.domain import JSON
from enginebench.domain.formatting import percent
from enginebench.errors import UserError, did_you_mean
from enginebench.workload.catalogue import catalogue


def _limit(meaning: str) -> Any:
    """meaning: follows 'Most milliseconds' in the documentation of the scenario file."""
    return field(default=None, metadata={"meaning": meaning})


@dataclass(frozen=True)
class Slo:
    """Upper limits in seconds, and the share of requests that must meet all of them at once; None: no such limit."""

    ttft_s: float | None = _limit("to the first token, from the scheduled arrival")
    tpot_s: float | None = _limit("per output token after the first")
    e2e_s: float | None = _limit("to the end of the answer, from the scheduled arrival")
    share: float = 0.99
    """Stricter than one percentile per limit: a load that meets the SLO at 0.99 has each p99 within its limit, but not vice versa."""

    @property
    def limits(self) -> dict[str, float]:
        """Name of each limit that is set -> seconds: {'ttft': 2.0}."""
        return {name: limit for name in LIMITS if (limit := getattr(self, f"{name}_s")) is not None}

    @property
    def text(self) -> str:
        """'TTFT 2 s, TPOT 80 ms for 99 % of requests'."""
        limits = (f"{name.upper()} {_time(limit)}" for name, limit in self.limits.items())
        return f"{', '.join(limits)} for {percent(self.share, 6)} of requests"


LIMITS: Mapping[str, str] = {its.name.removesuffix("_s"): its.metadata["meaning"] for its in fields(Slo) if its.metadata}
"""Name of a limit -> its meaning."""

PRESETS: Mapping[str, Slo] = {
    "mlperf/mixtral-8x7b": Slo(ttft_s=2.0, tpot_s=0.2),
    "mlperf/deepseek-r1": Slo(ttft_s=2.0, tpot_s=0.08),
    "mlperf/gpt-oss-120b": Slo(ttft_s=3.0, tpot_s=0.08),
}
"""The p99 limits of the server scenario of MLPerf Inference (MLCommons), by benchmark. Each named workload is a preset as well."""

_KEYS = ("preset", "share", *(f"{name}_{unit}" for name in LIMITS for unit in ("ms", "s")))
_EXAMPLE = "write a preset's name, or limits such as {ttft_ms: 500, tpot_ms: 50, share: 0.99}"


def parse(given: Mapping[str, JSON] | str) -> Slo:
    """An SLO from a preset's name, or from limits in `_ms` or `_s`, a `share`, and a `preset` that they change; null omits a key.

    UserError for an unknown preset or key, for a value that is not a positive number, and for an SLO without a limit.
    """
    written: dict[str, JSON] = {"preset": given} if isinstance(given, str) else {k: v for k, v in given.items() if v is not None}
    if unknown := next((key for key in written if key not in _KEYS), None):
        raise UserError("unknown limit of an SLO", key=f"slo.{unknown}", advice=did_you_mean(unknown, _KEYS))
    name = written.pop("preset", None)
    base = Slo() if name is None else preset(str(name))
    values: dict[str, float] = {}
    for key, value in written.items():
        limit = key.replace("_ms", "_s")
        if limit in values:
            raise UserError(f"{limit.removesuffix('_s')} is limited twice, in s and in ms", key="slo", advice=f"keep `{limit[:-1]}ms`")
        values[limit] = _positive(key, value) * (1e-3 if key.endswith("_ms") else 1.0)
    slo = replace(base, **values)
    if slo.share > 1:
        raise UserError("must be a share of the requests, above 0 and at most 1", key="slo.share", advice="write 0.99 for 99 % of them")
    if not slo.limits:
        raise UserError("an SLO needs at least one limit", key="slo", advice=_EXAMPLE)
    return slo


def preset(name: str) -> Slo:
    """The SLO of a preset or of a named workload. UserError if there is none of that name."""
    if name in PRESETS:
        return PRESETS[name]
    if (found := catalogue().get(name.partition("@")[0])) is not None:
        return parse(found.slo)
    raise UserError(f"unknown preset '{name}'", key="slo", advice=did_you_mean(name, [*PRESETS, *catalogue()]))


def read_slo(given: Mapping[str, JSON] | str) -> Slo:
    """`parse`, which also reads 'ttft_ms=500,tpot_ms=50' with the keys of a scenario's `slo`."""
    if not isinstance(given, str) or "=" not in given:
        return parse(given)
    written: dict[str, JSON] = {}
    for item in given.split(","):
        key, _, value = map(str.strip, item.partition("="))
        try:
            written[key] = value if key == "preset" else float(value)
        except ValueError:
            advice = "write e.g. --slo ttft_ms=500,tpot_ms=50,share=0.99, or a preset's name"
            raise UserError(f"--slo {item.strip()}: expected KEY=NUMBER", advice=advice) from None
    return parse(written)


def _positive(key: str, value: JSON) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"must be a positive number, not {value!r}", key=f"slo.{key}", advice=_EXAMPLE)
    return float(value)


def _time(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms"
