"""What the machine allows and takes: % of ceiling; power, energy and memory of the GPUs, where they are known to be the cell's."""

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.figures.throughput import output_throughput
from enginebench.metrics.registry import Need, Shown, Trait, metric, one


@metric(
    "% of ceiling", header="of ceiling", scope="machine", unit="1", better="higher", needs=(Need.CEILING, Need.TOKENS),
    shown=(Shown(10, 4),),
)  # fmt: skip
def share_of_ceiling(c: Context) -> Floats:
    """% of ceiling: output throughput / the ceiling of this model, precision, parallelism and load on this machine.

    The ceiling of a closed loop of B streams is the lower of two: output tokens / the seconds for which a request keeps memory, arithmetic
    or links busy (prefill's arithmetic, and a B-th of each decode step of B sequences), and B x output tokens / the least time of one
    request alone. In an open loop B is the mean number of running requests that the engine counted. All tokens
    are assumed to use the same experts, as no routing reads fewer. On a CPU only its memory bandwidth counts.
    """
    pace = float(output_throughput(c)[0])
    return one(pace / c.ceiling_tok_s if pace > 0 and c.ceiling_tok_s else None)


@metric(
    "% of expected", header="of expected", scope="machine", unit="1", better="higher", needs=(Need.EXPECTATION, Need.CEILING, Need.TOKENS),
    shown=(Shown(10, 12),),
)  # fmt: skip
def share_of_expected(c: Context) -> Floats:
    """% of expected: output throughput / what this engine usually reaches with this model and load on such a device.

    Expected are the bytes and operations of a load with usually skewed routing, and a latency for each layer and collective, times the
    median share of that in measurements of the same engine, device (or class of devices) and regime. They are published ones,
    see docs/physics.md; under half of it, a note below the table gives likely causes.
    """
    pace = float(output_throughput(c)[0])
    return one(pace / c.expected_tok_s if pace > 0 and c.expected_tok_s else None)


@metric("GPU power", scope="machine", unit="W", better="lower", traits={Trait.DEVICE}, needs=(Need.TELEMETRY,))
def mean_power(c: Context) -> Floats:
    """Mean power of all GPUs of the cell together: the rise of their energy counters over the window / its length.

    For a device without such a counter it is the mean of its power readings over time. Processors and power supplies are not included.
    """
    return one(c.hardware.watts)


@metric(
    "energy per token", header="energy", scope="machine", unit="J/tok", better="lower", traits={Trait.DEVICE},
    needs=(Need.TELEMETRY, Need.TOKENS), shown=(Shown(14, 5),),
)  # fmt: skip
def energy_per_token(c: Context) -> Floats:
    """Energy per output token: mean power of the GPUs / output throughput, both over the same window."""
    watts, pace = c.hardware.watts, float(output_throughput(c)[0])
    return one(watts / pace if watts is not None and pace > 0 else None)


@metric("peak GPU memory", scope="machine", unit="B", better="lower", traits={Trait.DEVICE}, needs=(Need.TELEMETRY,))
def gpu_memory(c: Context) -> Floats:
    """Peak GPU memory: the most in use in the window, by all processes, on the fullest GPU of the cell.

    Memory that an engine reserves for its KV cache counts as in use.
    """
    return one(c.hardware.peak_memory_bytes)
