"""A Ray cluster of two nodes on this machine, each with its own resources, leases and folder, and a head that runs nothing."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from enginebench.machine.folders import cache_dir
from enginebench.records.run_folder import Run, open_run


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TwoNodes:
    """The cluster. `node` adds one, `kill` takes one away without a word, as a power cut does."""

    def __init__(self, folder: Path) -> None:
        os.environ["RAY_raylet_start_wait_time_s"] = "180"  # noqa: SIM112  # Ray's own name; this machine may be busy
        from ray.cluster_utils import Cluster

        self.folder, self.nodes = folder, {}  # type: ignore[var-annotated]
        self.port = free_port()
        self.cluster: Any = Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, "ray_client_server_port": self.port, "include_dashboard": False}
        )
        for name in ("a", "b"):
            self.node(name)

    @property
    def address(self) -> str:
        return f"ray://127.0.0.1:{self.port}"

    def node(self, name: str, cpus: int = 2, gpus: int = 0) -> None:
        home = self.folder / name
        home.mkdir(exist_ok=True)
        for shared in ("engines", "checkpoints"):  # installed once on this machine
            if not (home / shared).is_symlink() and (cache_dir() / shared).is_dir():
                (home / shared).symlink_to(cache_dir() / shared)
        env = {"ENGINEBENCH_HOME": str(home), "ENGINEBENCH_LEASES": str(home / "leases")}
        self.nodes[name] = self.cluster.add_node(num_cpus=cpus, num_gpus=gpus, labels={"name": name, "zone": f"zone-{name}"}, env_vars=env)

    def kill(self, name: str) -> None:
        self.cluster.remove_node(self.nodes.pop(name), allow_graceful=False)


class Driver:
    """`bench` in a folder of its own."""

    def __init__(self, folder: Path, cluster: TwoNodes) -> None:
        self.folder, self.cluster, self.on = folder, cluster, cluster.address
        self.env = {**os.environ, "ENGINEBENCH_LEASES": str(folder / "leases")}

    def scenario(
        self, deployments: str, *, loads: str = "{concurrency: [1, 2], input_tokens: 8, output_tokens: 4, requests: 4}", rest: str = ""
    ) -> None:
        (self.folder / "s.yaml").write_text(f"name: s\ndeployments: [{deployments}]\nloads: [{loads}]\n{rest}\n")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "enginebench", *arguments, "--on", self.on]
        return subprocess.Popen(command, cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def __call__(self, *arguments: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: str) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def run(self) -> Run:
        (found,) = self.folder.glob("results/*/run.json")
        return open_run(found.parent)

    def wait_for(self, met: Callable[[], bool], what: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
            time.sleep(0.05)

    def stored(self) -> int:
        return len(list(self.folder.glob("results/*/cells/*.json")))


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoNodes]:
    if "ray" not in sys.modules and not os.environ.get("CI"):
        pytest.importorskip("ray", reason="Ray is not installed: pip install 'enginebench[ray]'")
    found = TwoNodes(tmp_path_factory.mktemp("nodes"))
    yield found
    found.cluster.shutdown()


@pytest.fixture
def driver(tmp_path: Path, two_nodes: TwoNodes) -> Driver:
    for name in ("a", "b"):
        if name not in two_nodes.nodes:
            two_nodes.node(name)
    return Driver(tmp_path, two_nodes)
