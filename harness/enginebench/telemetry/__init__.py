"""What the machine did while a load ran: GPUs, processors, the engine's processes and containers, as time series, and figures of them.

`subject` is what was watched, `sampler` the program that watches it (with one source for each kind of thing), `hardware` the arithmetic.
Knows no engine, no metric of the samples and no verdict (`enginebench.verdict.hardware` judges).
"""

from enginebench.telemetry.hardware import Hardware, hardware_of, mean_watts
from enginebench.telemetry.subject import Subject, Throttle

__all__ = ["Hardware", "Subject", "Throttle", "hardware_of", "mean_watts"]
