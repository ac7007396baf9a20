"""A real registry on the loopback (Debian's `docker-registry`): what `bench images` pulls and pins, and what it says when it cannot."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from enginebench.cli import bench
from enginebench.engines.images import read_images, table_file
from enginebench.errors import UserError
from enginebench.runner.containers import base_digests

from .conftest import IMAGE, need, until

NAME, TAG = "llamacpp/cpu", "1.0.0"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Its address. The daemon speaks plain HTTP to the loopback."""
    program = shutil.which("docker-registry")
    need(None if program else "docker-registry is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    config.write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {tmp_path}/registry}}}}\nhttp: {{addr: '{address}'}}\n")
    with subprocess.Popen([str(program), "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        until(lambda: _answers(address), "the registry does not start")
        yield address
        process.terminate()


def _answers(address: str) -> bool:
    host, port = address.split(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.fixture
def pushed(daemon: Any, nothing: Any, registry: str) -> Iterator[str]:
    """The repository of an image that only the registry has."""
    repository = f"{registry}/nothing"
    image = daemon.images.get(IMAGE)
    image.tag(repository, TAG)
    said = daemon.images.push(repository, TAG)
    assert "digest" in said, said
    daemon.images.remove(f"{repository}:{TAG}")
    yield repository
    for name in [name for name in (image.reload() or image).attrs["RepoDigests"] if name.startswith(registry)]:
        with contextlib.suppress(Exception):
            daemon.images.remove(name)


def table(folder: Path, repository: str) -> Path:
    """The table that ships, with this repository as the first image's base."""
    file = Path(shutil.copytree(table_file().parent, folder / "containers")) / "images.yaml"
    text = file.read_text().replace("image: python\n", f"image: {repository}\n", 1)
    file.write_text(re.sub(r"tag: 3\.11\.\S+", f"tag: {TAG}", text, count=1))
    return file


def images(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(bench, ["images", "--table", str(file), *arguments], standalone_mode=False)


def test_a_tag_is_pinned_and_then_pulled_by_its_digest(daemon: Any, pushed: str, tmp_path: Path) -> None:
    file = table(tmp_path, pushed)
    before = file.read_text()
    said = images(file, "pin", NAME)
    assert said.exception is None, said.output
    digest = read_images(file)[NAME].digest
    assert digest == daemon.images.get_registry_data(f"{pushed}:{TAG}").id
    assert file.read_text() == before.replace("digest: null", f"digest: {digest}", 1)
    assert said.output == f"{NAME}: {pushed}:{TAG} {digest}  (new)\n"
    assert images(file, "pull", NAME).output.splitlines()[-1] == f"{NAME}: {pushed}@{digest}"
    assert f"{pushed}@{digest}" in daemon.images.get(f"{pushed}@{digest}").attrs["RepoDigests"]


def test_a_run_records_the_digest_of_the_base_that_it_was_built_on(daemon: Any, pushed: str) -> None:
    base = f"{pushed}:{TAG}"
    daemon.images.pull(pushed, TAG)
    (digest,) = [name for name in daemon.images.get(base).attrs["RepoDigests"] if name.startswith(pushed)]
    built, _ = daemon.images.build(fileobj=io.BytesIO(f"FROM {base}\nCOPY Dockerfile /\n".encode()), rm=True)
    try:
        assert built.attrs["RepoDigests"] in ([], None)
        assert digest in base_digests(daemon, built, base)
        built.tag(pushed, TAG)  # the tag moves: what it names now is another image than the base
        assert base_digests(daemon, daemon.images.get(IMAGE), base) == []
        assert base_digests(daemon, built, f"{pushed}:9.9.9") == []
    finally:
        daemon.images.remove(built.id, force=True)


@pytest.mark.parametrize("verb", ["pull", "pin"])
def test_a_tag_that_the_registry_does_not_have(pushed: str, tmp_path: Path, verb: str) -> None:
    file = table(tmp_path, pushed)
    file.write_text(file.read_text().replace(f"tag: {TAG}", "tag: 9.9.9", 1))
    problem = images(file, verb, NAME).exception
    assert isinstance(problem, UserError)
    assert f"{pushed}:9.9.9" in problem.message
    assert problem.advice == "the registry has no such tag: correct it in the table"


@pytest.mark.parametrize("verb", ["pull", "pin"])
def test_a_registry_that_is_not_there(daemon: Any, tmp_path: Path, verb: str) -> None:
    problem = images(table(tmp_path, "127.0.0.1:1/nothing"), verb, NAME).exception
    assert isinstance(problem, UserError)
    assert "127.0.0.1:1/nothing" in problem.message
    assert problem.advice is not None
    assert problem.advice.startswith("the daemon cannot reach the registry")
