"""Ids of cells, launches and plans never change: a stored run is resumed and compared by them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from enginebench.engines.registry import discover
from enginebench.scenario import load_scenario
from enginebench.scenario.plan import plan

KEPT = Path(__file__).parents[2] / "kept" / "plans"
IDS = json.loads((KEPT / "ids.json").read_text())
"""Written by the code of 2026-11-29, before loads, records and metrics were reorganised."""


@pytest.mark.parametrize("name", sorted(IDS))
def test_a_kept_scenario_has_the_ids_it_always_had(name: str) -> None:
    registry = discover()
    made = plan(load_scenario(KEPT / f"{name}.yaml", registry), registry)
    assert [cell.id for cell in made.cells] == IDS[name]["cells"]
    assert list(dict.fromkeys(cell.launch_id for cell in made.cells)) == IDS[name]["launches"]
    assert made.id == IDS[name]["plan"]
