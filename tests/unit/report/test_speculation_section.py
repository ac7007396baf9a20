"""The section on speculation shows tokens per step and the share at each position; runs without any do not have it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from enginebench.domain import ClosedLoop
from enginebench.metrics.statistics import estimate
from enginebench.report.blocks import Table
from enginebench.report.sections.speculation import SECTION


def analysis(**figures: float) -> Any:
    found = {name: estimate([value]) for name, value in figures.items()}
    rows = [
        SimpleNamespace(name="vllm ngram 3", load=ClosedLoop(), figures=found),
        SimpleNamespace(name="vllm", load=ClosedLoop(), figures={}),
    ]
    return SimpleNamespace(rows=rows)


def test_what_it_shows() -> None:
    its = analysis(acceptance_length=2.1, acceptance_rate=0.55, acceptance_at_1=0.7, acceptance_at_2=0.4)
    table, _ = SECTION.blocks(SimpleNamespace(analysis=its))
    assert isinstance(table, Table)
    assert [getattr(each, "text", each) for each in table.headings] == ["deployment", "load", "tokens per step", "accepted", "at 1", "at 2"]
    assert [[getattr(each, "text", each) for each in row] for row in table.rows] == [["vllm ngram 3", "1 stream", "2.1", "55", "70", "40"]]
    assert SECTION.applies(its)
    shown = {"deployment": "vllm ngram 3", "load": "1 stream", "acceptance_length": 2.1, "acceptance_rate": 0.55}
    assert SECTION.data(its) == {"speculation": [shown | {"acceptance_at_1": 0.7, "acceptance_at_2": 0.4}]}


def test_runs_without_speculation_have_none() -> None:
    assert not SECTION.applies(analysis())
    assert SECTION.data(analysis()) == {"speculation": []}
