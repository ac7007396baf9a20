"""How long a plan takes on a CPU: expected from what was measured on one, else unknown, with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import enginebench
import pytest
from enginebench.physics.expectation import Efficiency, Expectations, Latency
from enginebench.physics.machine import Device, Machine
from enginebench.report.plan import plan_to_dict, plan_to_text
from enginebench.scenario import capacity
from enginebench.scenario.capacity import plan_time
from enginebench.scenario.planning import plan

CPU = Machine(Device("cpu", 64e9, 50e9, {"bf16": float("inf")}, node=1))
OWN = Expectations(0.0, Latency(), {
    ("llamacpp", "cpu", "single stream"): Efficiency("llamacpp", "cpu", "single stream", 3, ("own runs",), 0.4, 0.5, 0.6),
})  # fmt: skip


@pytest.fixture(autouse=True)
def this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "_this_cpu", lambda: CPU)
    monkeypatch.setattr("enginebench.machine.accelerators.gpus", lambda: ())


def write(folder: Path, load: str = "requests: 64", deployment: str = "") -> Path:
    file = folder / "s.yaml"
    file.write_text(
        "name: cpu\nmodels: {m: {random_weights: {}}}\n"
        f"deployments: [{{engine: llamacpp, model: m, precision: f16{deployment}}}]\n"
        f"loads: [{{concurrency: 1, input_tokens: 64, output_tokens: 32, {load}}}]\n"
    )
    return file


def test_unknown_with_the_reason(tmp_path: Path) -> None:
    found = plan(write(tmp_path))
    assert plan_time(found).unknown == "no measurement of llamacpp on a CPU is known"
    assert "how long the loads take is unknown: no measurement of llamacpp on a CPU is known; --calibrate RUN" in plan_to_text(found)
    data = json.loads(json.dumps(plan_to_dict(found, enginebench.launch_commands(found))))
    assert (data["time_unknown"], data["expected_s"]) == ("no measurement of llamacpp on a CPU is known", None)


@pytest.mark.parametrize("hardware", [None, "cpu"])
def test_expected_from_runs_of_ones_own(hardware: str | None, tmp_path: Path) -> None:
    found = plan(write(tmp_path), hardware=hardware, expectations=OWN)
    takes = plan_time(found)
    assert takes.unknown == ""
    assert takes.expected_s is not None
    assert takes.expected_s > takes.least_s > 0
    text = plan_to_text(found)
    assert "of load on this CPU (expected), at least" in text
    assert "unknown" not in text
    assert "GB per GPU" not in text


@pytest.mark.parametrize(
    ("load", "deployment", "hardware"),
    [
        ("duration_s: 10", "", None),
        ("requests: 64", "", "any"),
        ("requests: 64", "", "1xh100"),
        ("requests: 64", ", runtime: docker", None),
    ],
)
def test_silent_if_the_time_is_stated_or_no_cpu_is_used(load: str, deployment: str, hardware: str | None, tmp_path: Path) -> None:
    found = plan(write(tmp_path, load, deployment), hardware=hardware)
    assert plan_time(found).unknown == ""
    assert "how long the loads take" not in plan_to_text(found)
