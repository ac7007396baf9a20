"""The line that a finished cell leaves: its figures, and what is wrong with them."""

from __future__ import annotations

import re
from collections import Counter

from enginebench.cli.progress import _outcome
from enginebench.domain import Cell
from enginebench.records.run_folder import Run
from enginebench.runner.events import CellEnded

NUMBER = r"[\d.,]+"


def test_a_finished_cell_says_what_is_wrong_with_it(synthetic_run: Run) -> None:
    lines = {}
    for record in synthetic_run.cells():
        if record.deployment.model.startswith("scout") and record.repeat == 0:
            cell = Cell(record.deployment, record.load, record.repeat)
            ended = CellEnded(cell, record, 1, synthetic_run.samples(record.id))
            lines[record.deployment.engine, record.load.concurrency, record.load.input_tokens] = _outcome(ended)
    assert lines["llamacpp", 4, 128].endswith(" ms  suspect: the client used 97 % of a core (limit 80 %)")
    assert lines["attach", 4, 128].endswith(" ms  invalid: asked for 32 output tokens, the server counted 20 on average (limit 10 %)")
    figures = "  ".join(f"{name} {NUMBER} {unit}" for name, unit in (("output", "tok/s"), ("TTFT p50", "ms"), ("TPOT p50", "ms")))
    assert re.search(rf"  {figures}  suspect", f"  {lines['llamacpp', 4, 128]}")
    assert lines["vllm", 16, 1024] == "failed: the engine ended with exit code 1 before it was ready"
    assert lines["attach", 16, 1024].startswith("skipped: weights 215.5 GB")
    marked = Counter(word for line in lines.values() for word in ("suspect", "invalid") if word in line)
    assert marked == {"suspect": 1, "invalid": 1}, "the other cells are valid, and their lines are as before"
