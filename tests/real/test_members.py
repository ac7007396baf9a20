"""Two llama.cpp servers of the same weights behind the proxy: every request is answered, by turns, as one server alone answers it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.adapter import WORKERS, Adapter, Deployment, Install, Launch, Member, Site, Traits, prometheus_totals
from enginebench.domain import JSON, Load
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.records.launch import LaunchRecord
from enginebench.runner.cell import parity_outputs
from enginebench.runner.launch import open_engine
from enginebench.runtime import http_get
from enginebench.scenario import load_scenario

pytestmark = pytest.mark.real

SCENARIO = """
name: members
models:
  tiny: {random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}}
deployments:
  - {engine: llamacpp, model: tiny, precision: f16, options: {threads: 1}}
loads:
  - {concurrency: 4, input_tokens: 40, output_tokens: 24, requests: 12}
"""
LLAMACPP = discover()["llamacpp"]


class Two(type(LLAMACPP)):  # type: ignore[misc]  # the class of an adapter that is loaded by path
    """llama.cpp has neither replicas nor a transfer of KV of its own: two servers take turns."""

    def traits(self, deployment: Deployment) -> Traits:
        return replace(super().traits(deployment), extra_ports=2)

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        one = super().launch
        members = tuple(
            Member(f"server-{i}", one(deployment, install, replace(site, port=port)).argv, port) for i, port in enumerate(site.ports, 1)
        )
        argv = (sys.executable, str(WORKERS / "pd_proxy.py"), "--host", site.host, "--port", str(site.port), "--protocol", "plain")
        return Launch(
            (*argv, *(part for port in site.ports for part in ("--decode", f"http://{site.host}:{port}"))), "tiny", members=members
        )


def answers(adapter: Adapter, deployment: Deployment, load: Load, folder: Path) -> tuple[list[dict[str, JSON]], list[float], LaunchRecord]:
    """The outputs of a load and of greedy prompts, the requests that each member has answered, and what was learned."""
    launch = LaunchRecord("l", deployment, 0, "")
    with open_engine(adapter, launch, installs_of(adapter), log=folder / "engine.log", base=folder, say=lambda _: None) as engine:
        result = engine.run(engine.prompts.make(load, load.requests, salt="members"), load, keep_text=True)
        said = [{"outcome": s.outcome, "input": s.input_tokens, "output": s.output_tokens, "text": s.text} for s in result.samples]
        greedy = [dict(output) for output in parity_outputs(engine, replace(load, concurrency=1, requests=4, prompts="text"))]
        assert launch.startup.command is not None
        gets = [http_get("127.0.0.1", member.port) for member in launch.startup.command.members]
        each = [prometheus_totals(get("/metrics").body.decode())["llamacpp:tokens_predicted_total"] for get in gets]
        assert adapter.counters(engine.get)["output_tokens"] == load.output_tokens * (load.requests + 4)
        return [*said, *greedy], each, launch


def test_two_servers_say_what_one_says(need: Callable[[str], None], tmp_path: Path) -> None:
    need("llamacpp")
    (tmp_path / "s.yaml").write_text(SCENARIO)
    scenario = load_scenario(tmp_path / "s.yaml", discover())
    (deployment,), ((load,),) = scenario.deployments, scenario.loads
    alone, _, _ = answers(LLAMACPP, deployment, load, tmp_path)
    both, each, launch = answers(Two(), deployment, load, tmp_path)
    assert {answer["outcome"] for answer in alone} == {"ok"}
    assert {(answer["input"], answer["output"]) for answer in both[: load.requests]} == {(40, 24)}
    assert both == alone
    assert each == [24 * 8, 24 * 8], "they take turns"
    assert launch.startup.identity == "proven"
    assert {file.name for file in tmp_path.glob("*.log")} == {"engine.log", "engine.server-1.log", "engine.server-2.log"}
