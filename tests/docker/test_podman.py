"""Podman's own service in the place of Docker's daemon, reached through DOCKER_HOST: the same containers, and the same is told of them.

Podman itself, with an image store of its own; needs root, as its network does.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from enginebench.domain.container import Container
from enginebench.runtime import LaunchFailed
from enginebench.runtime.container.client import connect

from .conftest import FAKE, IMAGE, ULIMITS, Bench, boxed, import_nothing, mounts, need, until
from .test_containers import (  # noqa: F401  # they are run here once more, with the fixtures of this module
    place,
    python,
    test_a_secret_that_is_printed_is_not_kept,
    test_files_belong_to_the_caller,
    test_stopping_is_orderly_and_then_forced,
    test_the_machines_own_network_is_proven_by_its_sockets,
    test_the_same_port_twice_is_no_clash,
    test_two_containers_on_a_network_of_their_own,
    test_what_a_container_is_given,
)


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """The address of `podman system service`."""
    need(None if shutil.which("podman") else "podman is not installed")
    need(None if os.getuid() == 0 else "Podman's networks need root")
    with tempfile.TemporaryDirectory(prefix="eb-", ignore_cleanup_errors=True) as folder:
        address = f"unix://{folder}/p.sock"
        own = ["--root", f"{folder}/root", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
        command = ["podman", *own, "system", "service", "--time=0", address]
        with subprocess.Popen(command, cwd=folder) as process:  # where a container lacks memory, conmon leaves a file `oom`
            until(lambda: Path(f"{folder}/p.sock").exists(), "podman does not start")
            yield address
            process.terminate()


@pytest.fixture(scope="module")
def daemon(service: str) -> Iterator[Any]:
    """A client of it; whatever asks for a daemon while these tests run is led there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", service)
        try:
            client = connect()
        except LaunchFailed as failure:
            pytest.fail(failure.reason)
        with contextlib.closing(client):
            import_nothing(client)
            yield client


@pytest.fixture(scope="module")
def nothing(daemon: Any) -> Container:
    return Container(image=IMAGE, mounts=mounts(), shm="64MiB", ulimits=ULIMITS)


def test_out_of_memory_is_suspected(daemon: Any, nothing: Container, tmp_path: Path) -> None:
    code = "hold = []\nwhile True: hold.append(bytearray(b'x' * 2**20))"
    with place(daemon, replace(nothing, memory="64MiB"), tmp_path) as group:
        main = group.start_main(python(code))
        assert group.wait(60)
        assert "out of memory" in str(main.ending)  # Podman 4.3 does not say so itself


def test_a_run(bench: Bench) -> None:
    done = bench("run", bench.scenario(FAKE + "options: {disaggregated: true}, " + boxed()), "--no-html")
    assert done.returncode == 0, done.stderr + done.stdout
    (launch,), (cell,) = bench.records("launches"), bench.records("cells")
    assert (launch["startup"]["identity"], cell["status"]) == ("proven", "ok")
    assert launch["startup"]["container"]["id"]


@pytest.mark.parametrize(
    ("deployment", "reason"),
    [
        (boxed(image="nobody/absent:1.0", offline=True), "the image nobody/absent:1.0 is not here, and the deployment is offline"),
        (boxed(cpuset="4000-4001"), "container.cpuset names CPUs that the daemon's machine lacks"),
        (boxed(gpus=1), "missing   1 NVIDIA GPU (here: no GPU)"),
    ],
)  # fmt: skip
def test_each_trouble_is_one_sentence(bench: Bench, deployment: str, reason: str) -> None:
    done = bench("run", bench.scenario(FAKE + deployment), "--no-html")
    if done.returncode == 2:  # seen before anything was stored
        assert reason in done.stderr
    else:
        (cell,) = bench.records("cells")
        assert reason in str(cell["reason"])
