"""Power, energy and memory of the GPUs, from telemetry over the window. Undefined where no GPU is known to be the cell's."""

from __future__ import annotations

from enginebench.metrics.context import Context, Floats
from enginebench.metrics.figures.throughput import output_throughput
from enginebench.metrics.registry import Need, Shown, Trait, metric, one


@metric("GPU power", scope="machine", unit="W", better="lower", traits={Trait.DEVICE}, needs=(Need.TELEMETRY,))
def mean_power(c: Context) -> Floats:
    """Mean power of all GPUs of the cell together: the rise of their energy counters over the window / its length.

    For a device without such a counter it is the mean of its power readings over time. Processors and power supplies are not included.
    """
    return one(c.hardware.watts)


@metric(
    "energy per token",
    header="energy",
    scope="machine",
    unit="J/tok",
    better="lower",
    traits={Trait.DEVICE},
    needs=(Need.TELEMETRY, Need.TOKENS),
    shown=(Shown(14, 5),),
)
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
