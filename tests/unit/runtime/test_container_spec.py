"""What the Docker API is asked for, as a function of the scenario alone; and the same as a `docker run`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from enginebench.adapter import WORKERS
from enginebench.domain import Deployment, canonical
from enginebench.domain.container import Container
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.runner.containers import mount_of
from enginebench.runtime.container.client import explain
from enginebench.runtime.container.leftovers import OWNER, labels, owner_lives
from enginebench.runtime.container.spec import Bind, PodSettings, arguments, docker_run, in_bytes
from enginebench.scenario import load_scenario

AROUND = PodSettings("engine:1", "tag", {"l": "1"}, ports=(8000, 8001), binds=(Bind("/data/m", "/models/m"),), network="net")


def asked(container: Container | None = None, first: str | None = None, **around: Any) -> dict[str, Any]:
    argv = ("python3", str(WORKERS / "fake_worker.py"), "--port", "8000")
    surroundings = replace(AROUND, **around)
    return arguments(container or Container(), surroundings, name="n", argv=argv, env={"W": f"{WORKERS}/x"}, folder="/site", first=first)


def test_the_first_container_has_network_and_memory_and_others_join() -> None:
    first, second = asked(), asked(first="abc")
    assert first["ports"] == {"8000/tcp": ("127.0.0.1", None), "8001/tcp": ("127.0.0.1", None)}
    assert (first["network"], first["ipc_mode"], first["shm_size"]) == ("net", "shareable", 16 * 2**30)
    assert (second["network_mode"], second["ipc_mode"]) == ("container:abc", "container:abc")
    assert not {"ports", "network", "shm_size"} & second.keys()
    shared = asked(Container(network="host", ipc="host"), first="abc")
    assert (shared["network_mode"], shared["ipc_mode"]) == ("host", "host")


def test_scripts_are_where_they_are_inside() -> None:
    told = asked()
    assert (told["entrypoint"], told["command"][0]) == (["python3"], "/opt/enginebench/workers/fake_worker.py")
    assert told["environment"]["W"] == "/opt/enginebench/workers/x"
    assert str(WORKERS) not in str(told)


@pytest.mark.parametrize(
    ("gpus", "devices", "deployment", "request_"),
    [
        (None, "nvidia", 4, {"count": 4}),
        ("all", "nvidia", 4, {"count": -1}),
        (("GPU-a", "GPU-b"), "nvidia", 4, {"device_ids": ["GPU-a", "GPU-b"]}),
        (2, "cpu", 0, {"count": 2}),
    ],
)
def test_gpus_are_asked_for_by_number_or_uuid(gpus: Any, devices: Any, deployment: int, request_: dict[str, Any]) -> None:
    (found,) = asked(Container(gpus=gpus), accelerator=devices, gpus=deployment)["device_requests"]
    assert found == {"driver": "", "capabilities": [["gpu"]], **request_}


@pytest.mark.parametrize(("gpus", "devices"), [(0, "nvidia"), (None, "cpu"), (0, "amd")])
def test_no_gpus_no_request(gpus: Any, devices: Any) -> None:
    told = asked(Container(gpus=gpus), accelerator=devices, gpus=1 if devices == "cpu" else 4)
    assert not {"device_requests", "devices", "group_add"} & told.keys()


def test_amd_devices_are_files_with_groups() -> None:
    told = asked(accelerator="amd", gpus=2, device_groups=(44, 109))
    assert [device.split(":")[0] for device in told["devices"]] == ["/dev/kfd", "/dev/dri"]
    assert told["group_add"] == ["44", "109"]
    assert told["environment"]["ROCR_VISIBLE_DEVICES"] == "0,1"
    assert "device_requests" not in told


def test_limits_and_mounts() -> None:
    container = Container(memory="2GiB", cpus=1.5, cpuset="0-3", ulimits={"memlock": -1}, mounts=("/a:/b", "/c:/d:rw"), compile_cache="/cc")
    told = asked(container, user="1:2")
    assert (told["mem_limit"], told["memswap_limit"], told["cpuset_cpus"]) == (2 * 2**30, 2 * 2**30, "0-3")
    assert told["nano_cpus"] == 1_500_000_000
    assert told["ulimits"] == [{"Name": "memlock", "Soft": -1, "Hard": -1}]
    seen = {mount["Target"]: (mount["Source"], mount["ReadOnly"]) for mount in told["mounts"]}
    assert seen == {"/models/m": ("/data/m", True), "/cache/compiled": ("/cc", False), "/b": ("/a", True), "/d": ("/c", False)}
    assert (told["user"], told["environment"]["HOME"]) == ("1:2", "/site")
    assert "user" not in asked()
    assert in_bytes("3MiB") == 3 * 2**20


def test_a_secret_is_in_no_command_line() -> None:
    told = asked(Container(secrets=("HF_TOKEN",)), secrets={"HF_TOKEN": "hf_value"})
    assert told["environment"]["HF_TOKEN"] == "hf_value"
    line = docker_run(told, secrets=("HF_TOKEN",))
    assert "hf_value" not in line
    assert "--env=HF_TOKEN" in shlex.split(line)


def test_a_checkpoint_is_seen_below_models(tmp_path: Path) -> None:
    plain = tmp_path / "hub" / "snapshots" / "abc"
    plain.mkdir(parents=True)
    (plain / "config.json").write_text("{}")
    assert mount_of(plain) == (Bind(str(plain), "/models/abc"), "/models/abc")
    blob = tmp_path / "hub" / "blobs" / "x"
    blob.parent.mkdir()
    blob.write_text("weights")
    (plain / "model.safetensors").symlink_to(blob)
    assert mount_of(plain) == (Bind(str(tmp_path / "hub"), "/models/hub"), "/models/hub/snapshots/abc")
    for part in ("00001", "00002"):
        (tmp_path / f"m-{part}-of-00002.gguf").write_text("")
    bind, inside = mount_of(tmp_path / "m-00001-of-00002.gguf")
    assert (bind.host, inside) == (str(tmp_path), f"/models/{tmp_path.name}/m-00001-of-00002.gguf")
    assert mount_of(blob) == (Bind(str(blob), "/models/x"), "/models/x")
    (plain / "far").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="too much to mount"):
        mount_of(plain)


def test_owners() -> None:
    mine = labels(Path("/r/2026-run/logs/abc.log"), "tag")
    assert (mine["enginebench.run"], mine["enginebench.cell"], mine["enginebench.launch"]) == ("2026-run", "abc", "tag")
    assert owner_lives(mine)
    assert not owner_lives({OWNER: mine[OWNER].replace('"born": "', '"born": "x')})
    assert owner_lives({OWNER: "{"}), "who cannot be told is left alone"


def test_what_a_daemon_says_is_kept() -> None:
    assert explain("driver failed: port is already allocated\n") == "a port is taken: driver failed: port is already allocated"
    assert explain("something new") == "error of the Docker daemon: something new"


SCENARIO = """
name: s
deployments:
  - {{engine: fake, model: m, precision: none, {}}}
loads:
  - {{concurrency: 1}}
"""


def deployments(tmp_path: Path, text: str, **how: Any) -> tuple[Deployment, ...]:
    (tmp_path / "s.yaml").write_text(SCENARIO.format(text))
    return load_scenario(tmp_path / "s.yaml", discover(), **how).deployments


def test_container_settings_are_an_axis_of_docker_alone(tmp_path: Path) -> None:
    found = deployments(tmp_path, "runtime: [process, docker], container: [{memory: 1GiB}, {memory: 2GiB, gpus: [GPU-a]}]")
    assert [(d.runtime, d.container.memory, d.container.gpus) for d in found] == [
        ("process", None, None),
        ("docker", "1GiB", None),
        ("docker", "2GiB", ("GPU-a",)),
    ]
    assert "container" not in canonical(found[0])
    assert found[1].inside == found[0]
    (one,) = deployments(tmp_path, "runtime: [process, docker]", runtime="docker")
    assert one.runtime == "docker"
    (attached,) = deployments(tmp_path, "runtime: process", runtime="process")
    assert attached.runtime == "process"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("container: {memory: 1GiB}", "only goes with `runtime: docker`"),
        ("runtime: docker, container: {memory: 1}", "container"),
        ("runtime: docker, container: {memory: 5 apples}", "write memory: 64GiB"),
        ("runtime: docker, container: {gpus: -1}", "container.gpus: must be a number of GPUs, all, or a list of UUIDs, got -1"),
        ("runtime: docker, container: {gpus: []}", "container.gpus: must be a number of GPUs, all, or a list of UUIDs, got []"),
        ("runtime: docker, container: {env: {HF_TOKEN: x}}", "must not hold HF_TOKEN"),
        ("runtime: docker, container: {cores: 3}", "is not a known key"),
        ("runtime: docker, container: {mounts: [relative:/x]}", "mounts"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        deployments(tmp_path, text)
    assert words in str(refused.value)
