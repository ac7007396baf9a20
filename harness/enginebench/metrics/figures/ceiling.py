"""How close the output throughput comes to what physics allows."""

from __future__ import annotations

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.figures.throughput import output_throughput
from enginebench.metrics.registry import Need, Shown, metric, one


@metric(
    "% of ceiling",
    header="of ceiling",
    scope="machine",
    unit="1",
    better="higher",
    needs=(Need.CEILING, Need.TOKENS),
    shown=(Shown(10, 4),),
)
def share_of_ceiling(c: Context) -> Floats:
    """% of ceiling: output throughput / the highest that physics allows this model, precision, parallelism and load on this machine.

    The ceiling of a closed loop of B streams is the lower of two: output tokens / the seconds for which a request keeps memory, arithmetic
    or links busy (prefill's arithmetic, and a B-th of each decode step of B sequences), and B x output tokens / the least time of one
    request alone. In an open loop B is the mean number of running requests that the engine counted. Experts are touched as under even
    routing. On a processor only its memory bandwidth counts.
    """
    pace = float(output_throughput(c)[0])
    return one(pace / c.ceiling_tok_s if pace > 0 and c.ceiling_tok_s else None)
