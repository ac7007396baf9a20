"""Figures of a cell that need something from outside the run: what physics allows the machine, and what the machine costs.

A formula in one place each, as in `metrics`; undefined (NaN) where the ceiling or the price is not known. Knows no model, machine or price.
"""

from __future__ import annotations

from collections.abc import Mapping

from enginebench.metrics.costs import Cost
from enginebench.metrics.requests import Floats, Metric, one


def share_of_ceiling(output_tok_s: float, ceiling_tok_s: float | None) -> Floats:
    """% of ceiling: output throughput / the most that physics allows this model, precision, spread and load on this machine.

    The ceiling of a closed loop of B streams is the lower of two: output tokens / the seconds for which a request keeps memory, arithmetic
    or links busy (prefill's arithmetic, and a B-th of each decode step of B sequences), and B x output tokens / the least time of one
    request alone. In an open loop B is the mean number of running requests that the engine counted. Experts are touched as under even
    routing. On a processor only the bandwidth of its memory counts.
    """
    return one(output_tok_s / ceiling_tok_s if ceiling_tok_s else None)


def cost_per_token(cost: Cost) -> Floats:
    """Cost per million output tokens: money per hour of the devices / output tokens per hour x 1,000,000, with electricity where priced."""
    return one(cost.per_million_tokens)


def throughput_per_money(cost: Cost) -> Floats:
    """Output tokens/s for each unit of money that the devices cost to buy."""
    return one(cost.tokens_per_s_per_money)


def bandwidth_per_money(cost: Cost) -> Floats:
    """Memory bandwidth of the devices, GB/s, for each unit of money that they cost to buy. It depends on no measurement."""
    return one(cost.bandwidth_per_money)


def joules_per_token(cost: Cost) -> Floats:
    """Energy per output token at the power that was measured, or where nobody measured at the watts that stand beside the price."""
    return one(cost.joules_per_token)


CEILING_METRICS: Mapping[str, Metric] = {
    "share_of_ceiling": Metric("share_of_ceiling", "% of ceiling", "1", "cell", "higher", share_of_ceiling),
}
COST_METRICS: Mapping[str, Metric] = {
    "cost_per_token": Metric("cost_per_token", "cost per million tokens", "money/Mtok", "cell", "lower", cost_per_token),
    "throughput_per_money": Metric("throughput_per_money", "speed per price", "tok/s/money", "cell", "higher", throughput_per_money),
    "bandwidth_per_money": Metric("bandwidth_per_money", "bandwidth per price", "GB/s/money", "cell", "higher", bandwidth_per_money),
    "joules_per_token": Metric("joules_per_token", "energy per token", "J/tok", "cell", "lower", joules_per_token),
}
COST_AND_CEILING_METRICS: Mapping[str, Metric] = {**CEILING_METRICS, **COST_METRICS}
"""`compute` takes the throughput and its ceiling, or the `Cost`."""
