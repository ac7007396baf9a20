"""The project's performance targets, and whether measurements meet them.

Input is the medians of a case, with the names of client.py. Does not know: how figures are measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Figures = Mapping[str, float]

SMALL_CELL_BYTES = 60e6
BYTES_PER_EVENT = 40


@dataclass(frozen=True)
class Target:
    """A limit for one figure of one case."""

    case: str
    name: str
    """Name of the figure."""
    label: str
    limit: float
    least: bool = False
    """The limit is a minimum; else a maximum of the absolute value."""
    digits: int = 2
    """Printed decimals."""

    def met(self, measured: float) -> bool:
        return measured >= self.limit if self.least else abs(measured) <= self.limit


TARGETS = (
    Target("256 streams", "ttft_p50", "TTFT error p50, ms", 0.03),
    Target("256 streams", "ttft_p99", "TTFT error p99, ms", 0.4),
    Target("256 streams", "itl_p99", "ITL error p99, ms", 0.3),
    Target("1,024 streams", "ttft_mean", "TTFT error mean, ms", 0.1),
    Target("1,024 streams", "ttft_p99", "TTFT error p99, ms", 0.3),
    Target("1,024 streams", "itl_p99", "ITL error p99, ms", 0.6),
    Target("1,024 streams", "held", "streams held", 1015, least=True, digits=0),
    Target("1,024 streams", "cpu_us", "CPU seconds per million events", 9, digits=1),
    Target(
        "1,024 streams", "spare_mb", f"MB left of {SMALL_CELL_BYTES / 1e6:.0f} + {BYTES_PER_EVENT} bytes per event", 0, least=True, digits=0
    ),
    Target("1,024 in lockstep", "ttft_p99", "TTFT error p99, ms", 1.5),
    Target("2,048 streams", "rate", "events/s received", 190e3, least=True, digits=0),
    Target("burst, 32 at a time", "recorded", "events/s while recording", 1e6, least=True, digits=0),
    Target("burst, 32 at a time", "decoded", "events/s with every event decoded", 550e3, least=True, digits=0),
    Target("burst, 32 at a time", "cpu_us", "CPU seconds per million events", 2, digits=1),
    Target("burst, two processes", "recorded", "events/s while recording", 1.6e6, least=True, digits=0),
    Target("burst, two processes", "decoded", "events/s with every event decoded", 1.6 * 550e3, least=True, digits=0),
)

LOAD_GENERATOR = "load generator, one request of one token"
BENCH_RUN = "bench run, one request of one token, running server"
POST_PROCESSING = "10,000,000 events to every figure, one core"
MAX_SECONDS = {LOAD_GENERATOR: 0.3, BENCH_RUN: 0.8, POST_PROCESSING: 10.0}

HEADER = ("case", "figure", "target", "measured", "")


def with_spare_memory(figures: Figures) -> dict[str, float]:
    """Adds `spare_mb`: allowed minus peak memory of a cell."""
    allowed = SMALL_CELL_BYTES + BYTES_PER_EVENT * figures["events"]
    return {**figures, "spare_mb": (allowed - figures["peak_bytes"]) / 1e6}


def verdicts(measured: Mapping[str, Figures], seconds: Mapping[str, float]) -> Iterator[tuple[str, ...]]:
    """Rows under HEADER. measured: medians of enginebench by case. seconds: by the names of MAX_SECONDS."""
    for target in TARGETS:
        if target.case in measured:
            found = with_spare_memory(measured[target.case])[target.name]
            limit, value = (f"{number:,.{target.digits}f}" for number in (target.limit, found))
            bound = f"{'at least' if target.least else 'at most'} {limit}"
            yield target.case, target.label, bound, value, "met" if target.met(found) else "**not met**"
    for name, most in MAX_SECONDS.items():
        if name in seconds:
            found = seconds[name]
            yield name, "seconds", f"at most {most:g}", f"{found:.2f}", "met" if found <= most else "**not met**"
