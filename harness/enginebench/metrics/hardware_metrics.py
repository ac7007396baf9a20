"""Figures of a cell that need its telemetry: power, energy per token, memory of the GPUs. A formula in one place each, as in `metrics`.

Undefined (NaN) where no GPU is known to be the cell's. Knows no reading of a device.
"""

from __future__ import annotations

from collections.abc import Mapping

from enginebench.metrics.hardware import Hardware
from enginebench.metrics.requests import Floats, Metric, one, output_throughput
from enginebench.records.samples import Samples


def mean_power(_: Samples, hardware: Hardware) -> Floats:
    """Mean power of all GPUs that the cell ran on together: what their energy counters rose by in the window / its length.

    Where a device has no such counter, the mean of its power readings over time. Neither the processors' nor the power supply's.
    """
    return one(hardware.watts)


def energy_per_token(s: Samples, hardware: Hardware) -> Floats:
    """Energy per output token: mean power of the GPUs / output throughput, both of the same window."""
    pace = float(output_throughput(s)[0])
    return one(hardware.watts / pace if hardware.watts is not None and pace > 0 else None)


def gpu_memory(_: Samples, hardware: Hardware) -> Floats:
    """Peak GPU memory: the most that was in use in the window, by everybody, on the fullest of the cell's GPUs.

    What an engine reserves for its KV cache counts as in use.
    """
    return one(hardware.peak_memory_bytes)


HARDWARE_METRICS: Mapping[str, Metric] = {
    "mean_power": Metric("mean_power", "GPU power", "W", "cell", "lower", mean_power),
    "energy_per_token": Metric("energy_per_token", "energy per token", "J/tok", "cell", "lower", energy_per_token),
    "gpu_memory": Metric("gpu_memory", "peak GPU memory", "B", "cell", "lower", gpu_memory),
}
"""The figures that exist only where GPUs were watched; `compute` takes the samples and the Hardware."""
