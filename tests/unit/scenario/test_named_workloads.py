"""A scenario that names a workload and its SLO."""

from __future__ import annotations

from pathlib import Path

import pytest
from enginebench.domain import Load
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.metrics.slo import preset
from enginebench.scenario import load_scenario
from enginebench.scenario.planning import plan

HEAD = "name: w\ndeployments: [{engine: fake, model: any, precision: none, max_context: 200000}]\n"


def loads_of(folder: Path, text: str) -> list[Load]:
    (folder / "w.yaml").write_text(HEAD + text)
    return [cell.load for cell in plan(folder / "w.yaml").cells]


def test_its_keys_are_used_where_none_are_written(tmp_path: Path) -> None:
    first, second = loads_of(tmp_path, "loads: [{workload: rag-8k-512, concurrency: [1, 8], output_tokens: 64}]\nslo: rag-8k-512\n")
    assert (first.workload, first.api, first.input_tokens, first.output_tokens) == ("rag-8k-512@1", "chat", 8192, 64)
    assert (first.concurrency, second.concurrency) == (1, 8)
    slo = load_scenario(tmp_path / "w.yaml", discover()).slo
    assert slo == preset("rag-8k-512")
    assert slo is not None
    assert (slo.ttft_s, slo.tpot_s) == (2.0, 0.05)


def test_every_named_workload_can_be_planned(tmp_path: Path) -> None:
    from enginebench.workload.catalogue import catalogue

    text = "".join(f"- {{workload: {name}, rate: 1, requests: 16}}\n" for name in catalogue())
    assert [load.workload for load in loads_of(tmp_path, f"loads:\n{text}")] == [each.id for each in catalogue().values()]
    assert {preset(name).share for name in catalogue()} == {0.99}


def test_lengths_that_are_written_replace_those_of_a_mix(tmp_path: Path) -> None:
    (load,) = loads_of(tmp_path, "loads: [{workload: chat, concurrency: 1, input_tokens: 100, output_tokens: 8}]\n")
    assert (load.lengths, load.input_tokens, load.api) == (None, 100, "chat")


@pytest.mark.parametrize(("name", "message"), [("chatt", "unknown workload 'chatt'"), ("chat@7", "has chat@1, not chat@7")])
def test_an_unknown_one_is_refused_at_its_line(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        loads_of(tmp_path, f"loads: [{{workload: {name}, concurrency: 1}}]\n")
    assert caught.value.line == 3


def test_a_load_without_a_name_has_the_id_that_it_had(tmp_path: Path) -> None:
    """Absent fields are not part of the id, nor of what is stored."""
    (load,) = loads_of(tmp_path, "loads: [{concurrency: 1}]\n")
    assert not {"workload", "tools", "images", "cancel_share", "time_unit", "system_tokens"} & load.stored().keys()
