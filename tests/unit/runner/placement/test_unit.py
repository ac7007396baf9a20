"""A unit is plain data: what comes out on a node is the cell that the plan has, wherever the files lie."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.domain.ids import text_of
from enginebench.errors import UserError
from enginebench.records.files import write_atomically
from enginebench.runner.placement.core_set import core_set
from enginebench.runner.placement.unit_data import Unit, parse_unit, read_unit, unpack
from enginebench.runner.placement.unit_files import Reader, as_tar, from_tar
from enginebench.runner.placement.unit_plan import plan_of, units_of
from enginebench.scenario.planning import plan

SCENARIO = """
name: s
slo: {{ttft_ms: 500, share: 0.9}}
parity: {{prompts: 2}}
equal_within: 5%
placement: {{exclusive: false, cores: 1}}
deployments:
  - {{engine: fake, model: any, precision: none, options: {{itl_ms: [1, 2]}}, node: [{{name: a}}, {{name: b, rack: 2}}]}}
loads:
  - {{concurrency: [1, 2], input_tokens: 8, output_tokens: 4, requests: 4}}
  - {{rate: 5, input_tokens: 8, output_tokens: 4, requests: 4, prompts: "jsonl:chat.jsonl"}}
  - {{concurrency: 1, input_tokens: 8, output_tokens: 4, requests: 4, find: {{concurrency: [1, 8]}}, prompts: text}}
repeats: 2
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    folder = tmp_path / "driver"
    folder.mkdir()
    (folder / "chat.jsonl").write_text("".join(json.dumps({"prompt": f"question {i}"}) + "\n" for i in range(8)))
    (folder / "s.yaml").write_text(SCENARIO.replace("{{", "{").replace("}}", "}").replace(", find: {concurrency: [1, 8]}", ""))
    return folder / "s.yaml"


def units(scenario: Path) -> list[Unit]:
    return [parse_unit(_text(unit, scenario.parent)) for unit in units_of(plan(scenario))]


def _text(unit: Unit, folder: Path) -> str:
    unit.write(folder / "unit.json")
    return (folder / "unit.json").read_text()


def test_the_units_of_a_plan_have_its_cells_in_its_order(scenario: Path) -> None:
    whole, found = plan(scenario), units(scenario)
    assert [cell.id for unit in found for cell in unit.cells] == [cell.id for cell in whole.cells]
    assert len(found) == 8
    assert len({unit.id for unit in found}) == 8
    assert found[0].deployment == whole.cells[0].deployment
    assert [dict(unit.deployment.node) for unit in found[:2]] == [{"name": "a"}, {"name": "b", "rack": "2"}]
    assert all((unit.exclusive, unit.cores) == (False, 1) for unit in found)
    assert [unit.repeat for unit in found] == [0] * 4 + [1] * 4, "repeats stay interleaved"


def test_a_node_plans_the_same_cells_without_the_drivers_files(scenario: Path, tmp_path: Path) -> None:
    whole, (unit, *_) = plan(scenario), units(scenario)
    far = replace(unit, setting=replace(unit.setting, file="/nowhere/s.yaml"))
    unpack(far, tmp_path / "node" / "inputs")
    there = plan_of(far, tmp_path / "node" / "inputs")
    assert [cell.id for cell in there.cells] == [cell.id for cell in whole.cells[: len(there.cells)]]
    assert there.contents == whole.contents
    assert there.scenario.slo == whole.scenario.slo
    assert there.scenario.parity == whole.scenario.parity
    assert there.scenario.equal_within == 0.05
    assert (there.base / "chat.jsonl").read_bytes() == (scenario.parent / "chat.jsonl").read_bytes()


def test_the_first_unit_of_a_deployment_measures_its_quality(scenario: Path, tmp_path: Path) -> None:
    (scenario.parent / "text.txt").write_text("a text")
    with scenario.open("a") as file:
        file.write("quality: {perplexity: {text: text.txt, windows: 2, window: 32}, under_load: true}\n")
    whole, found = plan(scenario), units(scenario)
    assert [unit.quality == whole.scenario.quality for unit in found] == [True] * 4 + [False] * 4
    assert [unit.quality for unit in found[4:]] == [None] * 4
    assert ["text.txt" in unit.files for unit in found] == [True] * 4 + [False] * 4, "its text travels with it"
    known = {text_of(found[0].deployment)}
    assert [unit.quality is None for unit in units_of(whole, assessed=known)] == [True, False, False, False] + [True] * 4
    far = replace(found[0], setting=replace(found[0].setting, file="/nowhere/s.yaml"))
    unpack(far, tmp_path / "inputs")
    there = plan_of(far, tmp_path / "inputs")
    assert there.scenario.quality == whole.scenario.quality
    assert (there.base / "text.txt").read_text() == "a text"


def test_other_files_on_the_node_are_refused(scenario: Path, tmp_path: Path) -> None:
    (unit, *_) = units(scenario)
    unpack(unit, tmp_path / "inputs")
    (tmp_path / "inputs" / "chat.jsonl").write_text('{"prompt": "another"}\n')
    with pytest.raises(UserError, match="this node has other files than the driver: prompts jsonl:chat"):
        plan_of(replace(unit, setting=replace(unit.setting, file="/nowhere/s.yaml")), tmp_path / "inputs")


def test_a_unit_of_another_version_or_with_a_file_outside_is_refused(scenario: Path, tmp_path: Path) -> None:
    (unit, *_) = units(scenario)
    replace(unit, enginebench="0.0.1").write(tmp_path / "unit.json")
    with pytest.raises(UserError, match=r"the driver has 0\.0\.1"):
        read_unit(tmp_path / "unit.json")
    with pytest.raises(UserError, match="outside its folder"):
        unpack(replace(unit, files={"../evil": ""}), tmp_path / "inputs")


def test_an_adapter_that_is_not_built_in_travels(tmp_path: Path) -> None:
    from enginebench.machine.folders import resource_dir

    text = (resource_dir("adapters") / "fake.py").read_text().replace('name = "fake"', 'name = "mine"')
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "s.yaml").write_text(
        "name: s\ndeployments: [{engine: mine, model: any, precision: none}]\nloads: [{input_tokens: 8, output_tokens: 4, requests: 2}]\n"
    )
    (unit,) = units_of(plan(tmp_path / "s.yaml", adapters=[tmp_path / "mine.py"]))
    assert list(unit.adapter) == ["mine.py"]
    assert plan_of(unit, tmp_path / "node" / "inputs").registry["mine"].name == "mine"
    shutil.rmtree(tmp_path / "node")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine.py").rename(tmp_path / "mine" / "__init__.py")
    (tmp_path / "mine" / "more.py").write_text("")
    (unit,) = units_of(plan(tmp_path / "s.yaml", adapters=[tmp_path / "mine"]))
    assert list(unit.adapter) == ["mine/__init__.py", "mine/more.py"]
    assert plan_of(unit, tmp_path / "node" / "inputs").registry["mine"].name == "mine"


def test_files_come_once_and_logs_when_their_server_has_stopped(tmp_path: Path) -> None:
    run, reader = tmp_path / "2026-01-02-s", Reader(tmp_path)
    for folder in ("cells", "samples", "launches", "logs"):
        (run / folder).mkdir(parents=True)
    assert reader.new() == {}
    write_atomically(tmp_path / "node.json", "{}")
    write_atomically(run / "run.json", "{}")
    (run / "logs" / "l.log").write_text("a secret, not masked yet")
    write_atomically(run / "launches" / "l.json", json.dumps({"startup": {"stop_s": None}}))
    assert list(reader.new()) == ["node.json", "run.json", "launches/l.json"]
    (run / "samples" / "c.parquet").write_bytes(b"samples")
    write_atomically(run / "cells" / "c.json", "{}")
    assert reader.new() == {"samples/c.parquet": b"samples", "cells/c.json": b"{}"}
    assert reader.new() == {}
    (run / "logs" / "l.log").write_text("***")
    write_atomically(run / "launches" / "l.json", json.dumps({"startup": {"stop_s": 1.5}}))
    assert list(reader.new()) == ["launches/l.json", "logs/l.log"]
    write_atomically(tmp_path / "ended.json", "{}")
    assert list(reader.new()) == ["ended.json"]
    everything = Reader(tmp_path).new()
    assert list(everything)[-1] == "ended.json"
    assert from_tar(as_tar(everything)) == everything


def test_two_core_sets_have_no_core_in_common(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_LEASES", str(tmp_path))
    before = os.sched_getaffinity(0)
    with core_set(0) as nothing:
        assert not nothing
    with core_set(1) as first:
        assert os.sched_getaffinity(0) == first
        os.sched_setaffinity(0, before)
        if len(before) > 1:
            with core_set(1) as second:
                assert not first & second
        with (
            pytest.raises(UserError, match=rf"{len(before)} cores are asked for, and {len(before) - 1} of {len(before)} are free"),
            core_set(len(before)),
        ):
            pass
    assert os.sched_getaffinity(0) == before
