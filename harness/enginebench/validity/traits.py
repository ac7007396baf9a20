"""Traits of metrics, and which metrics have them: a check withholds metrics by trait, never by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

Trait: TypeAlias = Literal["latency", "pace", "online", "device"]
"""latency: time until a reply or its first token, and rates of requests within an SLO. pace: time from token to token.
online: exists only for requests that are served one by one. device: power and memory of the GPUs."""

METRICS_WITH: Mapping[Trait, tuple[str, ...]] = {
    "latency": ("ttft", "ttft_due", "ttfa", "e2e", "e2e_due", "goodput", "slo_attainment"),
    "pace": ("tpot", "itl", "longest_gap", "user_throughput"),
    "online": ("itl", "longest_gap", "reader_wait", "schedule_delay"),
    "device": ("mean_power", "energy_per_token", "gpu_memory"),
}
