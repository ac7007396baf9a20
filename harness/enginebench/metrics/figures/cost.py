"""What the output tokens cost at the prices that were given. Without prices cells have none of these figures."""

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.costs import Cost, cost
from enginebench.metrics.figures.throughput import output_throughput
from enginebench.metrics.registry import Need, Shown, Trait, metric, one


@metric(
    "cost per million tokens", header="cost", scope="cost", unit="money/Mtok", better="lower", needs=(Need.PRICES,), shown=(Shown(11, 1),)
)
def cost_per_token(c: Context) -> Floats:
    """Cost per million output tokens: money per hour of the devices / output tokens per hour x 1,000,000, with electricity where priced."""
    return one(_cost(c).per_million_tokens)


@metric(
    "throughput per price", header="speed per price", scope="cost", unit="tok/s/money", better="higher", needs=(Need.PRICES,),
    shown=(Shown(12, 4),),
)  # fmt: skip
def throughput_per_money(c: Context) -> Floats:
    """Output tokens/s for each unit of money that the devices cost to buy."""
    return one(_cost(c).tokens_per_s_per_money)


@metric("bandwidth per price", scope="cost", unit="GB/s/money", better="higher", needs=(Need.PRICES,), shown=(Shown(13, 7),))
def bandwidth_per_money(c: Context) -> Floats:
    """Memory bandwidth of the devices, GB/s, for each unit of money that they cost to buy. It depends on no measurement."""
    return one(_cost(c).bandwidth_per_money)


@metric(
    "energy per token", header="energy", scope="cost", unit="J/tok", better="lower", traits={Trait.DEVICE}, needs=(Need.PRICES,),
    shown=(Shown(15, 5, instead_of="energy_per_token"),),
)  # fmt: skip
def joules_per_token(c: Context) -> Floats:
    """Energy per output token at the measured power, else at the `watts` given with the price."""
    return one(_cost(c).joules_per_token)


def _cost(c: Context) -> Cost:
    """Every field is None without prices or throughput."""
    pace, machine = float(output_throughput(c)[0]), c.machine
    if c.run.prices is None or not pace > 0:
        return Cost(None, None, None, None, None)
    return cost(
        pace,
        machine.device.name if machine else "",
        c.devices,
        c.run.prices,
        watts=c.hardware.watts,
        bandwidth_gb_s=machine.device.bandwidth / 1e9 if machine else None,
    )
