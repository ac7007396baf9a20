"""A real Docker daemon, and an image that holds nothing: programs come from this machine, mounted read-only. So no registry is needed.

Without a daemon these tests skip with the reason; in CI, where `.ci/run` starts one, they fail.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from enginebench.domain.container import Container
from enginebench.runtime import LaunchFailed
from enginebench.runtime.container.client import connect
from enginebench.runtime.container.leftovers import Leftover, find

from ..forked_bench import bench_argv  # noqa: TID252  # tests/ is no package

IMAGE = f"enginebench-test/nothing:1.0.0-{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
"""Each worker imports its own, because an import changes what the name means."""
ULIMITS = {"nofile": 4096, "nproc": 4096}
"""Podman raises both as far as the kernel goes where nobody says otherwise, which a machine that is itself a container may not allow."""
T = TypeVar("T")


def need(problem: str | None) -> None:
    """Skip for this reason, if there is one; fail in CI."""
    if problem is not None:
        pytest.fail(problem) if os.environ.get("CI") else pytest.skip(problem)


@pytest.fixture(scope="session")
def daemon() -> Any:
    """A client of the daemon."""
    try:
        return connect()
    except LaunchFailed as failure:
        need(failure.reason)


def import_nothing(client: Any) -> None:
    """The empty image, which finds Python where this machine has it."""
    empty = io.BytesIO()
    tarfile.open(fileobj=empty, mode="w").close()
    changes = [f"ENV PATH={sys.base_prefix}/bin:/usr/bin:/bin"]
    client.api.import_image_from_data(empty.getvalue(), IMAGE, changes=changes)  # Podman does not read the API's separate tag


def mounts() -> tuple[str, ...]:
    """This machine's Python and the libraries it needs."""
    wanted = dict.fromkeys([sys.base_prefix, "/usr/lib", "/usr/bin", "/bin", "/lib", "/lib64"])
    return tuple(f"{path}:{path}" for path in wanted if Path(path).exists())


@pytest.fixture(scope="session")
def nothing(daemon: Any) -> Container:
    """A container of the empty image."""
    import_nothing(daemon)
    return Container(image=IMAGE, mounts=mounts(), shm="64MiB", ulimits=ULIMITS)


def until(true: Callable[[], T], otherwise: str, patience_s: float = 60) -> T:
    """What `true` returns once it is something."""
    deadline = time.monotonic() + patience_s
    while not (found := true()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)
    return found


@dataclass
class Bench:
    """`bench` in a folder of its own, with results and leases of its own."""

    folder: Path
    env: dict[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "enginebench", *arguments],
            cwd=self.folder,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(bench_argv(*arguments), cwd=self.folder, env=self.env, text=True, capture_output=True, timeout=280)

    def scenario(self, deployment: str, *, load: str = "concurrency: 2, requests: 8", models: str = "") -> str:
        """Write s.yaml: one deployment (a flow mapping's inside) with the empty image unless it says otherwise."""
        name = f"boxed-{self.folder.name}-{os.getpid()}"  # the tests of other workers have runs in the same daemon
        text = f"name: {name}\n{models}\ndeployments:\n  - {{{deployment}}}\nloads:\n  - {{input_tokens: 16, output_tokens: 8, {load}}}\n"
        (self.folder / "s.yaml").write_text(text)
        return "s.yaml"

    def run_folder(self) -> Path:
        (folder,) = (self.folder / "results").iterdir()
        return folder

    def records(self, kind: str) -> list[dict[str, Any]]:
        """Of 'cells' or 'launches'."""
        return [json.loads(file.read_text()) for file in sorted(self.run_folder().glob(f"{kind}/*.json"))]

    def left(self, client: Any) -> list[Leftover]:
        """What runs of this folder have in the daemon."""
        runs = [folder.name for folder in (self.folder / "results").glob("*")]
        return [item for item in find(client) if item.run in runs]


@pytest.fixture
def bench(tmp_path: Path, daemon: Any) -> Iterator[Bench]:
    bench = Bench(tmp_path, {**os.environ, "ENGINEBENCH_HOME": str(tmp_path / "home")})
    yield bench
    with contextlib.suppress(LaunchFailed):
        assert not bench.left(daemon), "something was left behind"


def boxed(**more: object) -> str:
    """`container:` of the empty image as YAML, which JSON is."""
    return "container: " + json.dumps({"image": IMAGE, "mounts": list(mounts()), "shm": "64MiB", "ulimits": ULIMITS, **more})


FAKE = "engine: fake, model: any, precision: none, runtime: docker, "
