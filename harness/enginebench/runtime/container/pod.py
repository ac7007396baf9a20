"""Where a deployment in containers is started: its private network, its containers, and a guardian for when the harness dies.

The first container has the deployment's network and shared memory, the others join it. All carry the labels of `container_leftovers`. Knows
nothing of images (they are there), of readiness or of loads.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from enginebench.adapter import WORKERS, Launch, Site
from enginebench.domain.container import Container
from enginebench.runtime.container import guardian
from enginebench.runtime.container.client import Client, elsewhere, sentences
from enginebench.runtime.container.engine import EngineContainer
from enginebench.runtime.container.leftovers import Left, labels, remove
from enginebench.runtime.container.spec import INSIDE_WORKERS, LOOPBACK, Surroundings, arguments
from enginebench.runtime.exit_status import LaunchFailed
from enginebench.runtime.leftovers import unique_tag
from enginebench.runtime.place import Started
from enginebench.runtime.readiness import Proof, verify_listener

GUARDIAN_PATIENCE_S = 5.0


class Pod:
    """The containers of one deployment. Made by `open_pod`; `close` once they have been stopped."""

    def __init__(self, client: Client, container: Container, around: Surroundings, site: Site) -> None:
        self.site = site
        self._client, self._container, self._around = client, container, around
        self._first: EngineContainer | None = None
        self._started: list[EngineContainer] = []
        self._ports: Mapping[int, tuple[str, int]] = {}
        self._network: Left | None = None
        self._guardian = _start_guardian(around.tag)

    def make_network(self) -> None:
        """The network of this deployment alone. Raises LaunchFailed."""
        name = f"enginebench-{self._around.tag}"
        with sentences("no network could be made: "):
            made = self._client.networks.create(name, driver="bridge", labels=dict(self._around.labels))
        self._network = Left("network", made.id, name, "", self._around.tag, live=True)
        self._around = replace(self._around, network=name)

    def start(self, launch: Launch, site: Site, *, log: Path, tag: str, talk: bool = False) -> EngineContainer:
        """One server in one container. Raises LaunchFailed, or Unsupported when GPUs are missing."""
        if talk:
            raise ValueError("a container is a server; a batch in-process talks through pipes")
        folder = PurePosixPath(site.folder)
        first = self._first.id if self._first else None
        asked = arguments(
            self._container, self._around, name=f"enginebench-{tag}", argv=launch.argv, env=launch.env, folder=str(folder), first=first
        )
        files = {**_engine_side(), **{folder / name: text for name, text in launch.files.items()}}
        started = EngineContainer.start(self._client, asked, files=files, folder=folder, log=log, secrets=self._around.secrets.values())
        self._started.append(started)
        if self._first is None:
            self._first = started
            self._ports = started.published() if self._container.network == "private" else {}
        return started

    def reach(self, port: int) -> tuple[str, int]:
        """Where the daemon has published the port; in the machine's own network the port itself."""
        if self._container.network == "host":
            return self.site.host, port
        if port not in self._ports:  # the first container has ended, and its ports with it
            return LOOPBACK, port
        return self._ports[port]

    def prove(self, port: int, started: Started) -> Proof:
        """A published port is bound by the daemon for one container only; in the machine's own network sockets are looked up."""
        assert isinstance(started, EngineContainer)  # noqa: S101  # as `start` returns it
        if self._container.network == "host":
            return (
                Proof("unknown", "the daemon's machine is another one") if elsewhere() else verify_listener(port, started, self.site.host)
            )
        if self._first is None or self._first.published().get(port) != self._ports.get(port):
            return Proof("foreign", f"port {port} is not published any more by the container that was started")
        return Proof("proven")

    def close(self) -> None:
        """Remove the network and let the guardian go; what cannot be removed now is left to it for a minute. Again does nothing."""
        if self._network is not None and remove(self._client, self._network) is None:
            self._network = None
        stdin = self._guardian.stdin
        if stdin is None or stdin.closed:
            return
        self._client.close()
        if self._network is not None or any(started.stuck for started in self._started):
            stdin.close()
            return
        try:
            self._guardian.communicate(b"done\n", timeout=GUARDIAN_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._guardian.kill()
            self._guardian.wait()


def open_pod(client: Client, container: Container, around: Surroundings, site: Site, log: Path) -> Pod:
    """A place for the containers of one launch; around needs neither tag, labels nor network. Raises LaunchFailed."""
    if elsewhere() and container.address is None:
        raise LaunchFailed(
            f"the Docker daemon is on {elsewhere()}, whose loopback is not reached from here: write container.address, an address of it"
        )
    tag = unique_tag(log.stem)
    pod = Pod(client, container, replace(around, tag=tag, labels=labels(log, tag)), site)
    if container.network == "private":
        try:
            pod.make_network()
        except BaseException:
            pod.close()
            raise
    return pod


def _start_guardian(tag: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", guardian.__file__, tag]  # -P: modules beside it must not shadow the standard library's
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def _engine_side() -> dict[PurePosixPath, str]:
    """The scripts that run where an engine is installed, for every container: a daemon elsewhere cannot mount our files."""
    return {PurePosixPath(INSIDE_WORKERS) / file.name: file.read_text() for file in sorted(WORKERS.glob("*.py"))}
