"""Other processes on the GPUs of a plan are named before anything is launched."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from enginebench.engines.registry import discover
from enginebench.machine import nvml
from enginebench.runner.preflight import gpu_users
from enginebench.scenario import load_scenario
from enginebench.scenario.plan import Plan, plan


@dataclass
class Process:
    pid: int


class Nvml:
    """Three devices; the second and the third compute for others."""

    class NVMLError(Exception): ...

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetComputeRunningProcesses(self, index: int) -> list[Process]:  # noqa: N802
        return [[], [Process(11)], [Process(21), Process(22)]][index]


@pytest.fixture(autouse=True)
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def opened() -> Iterator[Nvml]:
        yield Nvml()

    monkeypatch.setattr(nvml, "opened", opened)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def planned(tmp_path: Path, deployment: str) -> Plan:
    models = "models: {m: {checkpoints: {bf16: 'hf:org/m'}}}"
    loads = "loads: [{input_tokens: 8, output_tokens: 8, requests: 1}]"
    (tmp_path / "s.yaml").write_text(f"name: s\n{models}\ndeployments: [{{{deployment}}}]\n{loads}\n")
    registry = discover()
    return plan(load_scenario(tmp_path / "s.yaml", registry), registry)


@pytest.mark.parametrize(
    ("deployment", "visible", "users"),
    [
        ("engine: vllm, model: m, precision: bf16", None, []),
        ("engine: vllm, model: m, precision: bf16, tp: 2", None, ["process 11 on GPU 1"]),
        ("engine: vllm, model: m, precision: bf16", "2", ["process 21 on GPU 2", "process 22 on GPU 2"]),
        ("engine: openai, model: m, runtime: attach, url: 'http://127.0.0.1:1'", None, []),
    ],
)
def test_who_computes_on_the_gpus_that_a_plan_uses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployment: str, visible: str | None, users: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_users(planned(tmp_path, deployment)) == users
