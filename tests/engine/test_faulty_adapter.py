"""An adapter that cannot read replies costs what it would have read, and nothing else; and inputs that change during a run."""

from __future__ import annotations

import json

import pytest

from .bench import Bench

ADAPTER = """
import enginebench.adapter as eb
from enginebench.engines.registry import discover

class Faulty(type(discover()["fake"])):
    name = "faulty"

    def {method}(self, get):
        {fault}
"""
QUICK = "options: {ttft_ms: 5, itl_ms: 2}"


@pytest.mark.parametrize(
    "fault", ["raise ValueError('no such family')", "raise SystemExit(3)", "return None", "return {'running': 'many'}"]
)
def test_counters_that_cannot_be_read_cost_the_counters(bench: Bench, fault: str) -> None:
    (bench.folder / "faulty.py").write_text(ADAPTER.format(method="counters", fault=fault))
    done = bench("run", "--adapter", "faulty.py", "--no-html", bench.write(f"engine: faulty, model: any, {QUICK}"))
    assert done.returncode == 0, done.stderr
    for cell in bench.cells():
        assert (cell["status"], cell["counters"]["totals"]) == ("ok", {})
        assert "counters() failed" in cell["counters"]["problem"]


def test_a_configuration_that_cannot_be_read_is_said_to_be_unread(bench: Bench) -> None:
    (bench.folder / "faulty.py").write_text(ADAPTER.format(method="resolved", fault="return get('/props').json()['nothing']"))
    done = bench("run", "--adapter", "faulty.py", "--no-html", bench.write(f"engine: faulty, model: any, {QUICK}"))
    assert done.returncode == 0, done.stderr
    assert [cell["status"] for cell in bench.cells()] == ["ok", "ok"]
    (launch,) = (json.loads(file.read_text()) for file in (bench.run_folder() / "launches").iterdir())
    (difference,) = launch["configuration"]["differences"]
    assert "resolved() failed: " in difference["got"]


def test_a_data_set_that_changes_while_a_run_measures_fails_the_cells_after_it(bench: Bench) -> None:
    """The adapter swaps it between two cells, which no schedule has to be met for."""
    swap = "open('chat.jsonl', 'a').write('{\"prompt\": \"one more\"}\\n'); return {}"
    (bench.folder / "faulty.py").write_text(ADAPTER.format(method="counters", fault=swap))
    (bench.folder / "chat.jsonl").write_text("".join(f'{{"prompt": "question {i} with some words"}}\n' for i in range(12)))
    scenario = bench.write(f"engine: faulty, model: any, {QUICK}")
    text = (bench.folder / scenario).read_text().replace("input_tokens: 16", "prompts: 'jsonl:chat.jsonl'")
    (bench.folder / scenario).write_text(text)
    done = bench("run", "--adapter", "faulty.py", "--no-html", scenario)
    assert done.returncode == 3, done.stderr
    first, second = sorted(bench.cells(), key=lambda cell: str(cell["status"]), reverse=True)
    assert (first["status"], second["status"]) == ("ok", "failed")
    assert "changed while the run was measuring: prompts jsonl:chat.jsonl" in str(second["reason"])


def test_a_secret_in_an_engines_own_log_is_masked_also_after_a_kill(bench: Bench) -> None:
    """Engines inherit HF_TOKEN, and some print their environment."""
    launch = """from dataclasses import replace
        made = super().launch(*get)
        return replace(made, argv=("sh", "-c", 'echo "HF_TOKEN=$HF_TOKEN, ready"; exec "$@"', "sh", *made.argv))"""
    (bench.folder / "faulty.py").write_text(ADAPTER.format(method="launch", fault=launch).replace("(self, get)", "(self, *get)"))
    bench.env["HF_TOKEN"] = "hf_very_secret"
    scenario = bench.write(f"engine: faulty, model: any, {QUICK}")
    done = bench("run", "--adapter", "faulty.py", "--no-html", scenario)
    assert done.returncode == 0, done.stderr
    (log,) = (bench.run_folder() / "logs").iterdir()
    assert "HF_TOKEN=**************, ready" in log.read_text()
    log.write_text(log.read_text().replace("*" * 14, "hf_very_secret"))  # as when the harness was killed
    next((bench.run_folder() / "cells").iterdir()).unlink()
    assert bench("run", "--adapter", "faulty.py", "--no-html", scenario).returncode == 0
    assert not [file for file in bench.run_folder().rglob("*") if file.is_file() and b"hf_very_secret" in file.read_bytes()]
