"""The metrics of a GuideLLM benchmark, computed as GuideLLM computes them from the requests in its report.

Times are those of the report, seconds of the wall clock: a double holds them to 0.24 us, and what GuideLLM makes of the report is what this
makes of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from enginebench.report.exporters.guidellm_statistics import by_status, concurrency, rate, spread
from enginebench.report.measured import Floats, Measured

_MODALITIES: Mapping[str, tuple[str, ...]] = {
    "image": ("tokens", "images", "pixels", "bytes"), "video": ("tokens", "frames", "seconds", "bytes"),
    "audio": ("tokens", "samples", "seconds", "bytes"), "tool_call": ("tokens", "mixed_tokens", "count"),
}  # fmt: skip
Event = tuple[float, float]
"""(time, tokens)."""


def wall(cell: Measured, ns: Any) -> Any:
    """Times of the samples as seconds of the wall clock."""
    return cell.epoch_s + (ns - cell.zero_ns) / 1e9


def metrics_of(cell: Measured, counts: Mapping[str, int]) -> dict[str, Any]:
    """All metrics of a cell by status."""
    of, zeros = _Requests(cell), np.zeros(len(cell.s))
    per: dict[str, Floats] = {
        "request_latency": of.end - of.start, "prompt_token_count": of.entered, "output_token_count": of.made,
        "total_token_count": of.entered + of.made, "request_streaming_iterations_count": cell.s.events.astype(np.float64),
        "time_to_first_token_ms": np.where(of.some, 1e3 * (of.first - of.start), 0),
        "time_to_first_output_token_ms": np.where(cell.s.first_answer_ns > 0, 1e3 * (of.answer - of.start), 0),
        "time_to_last_round_trip_ms": zeros, "avg_round_trip_time_ms": zeros,
    }  # fmt: skip
    out: dict[str, Any] = {"request_totals": dict(counts)}
    out |= {name: by_status(values, of.ok) for name, values in per.items()}
    made = np.maximum(of.made, 1)
    each = np.where(of.made > 0, 1e3 * (np.where(of.some, of.last, of.end) - of.start) / made, 0)
    out["time_per_output_token_ms"] = by_status(each, of.ok, weights=of.made)
    between = np.where((of.made > 1) & of.some, 1e3 * (of.last - of.first) / np.maximum(of.made - 1, 1), 0)
    out["inter_token_latency_ms"] = by_status(between, of.ok, weights=np.maximum(of.made - 1, 0))
    return out | _over_time(of) | {name: dict.fromkeys(fields) for name, fields in _MODALITIES.items()}


@dataclass(frozen=True, eq=False)
class _Requests:
    """The requests of a cell as the report has them."""

    cell: Measured

    @cached_property
    def ok(self) -> npt.NDArray[np.bool_]:
        return self.cell.ok

    @cached_property
    def some(self) -> npt.NDArray[np.bool_]:
        return self.cell.s.events > 0

    @cached_property
    def start(self) -> Floats:
        return np.asarray(wall(self.cell, self.cell.s.sent_ns))

    @cached_property
    def end(self) -> Floats:
        return np.asarray(wall(self.cell, self.cell.s.end_ns))

    @cached_property
    def first(self) -> Floats:
        return np.asarray(wall(self.cell, self.cell.first_ns))

    @cached_property
    def last(self) -> Floats:
        return np.asarray(wall(self.cell, self.cell.last_ns))

    @cached_property
    def answer(self) -> Floats:
        return np.asarray(wall(self.cell, self.cell.s.first_answer_ns))

    @cached_property
    def made(self) -> Floats:
        return np.nan_to_num(self.cell.output_tokens)

    @cached_property
    def entered(self) -> Floats:
        return self.cell.input_tokens.astype(np.float64)

    @property
    def span(self) -> tuple[float, float]:
        """Start and end of the benchmark."""
        return self.cell.epoch_s, self.cell.epoch_s + self.cell.duration_s

    @property
    def groups(self) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
        yield from (
            ("successful", self.ok),
            ("incomplete", np.zeros_like(self.ok)),
            ("errored", ~self.ok),
            ("total", np.ones_like(self.ok)),
        )

    @cached_property
    def events(self) -> list[list[Event]]:
        """Of each request: the first token, then the others evenly until the last event; in one event all tokens."""
        out: list[list[Event]] = []
        for i, (made, n) in enumerate(zip(self.made, self.cell.s.events, strict=True)):
            if n <= 1:
                out.append([(float(self.last[i] if n else self.end[i]), float(made))])
                continue
            rest = np.linspace(self.first[i], self.last[i], num=int(n))[1:] if made > 1 else ()
            out.append([(float(self.first[i]), float(bool(made))), *((float(at), (made - 1.0) / (n - 1.0)) for at in rest)])
        return out


def _over_time(of: _Requests) -> dict[str, Any]:
    """Rates and requests in flight over the benchmark."""
    spans = list(zip(of.start, of.end, np.ones(len(of.end)), strict=True))
    prompts = list(zip(np.where(of.some, of.first, of.end), of.entered, strict=True))
    tokens = [[each for _, each in its] for its in of.events]
    rest = [[each for _, each in its[1:]] for its in of.events]
    out: dict[str, Any] = {}
    for group, some in of.groups:
        rows = np.flatnonzero(some)
        made = [each for i in rows for each in of.events[i]]
        found: dict[str, Any] = {
            "requests_per_second": rate([(of.end[i], 1.0) for i in rows], *of.span),
            "request_concurrency": concurrency([spans[i] for i in rows], *of.span),
            "output_tokens_per_second": rate(made, *of.span),
            "prompt_tokens_per_second": rate([prompts[i] for i in rows], *of.span),
            "tokens_per_second": rate([*(prompts[i] for i in rows), *made], *of.span),
            "output_tokens_per_iteration": spread(np.array([each for i in rows for each in tokens[i]])),
            "iter_tokens_per_iteration": spread(np.array([each for i in rows for each in rest[i]])),
        }
        for name, value in found.items():
            out.setdefault(name, {})[group] = value
    return out | {"text": {"tokens": _text(of), "words": None, "characters": None}}


def _text(of: _Requests) -> dict[str, Any]:
    """Its summary of tokens: values, rates by the end of each request, and tokens in flight."""
    out: dict[str, Any] = {}
    for name, columns in {"input": (of.entered,), "output": (of.made,), "total": (of.entered, of.made)}.items():
        for group, some in of.groups:
            ends = [(at, value) for column in columns for at, value in zip(of.end[some], column[some], strict=True)]
            spans = [(a, b, value) for column in columns for a, b, value in zip(of.start[some], of.end[some], column[some], strict=True)]
            out.setdefault(name, {})[group] = spread(np.concatenate([column[some] for column in columns]))
            out.setdefault(f"{name}_per_second", {})[group] = rate(ends)
            out.setdefault(f"{name}_concurrency", {})[group] = concurrency(spans)
    return out
