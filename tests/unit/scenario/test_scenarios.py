"""The scenarios that ship: each plans in full, nothing in it is refused, and it holds what it says it compares."""

from __future__ import annotations

from functools import cache

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.domain import Deployment, Parallelism
from enginebench.engines.images import resolve
from enginebench.engines.registry import discover
from enginebench.machine.folders import resource_dir
from enginebench.physics import fit, read_machine, read_weights
from enginebench.physics.offload_curve import LLAMACPP, splits
from enginebench.scenario import load_scenario
from enginebench.scenario.plan import Plan, plan

REGISTRY = discover()
CELLS = {
    "arrivals": 6,
    "cpu_engines": 36,
    "gptoss20b": 144,
    "gpu_smoke": 24,
    "maverick_8xh100": 168,
    "mixtral_2gpu": 312,
    "offload_knee": 54,
    "process_vs_docker": 16,
    "quickstart": 24,
    "scout_2xmi300x": 198,
    "scout_4xh100": 360,
    "scout_m3ultra": 72,
    "scout_rtx4090": 90,
}
"""Scenario -> cells, those that a search adds left out."""
GPUS = {"maverick_8xh100": 8, "mixtral_2gpu": 2, "scout_2xmi300x": 2, "scout_rtx4090": 1, "gptoss20b": 1, "gpu_smoke": 1, "offload_knee": 1}
"""Scenario -> devices that no deployment of it takes more than."""


@cache
def planned(name: str) -> Plan:
    return plan(load_scenario(resource_dir("scenarios") / f"{name}.yaml", REGISTRY), REGISTRY)


def deployments(name: str) -> list[Deployment]:
    return list(planned(name).scenario.deployments)


def gpus(deployment: Deployment) -> int:
    return REGISTRY[deployment.engine].traits(deployment).gpus


@pytest.mark.parametrize("name", CELLS)
def test_a_scenario_plans_in_full(name: str) -> None:
    found = planned(name)
    assert len(found.cells) == CELLS[name]
    assert not found.skipped, set(found.skipped.values())


@pytest.mark.parametrize("name", GPUS)
def test_a_scenario_named_after_a_machine_takes_no_more_devices_than_it_has(name: str) -> None:
    assert max(map(gpus, deployments(name))) <= GPUS[name]


@pytest.mark.parametrize("name", CELLS)
def test_containers_name_images_that_there_are(name: str) -> None:
    for deployment in deployments(name):
        if deployment.runtime == "docker":
            image = resolve(deployment.engine, deployment.container.variant)
            assert image.devices == ("amd" if "mi300x" in name else "cpu" if name == "process_vs_docker" else "nvidia")


def test_the_scout_scenario_compares_what_it_is_known_for() -> None:
    found = deployments("scout_4xh100")
    shapes = {
        (d.engine, d.precision, d.parallelism.tp, d.parallelism.ep, "disaggregated" in d.options, gpus(d)) for d in found if not d.label
    }
    assert shapes >= {
        ("vllm", "bf16", 4, 1, False, 4),
        ("vllm", "bf16", 4, 4, False, 4),
        ("vllm", "fp8", 2, 1, False, 2),
        ("vllm", "fp8", 2, 1, True, 4),
        ("sglang", "bf16", 4, 4, False, 4),
        ("sglang", "fp8", 4, 4, False, 4),
        ("trtllm", "fp8", 4, 1, False, 4),
    }
    assert [(d.parallelism.tp, gpus(d)) for d in found if d.label == "disaggregated-tp4-8gpu"] == [(4, 8)]
    assert all(gpus(d) <= 4 for d in found if not d.label)
    loads = {cell.load for cell in planned("scout_4xh100").cells}
    assert {load.concurrency for load in loads} >= {1, 4, 16, 64, 256}
    contexts = {load.input_tokens + load.output_tokens for load in loads}
    assert contexts == {2048, 8192, 32768, 131072}


def test_the_card_scenario_spreads_experts_between_card_and_host() -> None:
    options = [d.options for d in deployments("scout_rtx4090") if d.engine == "llamacpp" and d.model == "scout"]
    assert len({tuple(sorted(o.items(), key=str)) for o in options}) == len(options) == 8
    assert {o["n_cpu_moe"] for o in options if o.get("n_cpu_moe")} == {32, 42, 44, 48}
    assert {o["gpu_layers"] for o in options if "gpu_layers" in o} == {8, 12}
    assert {d.engine for d in deployments("scout_rtx4090")} == {"llamacpp", "exllamav3"}


def test_the_knee_scenario_measures_what_the_advisor_predicts() -> None:
    """Its curve begins where the model first fits a 24 GB card, as `bench offload` reckons with the same context and streams."""
    weights = read_weights("gpt-oss-120b", "mxfp4")
    machine = read_machine("rtx4090+128gb")
    curve = splits(fit(weights, machine, Parallelism(), context=4096, concurrency=4, reserve=LLAMACPP))
    best = curve.best
    assert best is not None
    swept = [d.options["n_cpu_moe"] for d in deployments("offload_knee") if "n_cpu_moe" in d.options]
    assert (min(swept), max(swept)) == (best.layers, len(weights.model.layers))  # type: ignore[type-var]  # they are numbers


def test_the_container_is_all_that_differs_in_process_vs_docker() -> None:
    process, docker = deployments("process_vs_docker")
    assert (process.runtime, docker.runtime) == ("process", "docker")
    assert docker.inside == process


@pytest.mark.parametrize("name", CELLS)
def test_plan_prints_the_command_of_every_container(name: str) -> None:
    done = CliRunner().invoke(bench, ["plan", name, "-v"], catch_exceptions=False)
    assert done.exit_code == 0
    boxed = [deployment for deployment in deployments(name) if deployment.runtime == "docker"]
    pairs = sum("disaggregated" in deployment.options for deployment in boxed)
    assert done.output.count("$ docker run ") == len(boxed) + 2 * pairs, done.output
