"""Totals of a load are differences; a position of speculation that no token had reached before the load counts from zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

from enginebench.runner.engine_counters import CounterWatch


def totals(*readings: Mapping[str, float]) -> Mapping[str, float]:
    left: Iterator[Mapping[str, float]] = iter(readings)
    adapter: Any = SimpleNamespace(counters=lambda _get: next(left))
    engine: Any = SimpleNamespace(get=None)
    with CounterWatch(engine, adapter) as watch:
        pass
    return watch.totals()


def test_a_position_that_nothing_had_reached() -> None:
    before = {"output_tokens": 4.0, "drafts": 1.0, "draft_tokens": 3.0, "accepted_tokens": 1.0, "accepted_at_1": 1.0}
    after = {"output_tokens": 9.0, "drafts": 3.0, "draft_tokens": 9.0, "accepted_tokens": 4.0, "accepted_at_1": 3.0, "accepted_at_2": 1.0}
    assert totals(before, after) == {
        "output_tokens": 5, "drafts": 2, "draft_tokens": 6, "accepted_tokens": 3, "accepted_at_1": 2, "accepted_at_2": 1,
    }  # fmt: skip


def test_other_totals_need_both_ends() -> None:
    assert totals({"output_tokens": 4.0}, {"output_tokens": 9.0, "preemptions": 2.0, "accepted_at_1": 1.0}) == {"output_tokens": 5}
