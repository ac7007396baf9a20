"""Manifests, and what pods say, without a cluster. tests/cluster validates manifests against the published schemas."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from enginebench.domain import ClosedLoop, Deployment
from enginebench.domain.container import Container
from enginebench.errors import UserError
from enginebench.runner.placement.base import find
from enginebench.runner.placement.k8s_follow import waiting_for
from enginebench.runner.placement.k8s_manifest import Engine, label, name_of, objects
from enginebench.runner.placement.unit_data import Setting, Unit, parse_unit

LOAD = ClosedLoop(concurrency=1, requests=4, input_tokens=16, output_tokens=8)
IMAGE = {"image": "example/enginebench:1"}
SETTINGS = {"weights": "models", "secret": "hub", "pull_secret": "registry", "service_account": "bench"}
GPUS = Engine("example/vllm:1", "nvidia.com/gpu", 4)


def unit(runtime: str = "docker", **more: object) -> Unit:
    container = Container(image="example/vllm:1", memory="64GiB", cpus=8, shm="8GiB") if runtime == "docker" else Container()
    deployment = Deployment("vllm", "m", "bf16", "hf:m", runtime=runtime, container=container, node=more.pop("node", {}))
    return Unit("abc-0", "vllm bf16", deployment, (LOAD,), 0, Setting("s"), run="2026-11-30-demo", **more)


def pod(its: Unit, engine: Engine | None = GPUS, **settings: str) -> dict[str, Any]:
    _, job = objects(its, engine, {**IMAGE, **settings})
    spec: dict[str, Any] = job["spec"]["template"]["spec"]
    return spec


def test_a_unit_with_a_container_has_a_client_and_an_engine() -> None:
    its = pod(unit(gpus=4))
    client, engine = its["containers"]
    assert (client["image"], engine["image"]) == ("example/enginebench:1", "example/vllm:1")
    assert engine["resources"]["limits"] == {"nvidia.com/gpu": "4", "cpu": "8", "memory": "64Gi"}
    assert "resources" not in client
    assert its["shareProcessNamespace"]
    assert its["restartPolicy"] == "Never"
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}} in its["volumes"]
    assert its["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


def test_a_unit_without_one_has_the_devices_itself() -> None:
    (client,) = pod(unit("process", gpus=2, needs_gpus=True), None)["containers"]
    assert client["resources"]["requests"] == {"nvidia.com/gpu": "2"}


def test_the_unit_is_in_the_config_map_as_it_was() -> None:
    its = unit(gpus=4)
    config, _ = objects(its, GPUS, IMAGE)
    assert parse_unit(config["data"]["unit.json"]) == its
    for script in ("client.sh", "supervise.sh"):
        assert subprocess.run(["sh", "-n"], input=config["data"][script], text=True).returncode == 0


def test_settings_become_fields() -> None:
    its = pod(unit(), **SETTINGS)
    assert {"name": "weights", "persistentVolumeClaim": {"claimName": "models"}} in its["volumes"]
    assert (its["serviceAccountName"], its["imagePullSecrets"]) == ("bench", [{"name": "registry"}])
    for container in its["containers"]:
        assert {"name": "HF_HOME", "value": "/weights/huggingface"} in container["env"]
        assert container["envFrom"] == [{"secretRef": {"name": "hub"}}]
    _, job = objects(unit(), GPUS, {**IMAGE, "time_s": "600", "namespace": "n"})
    assert (job["spec"]["activeDeadlineSeconds"], job["metadata"]["namespace"]) == (600, "n")


def test_only_one_unit_is_on_a_node_unless_it_shares() -> None:
    assert "affinity" in pod(unit())
    assert "affinity" not in pod(unit(exclusive=False, cores=4))


def test_labels_choose_the_node() -> None:
    chosen = pod(unit(node={"pool": "h100", "name": "n7"}))["nodeSelector"]
    assert chosen == {"pool": "h100", "kubernetes.io/hostname": "n7"}


def test_a_unit_that_is_too_large_is_refused() -> None:
    with pytest.raises(UserError, match="does not fit a ConfigMap"):
        objects(unit(files={"data.jsonl": "A" * 1_100_000}), GPUS, IMAGE)


def test_a_client_needs_an_image() -> None:
    with pytest.raises(UserError, match="needs an image with enginebench"):
        objects(unit(), GPUS, {})


@pytest.mark.parametrize(("text", "expected"), [("2026-11-30-a b", "2026-11-30-a-b"), ("x" * 70, "x" * 63), ("-.", "none"), ("", "none")])
def test_values_of_labels(text: str, expected: str) -> None:
    assert label(text) == expected
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", label(text))


def test_the_name_is_that_of_the_unit_in_its_run() -> None:
    assert name_of(unit()) == name_of(unit())
    assert re.fullmatch(r"bench-[0-9a-f]{16}", name_of(unit()))


def test_why_a_pod_waits() -> None:
    pulling = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "x"'}}
    assert waiting_for({"status": {"containerStatuses": [{"name": "client", "state": pulling}]}}) == (
        "ImagePullBackOff",
        'Back-off pulling image "x"',
    )
    unscheduled = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
    }
    assert waiting_for({"status": {"conditions": [unscheduled]}}) == ("Unschedulable", unscheduled["message"])
    assert waiting_for({"status": {}}) == ("", "")


def test_numbers_are_checked_before_anything_is_sent() -> None:
    with pytest.raises(UserError, match="--place most=many: not a number"), find("k8s", {"most": "many"}):
        pass
    with pytest.raises(UserError, match="--place poll_s=soon: not a number"), find("slurm", {"poll_s": "soon"}):
        pass
