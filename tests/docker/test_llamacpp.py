"""Real llama.cpp servers in containers: two behind our proxy, and what they say is what the one outside says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from enginebench.adapter import WORKERS, Adapter, Deployment, Install, Launch, Member, Site, Traits
from enginebench.domain import JSON, Load
from enginebench.domain.container import Container
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.records.launch import LaunchRecord
from enginebench.runner.cell import parity_outputs
from enginebench.runner.launch import open_engine
from enginebench.scenario import load_scenario

from .conftest import Bench, need

pytestmark = pytest.mark.real

LLAMACPP = discover()["llamacpp"]
SCENARIO = """
name: two
models:
  tiny: {random_weights: {layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32, experts: 8, top_k: 2}}
deployments:
  - {engine: llamacpp, model: tiny, precision: f16, runtime: [process, docker], options: {threads: 1}}
loads:
  - {concurrency: 4, input_tokens: 40, output_tokens: 24, requests: 12}
"""
QUICKSTART_BASE = "python:3.11.13-slim-bookworm"


class Two(type(LLAMACPP)):  # type: ignore[misc]  # the class of an adapter that is loaded by path
    """llama.cpp has no replicas of its own: two servers take turns."""

    def traits(self, deployment: Deployment) -> Traits:
        return replace(super().traits(deployment), extra_ports=2)

    def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
        servers = {port: super(Two, self).launch(deployment, install, replace(site, port=port)).argv for port in site.ports}
        members = tuple(Member(f"server-{port}", argv, port) for port, argv in servers.items())
        proxy = (str(install.python), str(WORKERS / "pd_proxy.py"), "--host", site.host, "--port", str(site.port), "--protocol", "plain")
        return Launch((*proxy, *(part for port in servers for part in ("--decode", f"http://{site.host}:{port}"))), "tiny", members=members)


def with_engine(nothing: Container) -> Container:
    """The empty image with llama.cpp as it is installed here."""
    (install,) = [found for found in installs_of(LLAMACPP) if found.variant == "xllamacpp"]
    assert install.python is not None
    (packages,) = (install.python.parent.parent / "lib").glob("python3*/site-packages")
    return replace(nothing, mounts=(*nothing.mounts, f"{packages}:/opt/packages"), env={"PYTHONPATH": "/opt/packages"})


def answers(adapter: Adapter, deployment: Deployment, load: Load, folder: Path) -> tuple[list[dict[str, JSON]], LaunchRecord]:
    launch = LaunchRecord("l", deployment, 0, "")
    log = folder / "results" / deployment.runtime / "logs" / "engine.log"
    with open_engine(adapter, launch, installs_of(adapter), log=log, base=folder, say=lambda _: None) as engine:
        result = engine.run(engine.prompts.make(load, load.requests, salt="two"), load, keep_text=True)
        said: list[dict[str, JSON]] = [{"outcome": s.outcome, "output": s.output_tokens, "text": s.text} for s in result.samples]
        said += [dict(output) for output in parity_outputs(engine, replace(load, concurrency=1, requests=4, prompts="text"))]
        assert adapter.counters(engine.get)["output_tokens"] == load.output_tokens * (load.requests + 4)
    return said, launch


def test_two_servers_in_containers_say_what_one_process_says(nothing: Container, tmp_path: Path) -> None:
    need(None if installs_of(LLAMACPP) else "llamacpp is not installed: bench engines install llamacpp")
    (tmp_path / "s.yaml").write_text(SCENARIO)
    scenario = load_scenario(tmp_path / "s.yaml", discover())
    (process, boxed), (load,) = scenario.deployments, scenario.loads[0]
    alone, _ = answers(LLAMACPP, process, load, tmp_path)
    both, launch = answers(Two(), replace(boxed, container=with_engine(nothing)), load, tmp_path)
    assert {answer["outcome"] for answer in both} == {"ok"}
    assert both == alone
    assert launch.startup.identity == "proven"
    assert {f.name for f in tmp_path.glob("results/docker/logs/*")} == {"engine.log", "engine.server-8001.log", "engine.server-8002.log"}


@pytest.mark.alone  # llama.cpp has a thread for each core, and each waits for a thread that another program keeps from running
def test_quickstart_in_containers(bench: Bench, daemon: Any) -> None:
    """Builds the image if it is missing; on a machine without a registry its base must have been made (.ci/run does)."""
    if not daemon.images.list(name=QUICKSTART_BASE):
        need(f"{QUICKSTART_BASE} is not here")
    bench.env.pop("ENGINEBENCH_HOME")  # models that are already there
    only = ("--only", "concurrency=1", "--repeats", "1")
    done = bench("run", "quickstart", "--runtime", "docker", *only, "--no-html")
    assert done.returncode == 0, done.stderr + done.stdout
    for launch in bench.records("launches"):
        assert (launch["deployment"]["runtime"], launch["startup"]["identity"]) == ("docker", "proven")
        assert launch["startup"]["container"]["base"] == QUICKSTART_BASE
        assert launch["startup"]["container"]["id"] == daemon.images.get(launch["startup"]["container"]["image"]).id
