"""Single containers, as the place that starts them makes them: what they are given, how they end, and what is told of it."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from enginebench.adapter import Adapter, Deployment, Install, Launch, Member, Site
from enginebench.domain.container import Container
from enginebench.engines.registry import discover
from enginebench.records.launch import LaunchRecord
from enginebench.runner.launch import open_engine
from enginebench.runtime import LaunchFailed, ProcessGroup, http_get
from enginebench.runtime.container.client import caller
from enginebench.runtime.container.leftovers import CELL, LAUNCH, OWNER, RUN, find
from enginebench.runtime.container.pod import Pod, open_pod
from enginebench.runtime.container.spec import SITE, PodSettings

from .conftest import IMAGE, ULIMITS, until

FAKE = discover()["fake"]
LOG = "results/2026-01-01-boxed/logs/0123456789ab.log"


@contextlib.contextmanager
def place(client: Any, container: Container, folder: Path, **around: Any) -> Iterator[ProcessGroup]:
    """A group of containers; whatever happens it leaves nothing."""
    site = Site("0.0.0.0", 8000, Path(SITE), "none", (8001,))  # noqa: S104
    surroundings = PodSettings(image=IMAGE, tag="", labels={}, ports=(8000, 8001), **around)
    pod: Pod = open_pod(client, container, surroundings, site, folder / LOG)
    with ProcessGroup(pod, folder / LOG) as group:
        yield group
    assert not find(client, pod._common.tag)


def python(code: str, **more: Any) -> Launch:
    return Launch(("python3", "-c", code), "m", **more)


def said(client: Any, container: Container, folder: Path, code: str, **around: Any) -> str:
    """What a program prints that runs in such a container."""
    with place(client, container, folder, **around) as group:
        main = group.start_main(python(code))
        assert main.wait(60)
        assert main.ending == "exited with code 0", main.log_tail()
    return (folder / LOG).read_text()


REPORT = """
import json, os, resource, socket, pathlib
limit = [p for p in map(pathlib.Path, ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")) if p.exists()]
print(json.dumps({
    "uid": os.getuid(), "gid": os.getgid(), "home": os.environ["HOME"], "cwd": os.getcwd(), "cpus": sorted(os.sched_getaffinity(0)),
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize, "memory": limit[0].read_text().strip() if limit else None,
    "stack": resource.getrlimit(resource.RLIMIT_CORE), "env": dict(os.environ),
}))
pathlib.Path("/site/written").write_text("anybody may")
"""


def test_what_a_container_is_given(daemon: Any, nothing: Container, tmp_path: Path) -> None:
    asked = replace(
        nothing,
        cpuset="1",
        memory="256MiB",
        shm="32MiB",
        ulimits=ULIMITS | {"core": 4096},
        env={"A": "b"},
        offline=True,
        compile_cache=str(tmp_path),
    )
    told = json.loads(said(daemon, asked, tmp_path, REPORT, user="1234:2345", secrets={"HF_TOKEN": "hf_x"}))
    assert (told["uid"], told["gid"], told["home"], told["cwd"]) == (1234, 2345, "/site", "/site")
    assert (told["cpus"], told["shm"], told["stack"]) == ([1], 32 * 2**20, [4096, 4096])
    assert told["memory"] in (None, str(256 * 2**20))
    env = {"A": "b", "HF_TOKEN": "***", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "TRITON_CACHE_DIR": "/cache/compiled/triton"}
    assert env.items() <= told["env"].items()
    assert "ENGINEBENCH_HOME" not in told["env"]


def test_a_secret_that_is_printed_is_not_kept(daemon: Any, nothing: Container, tmp_path: Path) -> None:
    text = said(daemon, nothing, tmp_path, "import os; print('token', os.environ['KEY'])", secrets={"KEY": "s3cret-value"})
    assert text == "token ***\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can look at another user's files being left")
def test_files_belong_to_the_caller(daemon: Any, nothing: Container, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    said(daemon, replace(nothing, compile_cache=str(cache)), tmp_path, "open('/cache/compiled/x', 'w')", user="1234:2345")
    assert ((cache / "x").stat().st_uid, (cache / "x").stat().st_gid) == (1234, 2345)
    assert caller(daemon, "caller") == "0:0"
    assert caller(daemon, "image") is None


@pytest.mark.parametrize(
    ("code", "ending"),
    [
        ("raise SystemExit(3)", "exited with code 3"),
        ("import os; os.kill(os.getpid(), 11)", "killed by SIGSEGV"),
        ("hold = []\nwhile True: hold.append(bytearray(b'x' * 2**20))", "ran out of memory: the kernel killed it at its container's limit"),
    ],
)  # fmt: skip
def test_how_a_container_ended(daemon: Any, nothing: Container, tmp_path: Path, code: str, ending: str) -> None:
    with place(daemon, replace(nothing, memory="64MiB"), tmp_path) as group:
        main = group.start_main(python("print('begun', flush=True)\n" + code))
        assert group.wait(60)
        assert str(main.ending).startswith(ending)
        assert "begun" in main.log_tail()


def test_stopping_is_orderly_and_then_forced(daemon: Any, nothing: Container, tmp_path: Path) -> None:
    polite = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('bye'), sys.exit(0)))\nprint('up')\ntime.sleep(60)"
    with place(daemon, nothing, tmp_path) as group:
        main = group.start_main(python(polite))
        until(lambda: "up" in main.log_tail(), "it does not run")
    assert main.ending == "stopped by the harness (exited with code 0)"
    assert (tmp_path / LOG).read_text() == "up\nbye\n"
    deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('up')\ntime.sleep(60)"
    with place(daemon, nothing, tmp_path) as group:
        main = group.start_main(python(deaf))
        until(lambda: "up" in main.log_tail(), "it does not run")
        group.stop(grace_s=1)
    assert main.ending == "stopped by the harness (killed by SIGKILL)"


SERVE = "import http.server; http.server.HTTPServer(('0.0.0.0', {port}), http.server.SimpleHTTPRequestHandler).serve_forever()"
ASK = """
import pathlib, time, urllib.request
while True:
    try:
        print(urllib.request.urlopen("http://0.0.0.0:8001/what").read().decode()); break
    except OSError:
        time.sleep(0.05)
pathlib.Path("/dev/shm/seen").exists() and print("shared memory")
"""


def test_two_containers_on_a_network_of_their_own(daemon: Any, nothing: Container, tmp_path: Path) -> None:
    serve = ("python3", "-c", "open('/dev/shm/seen', 'w'); " + SERVE.format(port=8001))
    member = Member("side", serve, 8001, files={"what": "the member's file"})
    with place(daemon, nothing, tmp_path) as group:
        group.start_members(Launch(("true",), "m", members=(member,)))
        main = group.start_main(python(ASK))
        host, port = group.place.reach(8001)
        assert host == "127.0.0.1"
        assert main.wait(60), "the member listens from then on"
        assert http_get(host, port)("/what").body == b"the member's file"
        assert main.log_tail() == "the member's file\nshared memory"
        (network,) = [left for left in find(daemon) if left.kind == "network" and left.live and left.run == "2026-01-01-boxed"]
        labels = daemon.networks.get(network.id).attrs["Labels"]
        assert (labels[RUN], labels[CELL]) == ("2026-01-01-boxed", "0123456789ab")
        assert labels[LAUNCH] == network.launch
        assert json.loads(labels[OWNER])["pid"] == os.getpid()
        daemon.containers.get(group.members["side"].id).kill()  # type: ignore[attr-defined]
        assert group.members["side"].wait(60)
        assert str(group.ending).startswith("lost its member side: killed by SIGKILL")


def test_the_same_port_twice_is_no_clash(daemon: Any, nothing: Container, tmp_path: Path) -> None:
    with place(daemon, nothing, tmp_path / "a") as one, place(daemon, nothing, tmp_path / "b") as other:
        for group in (one, other):
            group.start_main(python(SERVE.format(port=8000)))
        ends = {group.place.reach(8000) for group in (one, other)}
        assert len(ends) == 2
        for end in ends:
            until(lambda end=end: http_get(*end)("/").status == 200, "it is not reached")  # type: ignore[misc]
        assert {group.place.prove(8000, group.main).kind for group in (one, other) if group.main} == {"proven"}


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        pass


def test_a_port_that_somebody_else_has_taken_is_told(daemon: Any, nothing: Container, tmp_path: Path) -> None:
    class Elsewhere(type(FAKE)):  # type: ignore[misc]  # the class of an adapter that is loaded by path
        """Listens where it was told to, but is asked where a foreign server listens."""

        def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
            object.__setattr__(site, "port", foreign.server_port)
            return Launch(("python3", "-c", "import time; time.sleep(60)"), "m")

    deployment = Deployment("fake", "m", "none", "none", runtime="docker", container=replace(nothing, network="host"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as foreign:
        thread = threading.Thread(target=foreign.serve_forever, args=(0.01,))
        thread.start()
        try:
            adapter: Adapter = Elsewhere()
            launch = LaunchRecord("l", deployment, 0, "")
            engine = open_engine(adapter, launch, (), log=tmp_path / LOG, base=tmp_path, say=lambda _: None)
            with pytest.raises(LaunchFailed, match=f"process {os.getpid()} .* listens on port {foreign.server_port}"), engine:
                pass
        finally:
            foreign.shutdown()
            thread.join()


def test_the_machines_own_network_is_proven_by_its_sockets(daemon: Any, nothing: Container, tmp_path: Path) -> None:
    deployment = Deployment("fake", "m", "none", "none", runtime="docker", container=replace(nothing, network="host"))
    launch = LaunchRecord("l", deployment, 0, "")
    with open_engine(FAKE, launch, (), log=tmp_path / LOG, base=tmp_path, say=lambda _: None):
        assert launch.startup.identity == "proven"
