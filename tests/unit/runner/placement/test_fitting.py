"""Which nodes fit a unit, what is said of the others, and what is handed to a scheduler next."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from enginebench.domain import ClosedLoop, Deployment
from enginebench.machine.labels import labels_of
from enginebench.runner.placement.base import Node
from enginebench.runner.placement.demand import Demand, demands_of, next_of
from enginebench.runner.placement.fitting import choice_of, why_not
from enginebench.runner.placement.unit_data import Setting, Unit

H100 = {"name": "NVIDIA H100 80GB HBM3", "memory_bytes": 85_520_809_984, "driver": "580.65", "detail": {}}
A100 = {"name": "NVIDIA A100-SXM4-80GB", "memory_bytes": 85_899_345_920, "driver": "580.65", "detail": {}}


def unit(engine: str = "vllm", **changes: Any) -> Unit:
    deployment = Deployment(engine, "tiny", "bf16", "org/tiny", node=changes.pop("node", {}))
    load = ClosedLoop(concurrency=1, input_tokens=8, output_tokens=8, requests=2)
    return replace(Unit("abc-0", "vllm, repeat 1", deployment, (load,), 0, Setting("s")), **changes)


def node(name: str, *gpus: dict[str, Any], cores: int = 8, **changes: Any) -> Node:
    facts: dict[str, Any] = {"architecture": "x86_64", "cpu": "AMD EPYC 9654", "usable_cores": cores, "gpus": list(gpus)}
    found = Node(name, cores, len(gpus), labels_of(facts, {"vllm": "0.11"}), facts, {"vllm": "0.11"})
    return replace(found, **changes)


@pytest.mark.parametrize(
    ("asked", "there", "reason"),
    [
        ({}, node("a"), ""),
        ({}, node("a", engines={}), "vllm is not installed there"),
        ({}, node("a", engines=None), ""),
        ({"node": {"name": "b"}}, node("a"), "its name is a, not b"),
        ({"node": {"name": "a"}}, node("a"), ""),
        ({"node": {"rack": "2"}}, node("a"), "it has no label rack"),
        ({"node": {"gpu": "nvidia-h100-80gb-hbm3"}}, node("a", H100), ""),
        ({"node": {"gpu": "nvidia-h100-80gb-hbm3"}}, node("a", A100), "its gpu is nvidia-a100-sxm4-80gb, not nvidia-h100-80gb-hbm3"),
        ({"gpus": 2, "needs_gpus": True}, node("a"), "2 GPUs needed, it has none"),
        ({"gpus": 2, "needs_gpus": True}, node("a", H100), "2 GPUs needed, it has 1"),
        ({"gpus": 2}, node("a", H100), "2 GPUs needed, it has 1"),
        ({"gpus": 2}, node("a"), ""),
        ({"gpus": 2, "needs_gpus": True}, node("a", H100, H100), ""),
        ({"gpus": 1, "needs_gpus": True, "setting": Setting("s", hardware="1xh100")}, node("a", H100), ""),
        ({"gpus": 1, "needs_gpus": True, "setting": Setting("s", hardware="1xh100")}, node("a", A100),
         "1 GPU as in 1xh100 needed, it has NVIDIA A100-SXM4-80GB"),
        ({"exclusive": False, "cores": 16}, node("a"), "16 cores needed, it has 8"),
        ({"exclusive": False, "cores": 8}, node("a"), ""),
        ({}, node("a", problem="it did not answer for 60 s"), "it did not answer for 60 s"),
    ],
)  # fmt: skip
def test_what_keeps_a_unit_from_a_node(asked: dict[str, Any], there: Node, reason: str) -> None:
    assert why_not(unit(**asked), there) == reason


def test_nodes_that_lack_the_same_are_named_together() -> None:
    nodes = [node(name, engines={}) for name in "abcdef"] + [node("g", H100, engines={"vllm": "0.11"})]
    assert choice_of(unit(), nodes).nodes == ("g",)
    refused = choice_of(unit(), nodes[:-1])
    assert refused.why_not == "a, b, c, d and 2 more: vllm is not installed there"
    assert choice_of(unit(), ()).why_not == "the cluster has no node"


def test_an_exclusive_unit_takes_all_cores_of_each_kind_of_node() -> None:
    nodes = [node("a"), node("b"), node("big", H100, cores=64)]
    assert demands_of(unit(gpus=1), nodes) == [Demand(("a", "b"), 8, 0), Demand(("big",), 64, 1)]
    assert demands_of(unit(gpus=1, exclusive=False, cores=2), nodes) == [Demand(("a", "b"), 2, 0), Demand(("big",), 2, 1)]


def test_one_unit_of_each_demand_waits_at_a_time_so_the_order_of_the_plan_stays() -> None:
    small, big = Demand(("a", "b"), 8, 0), Demand(("big",), 64, 1)
    first, second = unit(id="1-0"), unit(id="2-0")
    assert next_of([(first, [small]), (second, [small])], set(), {}) == (0, small)
    assert next_of([(second, [small])], {small}, {"a": 1, "b": 1}) is None
    assert next_of([(first, [small]), (second, [big])], {small}, {}) == (1, big)
    assert next_of([(first, [small, big])], set(), {"a": 1, "b": 1}) == (0, big), "the least busy"
    assert next_of([(first, [small, big]), (second, [small])], {small, big}, {}) is None
    assert next_of([(first, [small]), (second, [small, big])], {small}, {}) == (1, big)
