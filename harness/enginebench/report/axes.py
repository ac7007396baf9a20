"""The axes of a static chart: from values to places, with round ticks. Pure; knows no markup.

Reads the axes of `enginebench.report.plotly_traces`: plain Plotly JSON with `type`, `range`, `rangemode`, `tickvals`, `ticktext`,
`tickformat` and `title`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from enginebench.domain import JSON
from enginebench.domain.formatting import rounded

_MANTISSAS = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Axis:
    low: float
    high: float
    """Both are logarithms on a logarithmic axis."""
    log: bool
    title: str
    ticks: tuple[tuple[float, str], ...]
    """Value and text."""

    def at(self, value: float) -> float:
        """The place of a value: 0 at the start of the axis, 1 at its end."""
        placed = math.log10(value) if self.log else value
        return (placed - self.low) / (self.high - self.low)

    def holds(self, value: float | None) -> bool:
        """Whether the value can be drawn at all."""
        return value is not None and math.isfinite(value) and (value > 0 or not self.log)


def make_axis(layout: Mapping[str, JSON], values: Iterable[float], *, most: int = 6) -> Axis:
    """An axis that holds the values. most: of its ticks."""
    log = layout.get("type") == "log"
    known = [value for value in values if math.isfinite(value) and (value > 0 or not log)] or [1.0]
    low, high = _ends(layout, known, log=log)
    title = layout.get("title")
    text = str(title.get("text", "")) if isinstance(title, dict) else ""
    return Axis(low, high, log, text, tuple(_ticks(layout, low, high, log=log, most=most)))


def _ends(layout: Mapping[str, JSON], known: Sequence[float], *, log: bool) -> tuple[float, float]:
    given = layout.get("range")
    if isinstance(given, list) and len(given) == 2 and all(isinstance(end, int | float) for end in given):
        return float(str(given[0])), float(str(given[1]))
    low, high = (math.log10(end) if log else end for end in (min(known), max(known)))
    if layout.get("rangemode") == "tozero" and not log:
        low, high = min(0.0, low), max(0.0, high)
    span = high - low if high - low > 1e-6 * (1.0 if log else max(abs(high), abs(low))) else 0.0
    room = 0.06 * span or (0.3 if log else abs(high) * 0.1 or 1.0)
    return low - (room if log or low != 0 else 0.0), high + room


def _ticks(layout: Mapping[str, JSON], low: float, high: float, *, log: bool, most: int) -> list[tuple[float, str]]:
    values, texts = layout.get("tickvals"), layout.get("ticktext")
    if isinstance(values, list) and isinstance(texts, list):
        return [(float(str(value)), str(text)) for value, text in zip(values, texts, strict=True)]
    found = _log_ticks(low, high, most) if log else _linear_ticks(low, high, most)
    if str(layout.get("tickformat", "")).endswith("%"):
        return [(value, f"{100 * value:.0f} %") for value in found]
    return [(value, tick_text(value)) for value in found]


def tick_text(value: float) -> str:
    """'0.5', '20', '1,000', '20k'."""
    if abs(value) >= 10_000:
        return f"{rounded(value / 1e6)}M" if abs(value) >= 1e6 else f"{rounded(value / 1e3)}k"
    return f"{value:,.6g}"


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    step = _round_up((high - low) / most)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next((m * power for m in (*_MANTISSAS, 10.0) if m * power >= value * (1 - 1e-9)), 10 * power)


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    """1, 2 and 5 of each decade; fewer of them where they would be too many."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    every: list[float] = []
    for mantissas in (tuple(map(float, range(1, 10))), _MANTISSAS, (1.0, 3.0), (1.0,)):
        every = [m * 10.0**d for d in decades for m in mantissas if low <= math.log10(m * 10.0**d) <= high]
        if len(every) <= most:
            break
    found = every[:: max(1, -(-len(every) // most))]
    return found if len(found) > 1 else [value for value in _linear_ticks(10**low, 10**high, most) if value > 0]
