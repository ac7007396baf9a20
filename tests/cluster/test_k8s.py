"""`--on k8s`: manifests against the schemas that Kubernetes publishes and kubectl's own types; pods in Docker, as `kubelet` runs them.

No cluster can run where these tests do: a real API server, scheduler and kubelet were not part of any test.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..docker.conftest import IMAGE, import_nothing, mounts, need, until  # noqa: TID252  # tests/ is no package
from ..engine.bench import Bench  # noqa: TID252

pytestmark = pytest.mark.cluster
TOOLS = Path(sys.prefix) / "kubernetes"
"""kubectl and kubernetes-validate, as `make .venv/kubernetes` installs them."""
VERSIONS = ("1.29", "1.31", "1.33", "1.35", "1.37")
SETTINGS = {"image": "example/enginebench:1", "registry": "registry.example/bench", "weights": "models", "secret": "hub", "time_s": "600"}
DEPLOYMENTS = (
    "{engine: vllm, model: m, precision: bf16, runtime: docker, tp: [1, 4], container: {memory: 64GiB, cpus: 7.5}}",
    "{engine: sglang, model: m, precision: bf16, runtime: docker, node: {pool: h100, name: n7}}",
    "{engine: fake, model: any, precision: none}",
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def place(settings: dict[str, str]) -> list[str]:
    return [word for key, value in settings.items() for word in ("--place", f"{key}={value}")]


def printed(bench: Bench) -> list[dict[str, Any]]:
    """The objects of a dry run of all kinds of deployments."""
    lines = "\n".join(f"  - {each}" for each in DEPLOYMENTS)
    models, loads = "{m: {checkpoints: {bf16: org/m}}}", "[{concurrency: 1, requests: 4, input_tokens: 16, output_tokens: 8}]"
    (bench.folder / "s.yaml").write_text(f"name: demo\nmodels: {models}\ndeployments:\n{lines}\nloads: {loads}\n")
    done = bench("run", "s.yaml", "--on", "k8s", "--namespace", "bench", "--hardware", "any", "--dry-run", *place(SETTINGS))
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("version", VERSIONS)
def test_manifests_follow_the_published_schemas(bench: Bench, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not TOOLS.is_dir():
        need("kubernetes-validate is not installed: make .venv/kubernetes")
    monkeypatch.setattr(sys, "path", [*sys.path, str(TOOLS)])
    kubernetes_validate = import_module("kubernetes_validate")

    objects = printed(bench)
    assert [each["kind"] for each in objects] == ["ConfigMap", "Job"] * 4
    for each in objects:
        kubernetes_validate.validate(each, version, strict=True)
    objects[1]["spec"]["template"]["spec"]["containers"][0]["comand"] = ["sh"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(objects[1], version, strict=True)


def test_kubectl_reads_the_jobs_as_its_own_types(bench: Bench) -> None:
    """It decodes a manifest without a server only for commands with --local; fields that it does not know would be missing after it."""
    kubectl = shutil.which("kubectl", path=f"{TOOLS}/bin:{os.environ['PATH']}")
    if kubectl is None:
        need("kubectl is not installed: make .venv/kubernetes")
    for job in printed(bench)[1::2]:
        command = [str(kubectl), "set", "env", "--local", "--filename=-", "--output=json", "ADDED=1"]
        done = subprocess.run(command, input=yaml.safe_dump(job), text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        back = json.loads(done.stdout)
        for container in back["spec"]["template"]["spec"]["containers"]:
            container["env"] = [each for each in container["env"] if each["name"] != "ADDED"] or None
            container["resources"] = container.get("resources") or None
        assert without_defaults(back) == without_defaults(job)


def without_defaults(data: Any) -> Any:
    """Without what is empty, because the types of Kubernetes write some of it."""
    if isinstance(data, dict):
        return {key: its for key, value in data.items() if (its := without_defaults(value)) not in (None, {}, [])}
    return [without_defaults(each) for each in data] if isinstance(data, list) else data


# -- pods in Docker ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pods(tmp_path: Path) -> Iterator[Bench]:
    """`bench` with a kubectl that runs pods in Docker."""
    from enginebench.runtime import LaunchFailed
    from enginebench.runtime.container.client import connect

    try:
        import_nothing(connect())
    except LaunchFailed as failure:
        need(failure.reason)
    here = {
        str(Path(sys.prefix).resolve()),
        *(entry for entry in sys.path if entry and Path(entry).is_dir()),
        str(Path(__file__).parents[2]),
    }
    volumes = [f"--volume={each}:ro" for each in (*mounts(), *(f"{path}:{path}" for path in sorted(here)))]
    path = f"{Path(sys.executable).parent}:{sys.base_prefix}/bin:/usr/bin:/bin"
    env = [
        f"--env=PATH={path}",
        f"--env=PYTHONPATH={os.pathsep.join(entry for entry in sys.path if entry)}",
        "--env=ENGINEBENCH_HOME=/tmp/home",
    ]
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "kubectl").write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("kubelet.py")} "$@"\n')
    (tools / "kubectl").chmod(0o755)
    bench = Bench(tmp_path)
    bench.env |= {
        "PATH": f"{tools}:{os.environ['PATH']}", "KUBELET_FOLDER": str(tmp_path / "cluster"),
        "KUBELET_RUN": json.dumps([*volumes, *env, "--tmpfs=/tmp"]),
    }  # fmt: skip
    yield bench
    names = [json.loads(file.read_text())["metadata"]["name"] for file in (tmp_path / "cluster").glob("jobs/*.json")]
    for name in names:
        subprocess.run(["docker", "rm", "--force", "--volumes", f"{name}-engine", f"{name}-client"], capture_output=True)


def arguments(*more: str) -> list[str]:
    return ["run", "s.yaml", "--on", "k8s", "--namespace", "bench", "--place", f"image={IMAGE}", "--place", "poll_s=0.5", *more]


def running(bench: Bench) -> list[str]:
    """Containers of this test."""
    names = [file.stem for file in (bench.folder / "cluster").glob("jobs/*.json")]
    shown = subprocess.run(["docker", "ps", "--format={{.Names}}"], capture_output=True, text=True).stdout.split()
    return [each for each in shown if each.rpartition("-")[0] in names]


def test_client_and_engine_in_one_pod(pods: Bench) -> None:
    pods.scenario(f"runtime: docker, container: {{image: '{IMAGE}'}}", "label: alone", repeats=1)
    done = pods(*arguments())
    assert done.returncode == 0, done.stderr
    cells = pods.cells()
    assert [cell["status"] for cell in cells] == ["ok"] * 4
    launches = [json.loads(file.read_text()) for file in (pods.run_folder() / "launches").glob("*.json")]
    assert {launch["node"] for launch in launches} == {"docker-node"}
    boxed = next(launch for launch in launches if launch["deployment"]["runtime"] == "docker")
    assert boxed["startup"]["container"]["image"] == IMAGE
    assert boxed["startup"]["identity"] == "proven", "the client sees which process listens"
    assert not list((pods.folder / "cluster").glob("*/*.json")), "jobs go when their results are stored"


@pytest.mark.long
def test_a_lost_driver_finds_its_pods(pods: Bench) -> None:
    pods.scenario(f"runtime: docker, container: {{image: '{IMAGE}'}}, options: {{itl_ms: 200}}")
    run = pods.start(*arguments())
    until(lambda: list((pods.folder / "cluster").glob("volumes/*/shared/unit/*/cells/*.json")), "no cell ends")
    run.kill()
    run.communicate()
    again = pods(*arguments())
    assert again.returncode == 0, again.stderr
    assert "following 1 job of an earlier session" in again.stderr
    assert len(list((pods.run_folder() / "launches").glob("*.json"))) == 1, "no server was started twice"


@pytest.mark.long
def test_a_lost_pod_costs_the_cell_in_flight(pods: Bench) -> None:
    pods.scenario(f"runtime: docker, container: {{image: '{IMAGE}'}}, options: {{itl_ms: 200}}")
    run = pods.start(*arguments())
    until(lambda: list((pods.folder / "results").glob("*/cells/*.json")), "no cell comes back")
    names = running(pods)
    subprocess.run(["docker", "rm", "--force", *names], capture_output=True)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert re.search(r"its pod was ended \(signal 9\); the cells that are left \(1\) are tried again", errors)
    assert [cell["status"] for cell in pods.cells()] == ["ok"] * 2


@pytest.mark.long
def test_ctrl_c_deletes_the_pods(pods: Bench) -> None:
    pods.scenario(f"runtime: docker, container: {{image: '{IMAGE}'}}, options: {{itl_ms: 200}}")
    run = pods.start(*arguments())
    until(lambda: list((pods.folder / "results").glob("*/cells/*.json")), "no cell comes back")
    run.send_signal(signal.SIGINT)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert not running(pods)
    assert [cell["status"] for cell in pods.cells()] == ["ok"]


def test_an_engine_that_does_not_start_fails_with_its_log(pods: Bench) -> None:
    pods.scenario(f"runtime: docker, container: {{image: '{IMAGE}'}}, options: {{exit_at_start: true}}")
    done = pods(*arguments())
    assert done.returncode == 3, done.stderr
    assert {cell["status"] for cell in pods.cells()} == {"failed"}
    assert all("exited with code" in str(cell["reason"]) for cell in pods.cells())
