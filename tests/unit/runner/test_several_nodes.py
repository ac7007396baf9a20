"""What is known of an engine over several nodes before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from enginebench.adapter import Install, Site, Unsupported
from enginebench.domain import Deployment, Parallelism, plain_object
from enginebench.engines.registry import discover
from enginebench.records.launch import LaunchRecord
from enginebench.runner.several_nodes import spread
from enginebench.runtime.nodes import Followers


class Other:
    rank, name, address, machine = 1, "b", "127.0.0.1", {"cpu": "x"}


class Others(list[Other]):
    """One other node, with the same installation elsewhere."""

    address = "127.0.0.1"

    def __init__(self, engine: str, deployment: Deployment) -> None:
        super().__init__([Other()])
        self.adapter, self.deployment = discover().need(engine), deployment

    def ask(self, what: str, **details: Any) -> list[Mapping[str, Any]]:
        install = Install(self.adapter.name, "2", python=Path("/there/python"), binary=Path("/there/trtllm-serve"))
        if what == "prepare":
            return [{"ports": [7001, 7002], "install": {**plain_object(install)}, "packages": {"p": "2"}}]
        from enginebench.adapter import Node

        nodes = tuple(Node(each["address"], tuple(each["ports"])) for each in details["nodes"])
        found = self.adapter.launch(
            self.deployment, install, Site("127.0.0.1", 1, Path("/there"), "/weights/there", (7001, 7002), nodes=nodes)
        )
        return [{"members": [plain_object(each) for each in found.members if each.node == 1]}]


def spread_of(engine: str, precision: str) -> tuple[Any, LaunchRecord]:
    deployment = Deployment(engine, "m", precision, "/w", parallelism=Parallelism(tp=2), nodes=2)
    launch = LaunchRecord("id", deployment, 0, "now")
    install = Install(engine, "1", python=Path("/here/python"), binary=Path("/here/trtllm-serve"))
    ports = tuple(range(7001, 7001 + discover().need(engine).traits(deployment).extra_ports))
    site, others = Site("127.0.0.1", 8000, Path("/here"), "/weights/here", ports), cast("Followers", Others(engine, deployment))
    return spread(discover().need(engine), launch, install, site, Path("x.log"), others), launch


@pytest.mark.parametrize(("engine", "precision"), [("vllm", "bf16"), ("sglang", "bf16"), ("fake", "none")])
def test_each_node_starts_its_own_installation(engine: str, precision: str) -> None:
    (group, command), launch = spread_of(engine, precision)
    (member,) = command.members
    assert member.argv[0].startswith("/there/")
    assert command.argv[0].startswith("/here/")
    assert engine == "fake" or "/weights/there" in member.argv
    assert engine == "fake" or "/weights/here" in command.argv
    (other,) = launch.startup.nodes
    assert (other.name, other.packages, other.machine) == ("b", {"p": "2"}, {"cpu": "x"})
    assert other.install is not None
    assert other.install.python == Path("/there/python")
    assert group.place_of(member).reach(5) == ("127.0.0.1", 5)


def test_an_mpi_world_is_only_planned() -> None:
    with pytest.raises(Unsupported, match="TensorRT-LLM starts its ranks on other nodes by MPI"):
        spread_of("trtllm", "bf16")
