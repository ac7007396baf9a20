"""Load from two client hosts in network namespaces, with clocks of their own and a way that is slow in one direction."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ..slow_way import slow_way  # noqa: TID252  # tests/ is no package

pytestmark = pytest.mark.cluster

OTHER_CLOCK = Path(__file__).parents[1] / "engine" / "other_clock.py"
TOKEN = "a token of these tests"
CLOCKS_NS = (3_000_000_000, -250_000_000)
SCENARIO = """
name: hosts
client_nodes: 2
deployments:
  - {engine: fake, model: any, precision: none, options: {ttft_ms: 30, itl_ms: 10}}
loads:
  - {concurrency: 4, input_tokens: 16, output_tokens: 20, requests: 24}
  - {rate: 20, input_tokens: 16, output_tokens: 8, requests: 30}
"""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@dataclass
class Network:
    """A bridge of this machine with one namespace per client host: this machine is .1, they are .11, .12, ..."""

    tag: str = field(default_factory=lambda: f"eb{os.getpid() % 10_000}")
    hosts: list[str] = field(default_factory=list)
    clients: list[subprocess.Popen[str]] = field(default_factory=list)

    def address(self, number: int) -> str:
        return f"10.213.{os.getpid() % 250}.{number}"

    def open(self) -> None:
        ip("link", "add", self.tag, "type", "bridge")
        ip("addr", "add", f"{self.address(1)}/24", "dev", self.tag)
        ip("link", "set", self.tag, "up")

    def add(self, clock_ns: int) -> str:
        """A client host with this clock. Returns where its client listens."""
        number = 11 + len(self.hosts)
        name, outer = f"{self.tag}-{number}", f"{self.tag}v{number}"
        ip("netns", "add", name)
        self.hosts.append(name)
        ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", outer, "master", self.tag, "up")
        ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", name, "link", "set", device, "up")
        where = f"{self.address(number)}:7777"
        command = [sys.executable, str(OTHER_CLOCK), str(clock_ns), sys.executable, "-m", "enginebench", "client", "--listen", where]
        client = subprocess.Popen(
            ["ip", "netns", "exec", name, *command], env={**os.environ, "ENGINEBENCH_CLIENT_TOKEN": TOKEN}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.clients.append(client)
        assert client.stdout is not None
        assert client.stdout.readline().strip() == f"--clients {where}"
        return where

    def close(self) -> None:
        for client in self.clients:
            client.kill()
            client.communicate()
        for name in self.hosts:
            subprocess.run(["ip", "netns", "del", name], check=False)
        subprocess.run(["ip", "link", "del", self.tag], check=False)


@pytest.fixture
def network() -> Iterator[Network]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made = Network()
    try:
        made.open()
        yield made
    finally:
        made.close()


def measured(folder: Path, clients: list[str]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The stored cells of a new run, and its report."""
    folder.mkdir()
    (folder / "s.yaml").write_text(SCENARIO)
    env = {
        **os.environ, "ENGINEBENCH_CLIENT_TOKEN": TOKEN, "ENGINEBENCH_HOME": str(folder / "home"), "ENGINEBENCH_LEASES": str(folder / "l"),
    }  # fmt: skip
    command = [sys.executable, "-m", "enginebench", "run", "s.yaml", "--clients", ",".join(clients), "--json", "--no-html"]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [json.loads(file.read_text()) for file in sorted(folder.glob("results/*/cells/*.json"))], json.loads(done.stdout)


def test_hosts_with_clocks_and_addresses_of_their_own(network: Network, tmp_path: Path) -> None:
    clients = [network.add(clock_ns) for clock_ns in CLOCKS_NS]
    cells, _ = measured(tmp_path / "even", clients)
    assert len(cells) == 2
    for cell in cells:
        assert [host["name"] for host in cell["client"]["hosts"]] == clients
        for host, clock_ns in zip(cell["client"]["hosts"], CLOCKS_NS, strict=True):
            assert abs(host["offset_ms"] - clock_ns / 1e6) <= host["error_ms"] < host["round_trip_ms"]
    (launch,) = (json.loads(file.read_text()) for file in (tmp_path / "even").glob("results/*/launches/*.json"))
    assert network.address(1) in launch["startup"]["command"]["argv"], "the engine listens where the clients reach it"

    with slow_way(clients[1], 0.04, network.address(1)) as slow:
        cells, report = measured(tmp_path / "uneven", [clients[0], slow])
    for cell in cells:
        near, far = cell["client"]["hosts"]
        assert abs(near["offset_ms"] - 3_000) <= near["error_ms"] < 5
        assert 20 <= far["error_ms"] < 60, "half of the delay"
        assert abs(far["offset_ms"] + 250) <= far["error_ms"]
        assert abs(far["offset_ms"] + 250) > 10, "the delay of one way is not known from round trips"
    found = json.dumps(report)
    assert f"the clock of client {slow} is known to" in found
    assert f"the clock of client {clients[0]} is known to" not in found
