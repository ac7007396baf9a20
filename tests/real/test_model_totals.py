"""The totals that unit tests expect of every family are those of the models that transformers builds."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover

pytestmark = [pytest.mark.real, pytest.mark.engines, pytest.mark.timeout(600)]
TOTALS = Path(__file__).parents[1] / "unit" / "physics" / "family_totals.jsonl"


def test_transformers_builds_what_is_expected(need: Callable[[str], None]) -> None:
    need("transformers")
    python = installs_of(discover()["transformers"])[0].python
    lines = TOTALS.read_text()
    done = subprocess.run([python, Path(__file__).with_name("build_totals.py")], input=lines, text=True, capture_output=True, timeout=580)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = [json.loads(line) for line in lines.splitlines()]
    built = [int(line) for line in done.stdout.splitlines()]
    assert [(each["config"]["model_type"], each["total"]) for each in expected] == [
        (each["config"]["model_type"], total) for each, total in zip(expected, built, strict=True)
    ]
