"""Tasks of lm-evaluation-harness on one running engine, in its own environment and process. Its scores are stored as it reports them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.adapter import WORKERS, Unsupported
from enginebench.checkpoints import Vocabulary
from enginebench.domain.quality import TaskCheck
from enginebench.engines.tools import LM_EVAL, python_of_tool
from enginebench.records.quality import TaskScore
from enginebench.runner.engine import Engine
from enginebench.runner.quality.bridge import Bridge, serving_bridge

TIMEOUT_S = 6 * 3600.0
TAIL_LINES = 1


def measure_task(engine: Engine, task: TaskCheck, doubt: str = "") -> tuple[TaskScore, ...]:
    """All metrics of one task. doubt: why the engine's log-probabilities are not believed; then only a task that generates can be measured.
    ValueError with the reason if it cannot be measured."""
    python = python_of_tool(LM_EVAL)
    if python is None:
        raise ValueError("lm-evaluation-harness is not installed: bench engines install lm-eval")
    deployment = engine.launch.deployment
    try:
        scoring, why_not = None if doubt else engine.adapter.scoring(deployment.inside), doubt
    except Unsupported as reason:
        scoring, why_not = None, str(reason)
    streams = 1 if deployment.runtime == "in-process" else deployment.max_concurrency
    with tempfile.TemporaryDirectory(prefix="enginebench-") as folder, serving_bridge(Bridge(engine, scoring, why_not)) as url:
        tokenizer = _tokenizer(engine.prompts.vocabulary, Path(folder))
        base = engine.prompts.base / Path(task.folder).expanduser() if task.folder else None
        job = {
            "task": task.name, "limit": task.limit, "folder": str(base.resolve()) if base else None, "api": task.api, "url": url,
            "model": engine.served_name or deployment.model, "tokenizer": tokenizer, "streams": streams,
            "max_length": deployment.max_context, "out": f"{folder}/result.json",
        }  # fmt: skip
        _run([str(python), str(WORKERS / "lm_eval_worker.py")], job, base)
        result = json.loads(Path(f"{folder}/result.json").read_text())
    return tuple(replace(its, asked=task.name) if its.task != task.name else its for its in _scores(result))


def _tokenizer(vocabulary: Vocabulary | None, folder: Path) -> str:
    """A folder with the checkpoint's tokenizer, as transformers loads it."""
    if vocabulary is None or vocabulary.tokenizer is None:
        raise ValueError("the tokenizer of this checkpoint cannot be read here")
    (folder / "tokenizer").mkdir()
    vocabulary.tokenizer.save(str(folder / "tokenizer" / "tokenizer.json"))
    ends = vocabulary.tokenizer.id_to_token(vocabulary.prefix_ids[0] if vocabulary.prefix_ids else 0)
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": ends, "bos_token": ends}
    (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(about))
    return str(folder / "tokenizer")


def _run(command: Sequence[str], job: Mapping[str, Any], base: Path | None) -> None:
    """In the folder of the task, so that its data files are found. ValueError with the last line if it fails."""
    local = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"} if base is not None else {}
    env = {**os.environ, **local, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            command, input=json.dumps(job), env=env, cwd=base, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"the task did not end within {TIMEOUT_S / 3600:g} h") from None
    if done.returncode:
        raise ValueError("lm-evaluation-harness failed: " + " | ".join(done.stderr.rstrip().splitlines()[-TAIL_LINES:]))


def _scores(result: Mapping[str, Any]) -> Iterator[TaskScore]:
    """One for each task and metric; a group has several tasks."""
    for task, values in result["results"].items():
        for name, value in values.items():
            metric, _, filtered = name.partition(",")
            if metric.endswith("_stderr") or not isinstance(value, int | float) or not filtered:
                continue
            stderr = values.get(f"{metric}_stderr,{filtered}")
            known = [each for each in result["samples"].get(task, ()) if each.get("filter", filtered) == filtered and metric in each]
            binary = bool(known) and all(each[metric] in (0, 1) for each in known)
            yield TaskScore(
                task, metric if filtered == "none" else name, float(value),
                float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None,
                tuple(str(each["doc_hash"]) for each in known) if binary else (),
                tuple(int(each[metric]) for each in known) if binary else (),
            )  # fmt: skip
