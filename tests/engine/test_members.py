"""Deployments of several servers, as `bench run` starts them and as they end: fake engines behind the proxy, over real sockets."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from enginebench.adapter import Deployment, Install, Launch, Member, Parallelism, Site, Unsupported, prometheus_totals
from enginebench.engines.registry import discover
from enginebench.records.launch import LaunchRecord
from enginebench.runner.launch import open_engine
from enginebench.runtime import EngineProcess, LaunchFailed, ProcessGroup, ThisMachine, free_ports, http_get, leases, leftovers

from .bench import Bench

REPLICAS = "dp_replicas: 2, options: {ttft_ms: 5, itl_ms: 2}"
PAIR = "options: {ttft_ms: 60, itl_ms: 2, disaggregated: true}"
FAKE = discover()["fake"]
T = TypeVar("T")


class Servers(Bench):
    """`bench` with an eye on every process of a deployment, not only on those that generate."""

    def engines(self) -> list[psutil.Process]:
        found = []
        for process, _ in self.logging():
            with contextlib.suppress(psutil.Error):
                line = process.cmdline()
                if "/workers/" in " ".join(line) and "guardian" not in line[3]:
                    found.append(process)
        return found

    def engine(self, name: str) -> psutil.Process:
        """The process of that member."""
        logs = {process.pid: log.name for process, log in self.logging()}
        (found,) = [process for process in self.engines() if logs.get(process.pid, "").endswith(f".{name}.log")]
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Servers:
    return Servers(tmp_path)


@pytest.mark.parametrize(("deployment", "members"), [(REPLICAS, ["replica-1", "replica-2"]), (PAIR, ["prefill", "decode"])])
def test_a_deployment_of_several_servers_is_measured(bench: Servers, deployment: str, members: list[str]) -> None:
    done = bench("run", bench.scenario(deployment), "--no-html")
    assert done.returncode == 0, done.stderr + done.stdout
    for cell in bench.cells():
        assert cell["identity"] == "proven"
        # Whatever server a token came from, it is counted once.
        assert cell["counters"]["totals"] == {"prompt_tokens": 8 * 16, "cached_tokens": 0, "output_tokens": 8 * 8}
    (launch,) = [json.loads(file.read_text()) for file in bench.run_folder().glob("launches/*.json")]
    command = launch["startup"]["command"]
    assert "pd_proxy.py" in command["argv"][1]
    assert [member["name"] for member in command["members"]] == members
    assert all(str(member["port"]) in member["argv"] for member in command["members"])
    assert {file.name for file in bench.run_folder().glob("logs/*")} == {
        f"{launch['id']}{name}.log" for name in ("", *[f".{m}" for m in members])
    }
    assert not bench.engines()


def test_decode_waits_for_prefill_and_computes_no_prompt(bench: Servers) -> None:
    done = bench("run", bench.scenario(PAIR), "--json", "--no-html")
    for row in json.loads(done.stdout)["rows"]:
        assert 0.0595 < row["figures"]["ttft_p50"]["value"] < 0.115  # once the 60 ms of prefill, not twice and not never


def test_plan_shows_every_command_and_the_devices(bench: Servers) -> None:
    done = bench("plan", bench.scenario("dp_replicas: 3", "dp_replicas: 1"), "-v")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("fake_worker.py") == 4
    assert "  replica-3 $ " in done.stdout
    assert done.stdout.count("(3 GPUs)") == 1
    first, second = json.loads(bench("plan", "s.yaml", "--json").stdout)["launches"]
    assert (list(first["members"]), first["gpus"]) == (["replica-1", "replica-2", "replica-3"], 3)
    assert (second["members"], second["gpus"]) == ({}, 1)


@pytest.mark.parametrize(
    ("deployment", "reason", "tail"),
    [
        (
            "ready_timeout_s: 1, dp_replicas: 2, options: {never_ready: true}",
            "member replica-1: not ready after 1 s; the last GET /health",
            "fake engine on",
        ),
        (
            "dp_replicas: 2, options: {exit_at_start: true}",
            "lost its member replica-",
            "out of memory before it began",
        ),
    ],
)
def test_a_member_that_does_not_come_up_is_named(bench: Servers, deployment: str, reason: str, tail: str) -> None:
    done = bench("run", bench.scenario(deployment), "--no-html")
    assert done.returncode == 3
    for cell in bench.cells():
        assert cell["status"] == "failed"
        assert str(cell["reason"]).startswith(reason)
        assert any(tail in line for line in cell["log_tail"])  # type: ignore[attr-defined]
    assert not bench.engines()


LONG = """
name: long
deployments:
  - {engine: fake, model: any, precision: none, dp_replicas: 2, options: {ttft_ms: 20, itl_ms: 5}}
loads:
  - {concurrency: 4, input_tokens: 16, output_tokens: 32, requests: 0, duration_s: 3, timeout_s: 3}
  - {concurrency: 1, input_tokens: 16, output_tokens: 8, requests: 8, timeout_s: 3}
"""


@contextlib.contextmanager
def measuring(bench: Servers) -> Iterator[subprocess.Popen[str]]:
    """A run whose first cell is under way: a replica has answered more than warm-up and priming ask for."""
    (bench.folder / "s.yaml").write_text(LONG)
    with bench.start("run", "s.yaml", "--no-html") as process:
        try:
            (file,) = until(lambda: list(bench.folder.glob("results/*/launches/*.json")), "nothing was started")
            get = http_get("127.0.0.1", json.loads(file.read_text())["startup"]["command"]["members"][0]["port"])
            until(lambda: prometheus_totals(get("/metrics").body.decode())["fake_requests_total"] > 8, "nothing is measured")
            yield process
        finally:
            process.kill()


def until(true: Callable[[], T], otherwise: str) -> T:
    """What `true` returns once it is something."""
    deadline = time.monotonic() + 60
    while not (found := true()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)
    return found


def test_a_member_that_dies_while_measuring_fails_the_cell_and_is_named(bench: Servers) -> None:
    with measuring(bench) as process:
        bench.engine("replica-2").kill()
        process.communicate(timeout=90)
    assert process.returncode == 3
    first, second = sorted(bench.cells(), key=lambda cell: str(cell["status"]))
    launches = {file.stem: json.loads(file.read_text()) for file in bench.run_folder().glob("launches/*.json")}
    assert first["status"] == "failed"
    assert first["reason"] == "the engine lost its member replica-2: killed by SIGKILL (out of memory?) during the cell"
    command = launches[first["launch_id"]]["startup"]["command"]
    (port,) = [member["port"] for member in command["members"] if member["name"] == "replica-2"]
    assert first["log_tail"] == [f"fake engine on 127.0.0.1:{port}"]
    assert second["status"] == "ok", "everything is started again for the other cell"
    assert second["launch_id"] != first["launch_id"]
    assert not bench.engines()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_harness_that_is_gone_leaves_nothing(bench: Servers, number: signal.Signals) -> None:
    with measuring(bench) as process:
        tree = [engine.pid for engine in bench.engines()]
        assert len(tree) == 3
        process.send_signal(number)
        process.communicate(timeout=90)
    bench.wait_until_quiet()
    assert all(leftovers.born(pid) is None for pid in tree)


# -- one by one ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ENGINEBENCH_LEASES", str(tmp_path / "leases"))


def test_a_foreign_server_on_a_members_port_is_told(tmp_path: Path) -> None:
    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            pass

    class Elsewhere(type(FAKE)):  # type: ignore[misc]  # the class of an adapter that is loaded by path
        """A replica that listens somewhere else than where it was told to."""

        def launch(self, deployment: Deployment, install: Install, site: Site) -> Launch:
            launch = super().launch(deployment, install, site)
            first, second = launch.members
            return replace(launch, members=(first, replace(second, port=foreign.server_port)))

    deployment = Deployment("fake", "m", "none", "none", parallelism=Parallelism(dp_replicas=2))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Healthy) as foreign:
        thread = threading.Thread(target=foreign.serve_forever, args=(0.01,))
        thread.start()
        try:
            launch = LaunchRecord("l", deployment, 0, "")
            engine = open_engine(Elsewhere(), launch, FAKE.find(None), log=tmp_path / "log.log", base=tmp_path, say=lambda _: None)
            with (
                pytest.raises(LaunchFailed, match=f"member replica-2: process {os.getpid()} .* listens on port {foreign.server_port}"),
                engine,
            ):
                pass
        finally:
            foreign.shutdown()
            thread.join()
    assert leases() == []


SLEEP = ("sleep", "60")


def test_a_member_whose_program_is_not_there_ends_the_others(tmp_path: Path) -> None:
    launch = Launch(SLEEP, "m", members=(Member("a", SLEEP, 1), Member("b", ("no-such-engine",), 2)))
    group = ProcessGroup(ThisMachine(Site("127.0.0.1", 3, tmp_path / "site", "none")), tmp_path / "x.log")
    with group, pytest.raises(LaunchFailed, match=r"member b: no-such-engine: No such file"):
        group.start_members(launch)
    assert not group.members["a"].alive
    assert leases() == []


def test_each_member_has_its_own_folder_log_and_environment(tmp_path: Path) -> None:
    shell = ("sh", "-c", "cat what; echo $ROLE; exec sleep 60")
    members = tuple(Member(name, shell, port, {"ROLE": name}, {"what": f"{name}'s\n"}) for port, name in enumerate(("a", "b"), 1))
    with ProcessGroup(ThisMachine(Site("127.0.0.1", 3, tmp_path / "site", "none")), tmp_path / "x.log") as group:
        group.start_members(Launch(SLEEP, "m", members=members))
        group.start_main(Launch(SLEEP, "m"))
        assert group.alive
        assert group.ending is None
        member = group.members["b"]
        assert isinstance(member, EngineProcess)
        os.kill(member.pid, signal.SIGSEGV)
        assert group.wait(10)
        assert group.ending == "lost its member b: killed by SIGSEGV"
        assert group.members["a"].alive
    for name in ("a", "b"):
        assert (tmp_path / f"x.{name}.log").read_text() == f"{name}'s\n{name}\n"
    assert not group.members["a"].alive
    assert leases() == []


@pytest.mark.clock
def test_everything_is_stopped_side_by_side_after_the_main_process(tmp_path: Path) -> None:
    deaf = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
    with ProcessGroup(ThisMachine(Site("127.0.0.1", 3, tmp_path / "site", "none")), tmp_path / "x.log") as group:
        group.start_members(Launch(SLEEP, "m", members=tuple(Member(name, deaf, port) for port, name in enumerate("abcd", 1))))
        group.start_main(Launch(SLEEP, "m"))
        for name in "abcd":
            deadline = time.monotonic() + 10
            while "ready" not in group.members[name].log_tail():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        began = time.monotonic()
        group.stop(grace_s=2.0)
        assert 2.0 <= time.monotonic() - began < 6.0  # one grace for all four, not one after another
    assert {process.ending for process in group.members.values()} == {"stopped by the harness (killed by SIGKILL)"}


def test_free_ports_are_different() -> None:
    assert len(set(free_ports("127.0.0.1", 50))) == 50


def test_what_the_fake_engine_cannot_express() -> None:
    deployment = Deployment("fake", "m", "none", "none")
    for unfit in (
        replace(deployment, parallelism=Parallelism(tp=2)),
        replace(deployment, parallelism=Parallelism(dp_replicas=2), options={"disaggregated": True}),
        replace(deployment, options={"disaggregated": True, "protocol": "ollama"}),
    ):
        with pytest.raises(Unsupported):
            FAKE.check(unfit)
