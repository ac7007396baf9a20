"""How well the deployment predicts a text, beside how fast it is. Measured once per server start: every load of it has the same figure."""

import math

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.registry import Shown, metric, one


@metric(
    "perplexity", scope="cell", unit="per token", better="lower", equal_within=0.005, shown=(Shown(10, 3),),
    missing="not measured on this start, or the engine does not report the probability of given tokens",
)  # fmt: skip
def perplexity(c: Context) -> Floats:
    """Perplexity: e to the mean negative natural log-probability of the scored tokens of a fixed text, by the engine itself.

    Asked for by `quality` in a scenario, and measured with no other request in the engine. Undefined where a log-probability is no number.
    Measured on a start of its own, if the scenario asked for it afterwards; then the cells of the first repeat have it.
    """
    quality = c.run.quality_of(c.record) if c.record is not None else None
    scored = quality.perplexity if quality is not None else None
    if scored is None or not scored.nats:
        return one(None)
    return one(math.exp(math.fsum(scored.nats) / (len(scored.nats) * scored.rule.scored)))
