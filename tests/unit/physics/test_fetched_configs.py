"""Configs of mixtures that were fetched from public places after the table of fields was written give the totals that are published.

fetched_configs.jsonl has each with its source: copies of config.json in public repositories, hub pages, and the configuration classes of
transformers, whose defaults are the config of a checkpoint that they name. None of them is in the catalogue.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from enginebench.physics import find_model
from enginebench.physics.config import from_config

FETCHED = [json.loads(line) for line in Path(__file__).with_name("fetched_configs.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("each", FETCHED, ids=lambda each: each["name"])
def test_total_is_the_published_one(each: dict[str, Any]) -> None:
    model = from_config(each["name"], each["config"])
    total, published = model.params / 1e9, each["published"]
    assert total == pytest.approx(published, rel=0.01) or round(total) == published  # some publish whole billions only
    assert each["source"]
    assert find_model(each["name"]) is None
    assert bool(model.notes) == (each["config"]["model_type"] == "Klear")  # the only type that no family names


def test_there_are_twenty() -> None:
    assert len({each["name"] for each in FETCHED}) >= 20
    assert len({each["config"]["model_type"] for each in FETCHED}) >= 14
