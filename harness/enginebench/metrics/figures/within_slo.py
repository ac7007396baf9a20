"""Goodput and SLO attainment: how many requests meet every limit of the SLO at once.

A metric becomes a limit of the SLO with `slo_limit` in its declaration. TTFT and E2E count from scheduled arrival, so that time in a queue
in front of the server is included.
"""

import numpy as np

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.registry import Metric, Need, Shown, Trait, metric, metrics, one
from enginebench.metrics.tokens import output_tokens, unstreamed


@metric(
    "goodput", scope="cell", unit="req/s", better="higher", traits={Trait.LATENCY, Trait.TIMELINE}, needs=(Need.SLO,),
    missing="a limit of the SLO needs output tokens that were not counted", shown=(Shown(20, 1),),
)  # fmt: skip
def goodput(c: Context) -> Floats:
    """Goodput: requests that meet every limit of the SLO / measured window, TTFT and E2E from scheduled arrival. Never above req/s.

    Undefined when the SLO limits TPOT and the tokens of a successful request are unknown.
    """
    length = c.window_s
    return one(_good(c)[c.samples.ended_inside].sum() / length if length > 0 else None)


@metric(
    "SLO attainment", header="within SLO", scope="cell", unit="1", better="higher", traits={Trait.LATENCY}, needs=(Need.SLO,),
    missing="a limit of the SLO needs output tokens that were not counted", shown=(Shown(21, 4),),
)  # fmt: skip
def slo_attainment(c: Context) -> Floats:
    """SLO attainment: share of the requests that meet every limit of the SLO at once; a failed request meets none.

    Requests that the load itself aborted are not counted. Undefined as for goodput, and where no request was sent in the window.
    """
    inside = c.samples.inside & ~c.samples.aborted
    return one(_good(c)[inside].mean() if inside.any() else None)


def _good(c: Context) -> Floats:
    """For each request of the whole cell: 1 if it meets the SLO, 0 if not, NaN if a limit on TPOT needs tokens that were not counted or
    never streamed.

    An answer without a TPOT (one token, or one event) exceeds no limit on it. A request without output meets no limit on latency.
    """
    whole = c.whole.samples
    limits = c.run.slo.limits if c.run.slo is not None else {}
    good, counted = whole.ok.copy(), np.ones(len(whole), dtype=bool)
    for its in metrics().values():
        if (limit := limits.get(its.slo_limit)) is not None:
            good &= _meets(its, its(c.whole), limit)
            if Need.TOKENS in its.needs:
                counted &= ~np.isnan(output_tokens(whole)) & ~unstreamed(whole)
    return np.where(good & ~counted, np.nan, good.astype(np.float64))


def _meets(its: Metric, values: Floats, limit: float) -> np.typing.NDArray[np.bool_]:
    exceeded = values < limit if its.better == "higher" else values > limit
    return ~exceeded & (~np.isnan(values) | (Trait.PACE in its.traits))
