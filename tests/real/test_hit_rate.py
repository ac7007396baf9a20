"""The prefix hit rate that real engines count on a trace of sessions, against that of their own rules, within 2 points.

Every session begins with the same text, and every turn repeats the one before. Rules: llama.cpp shares tokens of requests that have ended,
vLLM whole blocks of what is scheduled, Transformers whole pages of what is computed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

TINY = "{architecture: llama, experts: 1, top_k: 1, layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32}"
SESSIONS, TURNS, PART = 6, 3, 200
"""A first turn has two parts, of which one is common to all sessions, and every turn adds a part."""


def trace(every_s: float) -> str:
    rows = [
        {
            "session_id": session, "timestamp": 1000 * (every_s * session + 0.01 * turn), "input_length": PART * (2 + turn),
            "output_length": 8, "hash_ids": [0, *(100 * (session + 1) + part for part in range(1 + turn))], "block_size": PART,
        }
        for session in range(SESSIONS) for turn in range(TURNS)
    ]  # fmt: skip
    return "\n".join(map(json.dumps, rows)) + "\n"


def by_hand(block: int) -> float:
    """What a cache of whole blocks has of this trace if it forgets nothing: the common part of all sessions but the first, and turns."""
    lengths = [PART * (2 + turn) for turn in range(TURNS)]
    shared = (SESSIONS - 1) * (PART // block * block) + SESSIONS * sum(length // block * block for length in lengths[:-1])
    return shared / (SESSIONS * sum(lengths))


def rows_of(measure: Callable[[str], Any], tmp_path: Path, engine: str, options: str, spacings: tuple[float, ...]) -> Any:
    for number, every_s in enumerate(spacings):
        (tmp_path / f"{number}.jsonl").write_text(trace(every_s))
    traces = ", ".join(str(tmp_path / f"{number}.jsonl") for number in range(len(spacings)))
    entry = f"{{engine: {engine}, model: tiny, precision: f32, options: {options}, max_concurrency: {SESSIONS}, max_context: 1024}}"
    load = f"{{trace: [{traces}], prefix_cache: allowed, time_unit: ms}}"
    rows = measure(f"name: h\nmodels:\n  tiny: {{random_weights: {TINY}}}\ndeployments: [{entry}]\nloads: [{load}]\n")[1].rows
    for row in rows:
        assert row.status == "ok", row.reasons
        counted, expected = row.figures["prefix_hit_rate"].value, row.figures["rule_hit_rate"].value
        assert counted == pytest.approx(expected, abs=0.02), row.load.trace
        assert row.figures["reusable_share"].value == pytest.approx(by_hand(1), abs=1e-4)
    return rows


def test_llamacpp(need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path) -> None:
    """Sessions at once, of which none finds the text that all begin with, and sessions one after another."""
    need("llamacpp")
    together, apart = rows_of(measure, tmp_path, "llamacpp", "{threads: 1, prefix_cache: true}", (0.0, 0.2))
    assert together.figures["rule_hit_rate"].value <= apart.figures["rule_hit_rate"].value
    assert apart.figures["prefix_hit_rate"].value == pytest.approx(by_hand(1), abs=0.02)


@pytest.mark.engines
@pytest.mark.parametrize(
    ("engine", "options", "block"),
    [
        ("vllm", "{prefix_cache: true, kv_gib: 0.2, enforce_eager: true}", 128),
        ("transformers", "{prefix_cache: true, threads: 1, device: cpu, cb_page_size: 64}", 64),
    ],
)
def test_engines_with_blocks(
    need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path, engine: str, options: str, block: int
) -> None:
    need(engine)
    (row,) = rows_of(measure, tmp_path, engine, options, (1.0,))
    assert row.figures["rule_hit_rate"].value == pytest.approx(by_hand(block), abs=0.02)
