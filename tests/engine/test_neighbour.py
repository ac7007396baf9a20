"""An engine in a container beside the client's: `supervise.sh` runs as in that container, and `bench run` as in the client's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from enginebench.adapter import Launch, Site
from enginebench.domain.container import Container
from enginebench.runtime import LaunchFailed
from enginebench.runtime.container import neighbour
from enginebench.runtime.container.neighbour import SUPERVISOR, VARIABLE, Neighbour, NeighbourEngine, open_neighbour

from .bench import Bench


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The other container, with the shared folder tmp_path."""
    python = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    process = subprocess.Popen(["sh", str(SUPERVISOR), str(tmp_path)], env={**os.environ, **python})
    yield process
    (tmp_path / "done").touch()
    assert process.wait(10) in (0, -signal.SIGKILL)


@pytest.fixture
def place(tmp_path: Path) -> Neighbour:
    return open_neighbour(tmp_path, Container(env={"GREETING": "it's here"}), "", 0, "x")


def start(place: Neighbour, tmp_path: Path, *argv: str, tag: str = "tag") -> NeighbourEngine:
    launch = Launch(argv, "m", files={"a/b.txt": "text"})
    return place.start(launch, place.site, log=tmp_path / "logs" / f"{tag}.log", tag=tag)


@pytest.mark.usefixtures("supervisor")
def test_a_run_measures_the_engine_beside_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.env[VARIABLE] = str(tmp_path)
    bench.scenario("runtime: docker, container: {image: example/fake}, dp_replicas: 2")
    done = bench("run", "s.yaml")
    assert done.returncode == 0, done.stderr
    assert [cell["status"] for cell in bench.cells()] == ["ok", "ok"]
    (launch,) = (json.loads(file.read_text()) for file in (bench.run_folder() / "launches").glob("*.json"))
    assert launch["startup"]["container"]["image"] == "example/fake"
    assert launch["startup"]["identity"] == "proven"
    assert str(tmp_path / "workers") in (next(tmp_path.glob("launches/*/command"))).read_text()


@pytest.mark.usefixtures("supervisor")
def test_it_runs_with_its_files_and_environment_and_its_exit_is_seen(tmp_path: Path, place: Neighbour) -> None:
    engine = start(place, tmp_path, "sh", "-c", 'cat a/b.txt; echo " $GREETING" "$HF_HUB_OFFLINE"; exit 7')
    assert engine.wait(10)
    assert engine.ending == "exited with code 7"
    assert engine.log_tail().strip() == "text it's here"


@pytest.mark.usefixtures("supervisor")
def test_a_stop_ends_all_of_its_processes(tmp_path: Path, place: Neighbour) -> None:
    engine = start(place, tmp_path, "sh", "-c", "sleep 1000 & echo ready; wait")
    while "ready" not in engine.log_tail():
        assert not engine.wait(0.05)
    pids = engine.pids()
    assert len(pids) == 2
    engine.stop(5)
    assert engine.ending == "stopped by the harness (killed by SIGTERM)"
    deadline = time.monotonic() + 5
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < deadline


@pytest.mark.usefixtures("supervisor")
def test_one_that_does_not_listen_is_killed(tmp_path: Path, place: Neighbour) -> None:
    engine = start(place, tmp_path, "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")
    while "ready" not in engine.log_tail():
        assert not engine.wait(0.05)
    engine.stop(0.5)
    assert engine.ending == "stopped by the harness (killed by SIGKILL)"


def test_a_container_that_ended_is_noticed(
    tmp_path: Path, place: Neighbour, supervisor: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbour, "BEAT_S", 1.0)
    engine = start(place, tmp_path, "sleep", "30")
    while not engine.pids():
        assert not engine.wait(0.05)
    pids = engine.pids()
    supervisor.kill()
    supervisor.wait()
    assert engine.wait(10)
    assert engine.ending == "lost with its container"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_a_log_that_the_other_container_cannot_see_is_refused(tmp_path: Path, place: Neighbour) -> None:
    with pytest.raises(LaunchFailed, match="which the engine's container shares"):
        place.start(Launch(("true",), "m"), Site("127.0.0.1", 1, tmp_path / "s", ""), log=Path("/elsewhere/x.log"), tag="t")
