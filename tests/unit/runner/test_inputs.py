"""A run goes on only with the checkpoints, data sets and traces that it was begun with."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.checkpoints import RandomMoE
from enginebench.checkpoints.gguf_file import write_gguf
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.domain import Deployment
from enginebench.errors import UserError
from enginebench.records.run_folder import find_runs
from enginebench.report.plan import plan_to_dict, plan_to_text
from enginebench.runner.folder import open_run_for
from enginebench.scenario.contents import contents_of
from enginebench.scenario.plan import Plan
from enginebench.scenario.planning import plan

SCENARIO = """
name: inputs
models: {{m: {{checkpoints: {{f16: {checkpoint}}}}}}}
deployments: [{{engine: {engine}, model: m, precision: f16}}]
loads:
  - {{concurrency: 1, prompts: "jsonl:chat.jsonl", output_tokens: 4, requests: 2}}
  - {{trace: azure.csv, requests: 2}}
"""
MACHINE = {"cpu": "x"}


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., Plan]:
    """planned() -> the plan of a scenario whose files a test may change."""
    write_gguf(RandomMoE(seed=1), "f16", tmp_path / "m.gguf")
    write_hf_folder(RandomMoE(seed=1), "f16", tmp_path / "folder")
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps({"prompt": f"question {i} of some length"}) + "\n" for i in range(8)))
    rows = "".join(f"2024-05-10 00:00:0{i}.0,100,20\n" for i in range(5))
    (tmp_path / "azure.csv").write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows)

    def make(engine: str = "llamacpp", checkpoint: str = "m.gguf") -> Plan:
        (tmp_path / "s.yaml").write_text(SCENARIO.format(engine=engine, checkpoint=checkpoint))
        return plan(tmp_path / "s.yaml", hardware="any")

    return make


def open_(plan: Plan, results: Path, *, fresh: bool = False) -> Path:
    with open_run_for(plan, results, MACHINE, fresh=fresh, retry_failed=False, say=lambda _: None) as run:
        return run.path


def test_what_a_plan_measures_with_is_shown_and_stored(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned()
    names = ["checkpoint m.gguf", "prompts jsonl:chat.jsonl", "trace azure.csv"]
    assert list(plan.contents) == names
    assert plan.contents["trace azure.csv"].size == (tmp_path / "azure.csv").stat().st_size
    assert all(f"{name} {plan.contents[name].short}" in plan_to_text(plan) for name in names)
    open_(plan, tmp_path / "results")
    (run,) = find_runs(tmp_path / "results")
    assert run.record.inputs == plan.contents
    nothing = replace(plan, cells=())
    shown = plan_to_dict(nothing, [])
    assert isinstance(shown, dict)
    assert (shown["plan_id"], shown["identity"], list(shown["inputs"])) == (nothing.id, nothing.identity, names)
    assert nothing.identity != replace(nothing, contents={}).identity


@pytest.mark.parametrize(
    ("engine", "checkpoint", "file", "named"),
    [
        ("llamacpp", "m.gguf", "m.gguf", "checkpoint m.gguf (sha256"),
        ("llamacpp", "m.gguf", "chat.jsonl", "prompts jsonl:chat.jsonl ("),
        ("llamacpp", "m.gguf", "azure.csv", "trace azure.csv ("),
        ("transformers", "folder", "folder/tokenizer_config.json", "checkpoint folder (tokenizer_config.json)"),
        ("transformers", "folder", "folder/model.safetensors", "checkpoint folder (model.safetensors)"),
    ],
)
def test_other_contents_are_refused_with_their_names(
    planned: Callable[..., Plan], tmp_path: Path, engine: str, checkpoint: str, file: str, named: str
) -> None:
    before = planned(engine, checkpoint)
    run = open_(before, tmp_path / "results")
    changed = bytearray((tmp_path / file).read_bytes())
    at = changed.rindex(b"2") if file.endswith("csv") else changed.rindex(b"question") if file.endswith("jsonl") else len(changed) // 2
    changed[at] = changed[at] ^ 1 if not file.endswith("csv") else ord("3")
    (tmp_path / file).write_bytes(changed)
    after = planned(engine, checkpoint)
    assert (after.id, after.identity == before.identity) == (before.id, False)
    with pytest.raises(UserError, match="changed since it was begun") as refused:
        open_(after, tmp_path / "results")
    assert named in str(refused.value)
    assert "--fresh" in str(refused.value)
    assert open_(after, tmp_path / "results", fresh=True) != run


def test_a_run_from_before_contents_were_stored_goes_on(planned: Callable[..., Plan], tmp_path: Path) -> None:
    plan = planned()
    path = open_(plan, tmp_path / "results")
    record = json.loads((path / "run.json").read_text())
    del record["inputs"], record["checksum"]
    (path / "run.json").write_text(json.dumps(record))
    assert open_(plan, tmp_path / "results") == path
    assert "checkpoint m.gguf" in json.loads((path / "run.json").read_text())["inputs"]


def test_a_hub_id_is_identified_by_its_snapshot_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    repository = tmp_path / "hf" / "hub" / "models--org--name"
    write_hf_folder(RandomMoE(), "bf16", repository / "snapshots" / "0123abc")
    deployment = Deployment("vllm", "m", "bf16", "org/name")
    assert not contents_of([deployment], [], tmp_path), "not fetched yet"
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123abc")
    found = contents_of([deployment], [], tmp_path)
    assert "tokenizer.json" in found["checkpoint org/name"].files
    assert not contents_of([replace(deployment, runtime="attach", checkpoint="m")], [], tmp_path)
