"""`nodes: 2` in a deployment: what each engine is started with on each node, what is refused, and what `bench plan` shows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench import launch_commands, placing, plan, preflight
from enginebench.adapter import Install, Launch, Node, Site, Unsupported
from enginebench.domain import Cell, ClosedLoop, Deployment, Parallelism
from enginebench.engines.registry import discover
from enginebench.report.plan import plan_to_dict, plan_to_text

PYTHON = Path("/env/bin/python")


def launched(engine: str, spread: Parallelism, nodes: int, **options: object) -> Launch:
    """On nodes 10.0.0.1, 10.0.0.2, ..., each with free ports from 7001."""
    adapter = discover().need(engine)
    deployment = Deployment(engine, "m", "bf16" if engine != "fake" else "none", "/w", parallelism=spread, nodes=nodes, options=options)
    adapter.check_nodes(deployment)
    adapter.check_neutral(deployment)
    adapter.check(deployment)
    ports = tuple(range(7001, 7001 + adapter.traits(deployment).extra_ports))
    there = tuple(Node(f"10.0.0.{i + 1}", ports) for i in range(nodes))
    site = Site("127.0.0.1", 8000, Path("/site"), "/w", ports, nodes=there, on_node=("shell", "socket"))
    return adapter.launch(deployment, Install(engine, "1", python=PYTHON, binary=PYTHON.with_name(engine)), site)


def flags(argv: tuple[str, ...], *names: str) -> list[str]:
    """The values of these flags; a flag without one counts as 'on', one that is not there as '-'."""
    found = []
    for name in names:
        after = argv[argv.index(name) + 1 :] if name in argv else ()
        found.append("-" if name not in argv else after[0] if after and not after[0].startswith("--") else "on")
    return found


MEETING = ("--nnodes", "--node-rank", "--master-addr", "--master-port", "--headless", "--data-parallel-rpc-port")


def test_vllm_has_a_headless_rank_on_each_further_node() -> None:
    found = launched("vllm", Parallelism(tp=8, pp=2), 2, api_servers=2)
    (rank,) = found.members
    assert flags(found.argv, *MEETING) == ["2", "0", "10.0.0.1", "7001", "-", "-"]
    assert flags(rank.argv, *MEETING) == ["2", "1", "10.0.0.1", "7001", "on", "-"]
    assert (rank.name, rank.node, rank.port) == ("rank-1", 1, 0)
    assert flags(found.argv, "--port", "--api-server-count") == ["8000", "2"]
    assert flags(rank.argv, "--port", "--api-server-count") == ["-", "-"], "it serves nothing"
    assert [found.env["VLLM_HOST_IP"], rank.env["VLLM_HOST_IP"]] == ["10.0.0.1", "10.0.0.2"]
    assert flags(rank.argv, "--tensor-parallel-size", "--pipeline-parallel-size") == ["8", "2"]


def test_vllms_replicas_meet_on_a_second_port() -> None:
    found = launched("vllm", Parallelism(dp_replicas=4, ep=4), 2)
    assert flags(found.argv, *MEETING) == ["2", "0", "10.0.0.1", "7001", "-", "7002"]
    assert flags(found.members[0].argv, *MEETING) == ["2", "1", "10.0.0.1", "7001", "on", "7002"]


def test_sglangs_ranks_meet_at_the_first_node() -> None:
    found = launched("sglang", Parallelism(tp=16), 4)
    assert [flags(each.argv, "--nnodes", "--node-rank", "--dist-init-addr") for each in found.members] == [
        ["4", str(rank), "10.0.0.1:7001"] for rank in (1, 2, 3)
    ]
    assert flags(found.argv, "--nnodes", "--node-rank", "--dist-init-addr", "--port") == ["4", "0", "10.0.0.1:7001", "8000"]


def test_tensorrt_llm_is_one_mpi_world_started_through_the_shell() -> None:
    found = launched("trtllm", Parallelism(tp=8, pp=2), 2)
    assert found.argv[:6] == ("mpirun", "--allow-run-as-root", "-np", "16", "--host", "10.0.0.1:8,10.0.0.2:8")
    start = found.argv.index("/env/bin/trtllm-llmapi-launch")
    assert found.argv[start + 1 : start + 3] == ("/env/bin/trtllm", "serve")
    assert found.env["OMPI_MCA_plm_rsh_agent"] == found.env["PRTE_MCA_plm_ssh_agent"] == "shell socket"
    assert found.members == (), "mpirun starts them"


@pytest.mark.parametrize(("engine", "pair"), [("vllm", {"prefill": 2, "decode": 2}), ("sglang", {"prefill": 2, "decode": 2})])
def test_prefill_and_decode_are_on_nodes_of_their_own(engine: str, pair: dict[str, int]) -> None:
    found = launched(engine, Parallelism(tp=2), 2, disaggregated=pair)
    assert [(each.name, each.node) for each in found.members] == [("prefill-0", 0), ("prefill-1", 0), ("decode-0", 1), ("decode-1", 1)]
    assert [flags(each.argv, "--host")[0] for each in found.members] == ["10.0.0.1", "10.0.0.1", "10.0.0.2", "10.0.0.2"]
    devices = "--device-ids" if engine == "vllm" else "--base-gpu-id"
    first = ["0,1", "2,3"] if engine == "vllm" else ["0", "2"]
    assert [flags(each.argv, devices)[0] for each in found.members] == first * 2, "each node counts its own devices"
    targets = [word for word in found.argv if word.startswith("http://")]
    assert targets == [f"http://10.0.0.{each.node + 1}:{each.port}" for each in found.members]
    if engine == "sglang":
        meeting = [word for flag, word in zip(found.argv, found.argv[1:], strict=False) if flag == "--bootstrap-port"]
        assert meeting == [flags(each.argv, "--disaggregation-bootstrap-port")[0] for each in found.members[:2]]
    else:
        assert [each.env["VLLM_NIXL_SIDE_CHANNEL_HOST"] for each in found.members] == [
            flags(each.argv, "--host")[0] for each in found.members
        ]


@pytest.mark.parametrize(
    ("engine", "spread", "nodes", "options", "reason"),
    [
        ("transformers", Parallelism(), 2, {}, "Transformers serves from one node here: leave `nodes` out"),
        ("vllm", Parallelism(tp=4), 3, {}, "each node has an equal part: 3 nodes do not divide 4 devices"),
        ("vllm", Parallelism(tp=2, dp_replicas=3), 2, {}, "whole nodes into one: 3 and 2 do not"),
        ("vllm", Parallelism(tp=2), 2, {"disaggregated": {"prefill": 1, "decode": 2}}, "3 prefill and decode servers do not divide"),
        ("sglang", Parallelism(tp=2, dp_replicas=2), 2, {}, "SGLang has no replicas over several nodes: write attention_dp"),
        ("fake", Parallelism(tp=2, dp_replicas=2), 2, {}, "replicas or ranks on several nodes, not both"),
    ],
)
def test_what_an_engine_cannot_spread_is_refused(
    engine: str, spread: Parallelism, nodes: int, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(Unsupported, match=reason):
        launched(engine, spread, nodes, **options)


def test_only_processes_span_nodes() -> None:
    deployment = Deployment("vllm", "m", "bf16", "/w", "docker", Parallelism(tp=2), nodes=2)
    with pytest.raises(Unsupported, match="over several nodes vLLM is started as processes"):
        discover().need("vllm").check_nodes(deployment)


def test_the_key_is_in_the_id_of_a_cell_only_where_it_is_written() -> None:
    load, one = ClosedLoop(concurrency=1, requests=1), Deployment("fake", "m", "none", "m")
    assert "nodes" not in one.stored()
    assert Cell(one, load, 0).id != Cell(replace(one, nodes=2), load, 0).id


def test_a_plan_shows_every_command_for_every_node(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "name: s\nloads: [{concurrency: 1, input_tokens: 8, output_tokens: 4, requests: 4}]\n"
        "deployments: [{engine: fake, model: any, precision: none, tp: 6, nodes: [1, 2, 3, 4]}]\n"
    )
    found = plan(file)
    commands = launch_commands(found)
    assert [dict(each.nodes) for each in commands[1:3]] == [{"rank-1": 1, "": 0}, {"rank-1": 1, "rank-2": 2, "": 0}]
    text = plan_to_text(found, commands)
    assert "  node 2 rank-2 $ " in text
    assert "--nodes 3 --node-rank 2 --head NODE0:8001" in text
    assert "skip: each node has an equal part: 4 nodes do not divide 6 devices" in text
    assert "skip: fake engine has no parallelism" in text, "on one node"
    data = json.loads(json.dumps(plan_to_dict(found, commands)))
    assert data["launches"][1]["nodes"] == {"rank-1": 1, "": 0}
    assert list(data["launches"][1]["members"]) == ["rank-1"]


def test_without_a_cluster_it_is_refused_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "name: s\nloads: [{concurrency: 1, input_tokens: 8, output_tokens: 4, requests: 4}]\n"
        "deployments: [{engine: fake, model: any, precision: none, tp: 2, nodes: 2}]\n"
    )
    (missing,) = preflight(plan(file)).missing
    assert (missing.what, missing.fix) == ("2 nodes for one engine", "--on CLUSTER, see docs/clusters.md")
    (placed,) = placing(plan(file, elsewhere=True), "local")
    assert (placed.nodes, placed.why_not) == ((), "--on local starts an engine on one node only; several need --on ray or --on slurm")
