"""The totals that unit tests expect of every family are those of the models that transformers and mlx-lm build."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover

pytestmark = [pytest.mark.real, pytest.mark.engines, pytest.mark.timeout(600)]
UNIT = Path(__file__).parents[1] / "unit" / "physics"
NEWER = {"inkling2_loop_text", "lara_mini", "hy_v4_vl", "sarvam_moe", "sarvam_mla"}
"""Types of transformers 5.24, which the environment may lack: rows of these were built with that version."""
OTHER_BEFORE = {"inkling2_text"}
"""A type that has fewer weights before 5.24: 1,152 of 1.9 million less in 5.23."""


def test_transformers_builds_what_is_expected(need: Callable[[str], None]) -> None:
    need("transformers")
    installed = installs_of(discover()["transformers"])[0]
    built = _built(installed.python, "build_totals.py", UNIT / "family_totals.jsonl")
    missing = {kind for kind, _, total in built if not total}
    assert missing <= NEWER
    differing = [each for each in built if each[2] not in (0, each[1])]
    assert [each for each in differing if not (missing and each[0] in OTHER_BEFORE)] == []


def test_mlx_builds_what_is_expected(need: Callable[[str], None]) -> None:
    need("mlx")
    python = installs_of(discover()["mlx"])[0].python
    built = _built(python, "build_totals_mlx.py", UNIT / "family_totals_mlx.jsonl")
    assert [each for each in built if each[2] != each[1]] == []


def _built(python: str | Path, program: str, totals: Path) -> list[tuple[str, int, int]]:
    """Model type, expected total and total that a library builds, for every line of a file."""
    lines = totals.read_text()
    done = subprocess.run([python, Path(__file__).with_name(program)], input=lines, text=True, capture_output=True, timeout=580)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = [json.loads(line) for line in lines.splitlines()]
    totals_built = [int(line) for line in done.stdout.splitlines()]
    return [(each["config"]["model_type"], each["total"], total) for each, total in zip(expected, totals_built, strict=True)]
