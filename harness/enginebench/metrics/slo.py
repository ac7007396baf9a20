"""Service level objectives: what a good answer is, how many requests per second gave one, and the limits MLPerf publishes.

A request is good when it ended well and keeps every limit; TTFT and E2E count from when the request was *due*, so a queue in
front of the server is not left out. Pure functions of samples; knows no scenario file and no search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from enginebench.domain import JSON
from enginebench.errors import UserError, did_you_mean
from enginebench.metrics import requests
from enginebench.metrics.requests import Floats, Metric, one
from enginebench.metrics.tokens import output_tokens
from enginebench.records.samples import Samples


@dataclass(frozen=True)
class Slo:
    """Most seconds to the first token, per output token after it, and to the end of the answer; None: no such limit.

    share: of the requests that must keep all of them at once for the load to meet the SLO. That is stricter than one percentile
    for each limit: a load that meets it at 0.99 has each of its p99 within the limit, but not the other way round.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None
    share: float = 0.99

    @property
    def text(self) -> str:
        """'TTFT 2 s, TPOT 80 ms for 99 % of requests'."""
        limits = (("TTFT", self.ttft_s), ("TPOT", self.tpot_s), ("E2E", self.e2e_s))
        return f"{', '.join(f'{name} {_time(limit)}' for name, limit in limits if limit)} for {100 * self.share:g} % of requests"


PRESETS: Mapping[str, Slo] = {
    "mlperf/mixtral-8x7b": Slo(ttft_s=2.0, tpot_s=0.2),
    "mlperf/deepseek-r1": Slo(ttft_s=2.0, tpot_s=0.08),
    "mlperf/gpt-oss-120b": Slo(ttft_s=3.0, tpot_s=0.08),
}
"""The p99 limits of the server scenario of MLPerf Inference (MLCommons), by benchmark."""

_LIMITS = ("ttft", "tpot", "e2e")
_KEYS = ("preset", "share", *(f"{name}_{unit}" for name in _LIMITS for unit in ("ms", "s")))
_EXAMPLE = "write a preset's name, or limits such as {ttft_ms: 500, tpot_ms: 50, share: 0.99}"


def parse(given: Mapping[str, JSON] | str) -> Slo:
    """An SLO from a preset's name, or from limits in `_ms` or `_s`, a `share` and a `preset` that they change; null leaves a key out.

    UserError for an unknown preset or key, for anything that is no positive number, and for an SLO without a limit.
    """
    written: dict[str, JSON] = {"preset": given} if isinstance(given, str) else {k: v for k, v in given.items() if v is not None}
    if unknown := next((key for key in written if key not in _KEYS), None):
        raise UserError("is no limit of an SLO", key=f"slo.{unknown}", advice=did_you_mean(unknown, _KEYS))
    name = written.get("preset")
    if name is not None and name not in PRESETS:
        raise UserError(f"there is no preset '{name}'", key="slo", advice=did_you_mean(str(name), PRESETS))
    limits = {f"{limit}_s": seconds for limit in _LIMITS if (seconds := _limit(written, limit)) is not None}
    base = PRESETS[str(name)] if name is not None else Slo()
    slo = replace(base, **limits, share=_positive("share", written.get("share", base.share)))
    if slo.share > 1:
        raise UserError("is a share of the requests, above 0 and at most 1", key="slo.share", advice="write 0.99 for 99 % of them")
    if slo == Slo(share=slo.share):
        raise UserError("an SLO needs at least one limit", key="slo", advice=_EXAMPLE)
    return slo


def _limit(written: Mapping[str, JSON], name: str) -> float | None:
    factors = {f"{name}_s": 1.0, f"{name}_ms": 1e-3}
    found = [_positive(key, written[key]) * factor for key, factor in factors.items() if key in written]
    if len(found) > 1:
        raise UserError(f"{name} is limited twice, in s and in ms", key="slo", advice=f"keep `{name}_ms`")
    return found[0] if found else None


def _positive(key: str, value: JSON) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < np.inf:
        raise UserError(f"must be a positive number, not {value!r}", key=f"slo.{key}", advice=_EXAMPLE)
    return float(value)


def _time(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1e3:g} ms"


# -- figures -------------------------------------------------------------------------------------------------------------


def goodput(s: Samples, slo: Slo) -> Floats:
    """Goodput: requests that meet every limit of the SLO / measured window, TTFT and E2E counted from due. Never above req/s.

    NaN when a limit on TPOT is set and the tokens of a successful request are not known.
    """
    window = requests.window_s(s)
    return one(_good(s, slo)[s.ended_inside].sum() / window if window > 0 else None)


def attainment(s: Samples, slo: Slo) -> Floats:
    """SLO attainment: share of the requests that meet every limit of the SLO at once; a failed request meets none.

    NaN as for goodput, and where no request was sent in the window.
    """
    return one(_good(s, slo)[s.inside].mean() if s.inside.any() else None)


SLO_METRICS: Mapping[str, Metric] = {
    "goodput": Metric("goodput", "goodput", "req/s", "cell", "higher", goodput),
    "slo_attainment": Metric("slo_attainment", "within SLO", "1", "cell", "higher", attainment),
}
"""The figures that exist only where an SLO is set; `compute` takes the samples and the Slo."""


def _good(s: Samples, slo: Slo) -> Floats:
    """1 for each good request of the whole cell, 0 for the others, NaN where a limit on TPOT needs tokens that nobody counted.

    An answer without a pace (one token, or one event) breaks no limit on the pace.
    """
    whole = s.within(None)
    good = whole.ok.copy()
    for limit, found in ((slo.ttft_s, requests.ttft_due(whole)), (slo.e2e_s, requests.e2e_due(whole))):
        if limit is not None:
            good &= found <= limit  # NaN: no output, so not good
    if slo.tpot_s is None:
        return good.astype(np.float64)
    good &= ~(requests.tpot(whole) > slo.tpot_s)
    return np.where(good & np.isnan(output_tokens(whole)), np.nan, good.astype(np.float64))
