"""Runs a deployment in containers (a `runtime.place.Place`): its private network, its containers, and a guardian in case the harness ends.

The first container owns the network namespace and shared memory; the others join them. All have the labels of `container.leftovers`.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath

from enginebench.adapter import WORKERS, Launch, Site
from enginebench.domain.container import Container
from enginebench.runtime.container import guardian
from enginebench.runtime.container.client import Client, remote_host, translated_errors
from enginebench.runtime.container.engine import EngineContainer
from enginebench.runtime.container.leftovers import Leftover, labels, remove
from enginebench.runtime.container.spec import INSIDE_WORKERS, LOOPBACK, PodSettings, arguments
from enginebench.runtime.exit_status import LaunchFailed
from enginebench.runtime.leftovers import unique_tag
from enginebench.runtime.place import Started
from enginebench.runtime.readiness import Proof, verify_listener

GUARDIAN_PATIENCE_S = 5.0


class Pod:
    """The containers of one deployment. Create it with `open_pod`; `close` it after the containers have been stopped."""

    def __init__(self, client: Client, container: Container, common: PodSettings, site: Site) -> None:
        self.site = site
        self._client, self._container, self._common = client, container, common
        self._first: EngineContainer | None = None
        self._started: list[EngineContainer] = []
        self._ports: Mapping[int, tuple[str, int]] = {}
        self._network: Leftover | None = None
        self._guardian = _start_guardian(common.tag)

    def make_network(self) -> None:
        """Create the private network of this deployment. Raises LaunchFailed."""
        name = f"enginebench-{self._common.tag}"
        with translated_errors("could not create a network: "):
            made = self._client.networks.create(name, driver="bridge", labels=dict(self._common.labels))
        self._network = Leftover("network", made.id, name, "", self._common.tag, live=True)
        self._common = replace(self._common, network=name)

    def start(self, launch: Launch, site: Site, *, log: Path, tag: str, piped: bool = False) -> EngineContainer:
        """Start one server in one container. Raises LaunchFailed, or Unsupported if GPUs are missing."""
        if piped:
            raise ValueError("a container cannot be piped: in-process batches run as processes")
        folder = PurePosixPath(site.folder)
        first = self._first.id if self._first else None
        asked = arguments(
            self._container, self._common, name=f"enginebench-{tag}", argv=launch.argv, env=launch.env, folder=str(folder), first=first
        )
        files = {**_worker_scripts(), **{folder / name: text for name, text in launch.files.items()}}
        started = EngineContainer.start(self._client, asked, files=files, folder=folder, log=log, secrets=self._common.secrets.values())
        self._started.append(started)
        if self._first is None:
            self._first = started
            self._ports = started.published() if self._container.network == "private" else {}
        return started

    def reach(self, port: int) -> tuple[str, int]:
        """Where the daemon has published the port; with the host network, the port itself."""
        if self._container.network == "host":
            return self.site.host, port
        if port not in self._ports:  # the first container has ended
            return LOOPBACK, port
        return self._ports[port]

    def prove(self, port: int, started: Started) -> Proof:
        """The daemon binds a published port for one container only; with the host network, look the listener up."""
        if self._container.network == "host":
            if remote_host():
                return Proof("unknown", "the daemon is on another machine")
            return verify_listener(port, started.pids(), self.site.host)
        if self._first is None or self._first.published().get(port) != self._ports.get(port):
            return Proof("foreign", f"the started container no longer publishes port {port}")
        return Proof("proven")

    def close(self) -> None:
        """Remove the network and end the guardian. If something cannot be removed, the guardian retries for a minute. Further calls do
        nothing."""
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


def open_pod(client: Client, container: Container, common: PodSettings, site: Site, log: Path) -> Pod:
    """A pod for one launch. Sets tag, labels and network of the settings. Raises LaunchFailed."""
    if remote_host() and container.address is None:
        raise LaunchFailed(
            f"the Docker daemon is on {remote_host()}, so ports on its loopback address are unreachable: set container.address to an "
            "address of that machine"
        )
    tag = unique_tag(log.stem)
    pod = Pod(client, container, replace(common, tag=tag, labels=labels(log, tag)), site)
    if container.network == "private":
        try:
            pod.make_network()
        except BaseException:
            pod.close()
            raise
    return pod


def _start_guardian(tag: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", guardian.__file__, tag]  # -P: modules in its folder must not shadow the standard library
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def _worker_scripts() -> dict[PurePosixPath, str]:
    """The scripts that run next to an engine. They are copied, because a daemon on another machine cannot mount them."""
    return {PurePosixPath(INSIDE_WORKERS) / file.name: file.read_text() for file in sorted(WORKERS.glob("*.py"))}
