"""Files of a model hub: what a reference means, and that a real client fetches all of it, once. The hub is a stand-in on the loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from enginebench.adapter import Launch, Member
from enginebench.checkpoints import local_path, missing
from enginebench.checkpoints.hub import HubReference, cached_folder, parse
from enginebench.domain import Deployment, Runtime
from enginebench.domain.container import Container
from enginebench.runner.prompts import vocabulary_of

FILES = {"config.json": b"{}", "tokenizer.json": b"{}", "Q4/m-00001-of-00002.gguf": b"one", "Q4/m-00002-of-00002.gguf": b"two"}
COMMIT = "0" * 40
CODE = """
import sys
from pathlib import Path
from enginebench.checkpoints import prepare
from enginebench.errors import UserError
try:
    print(prepare(sys.argv[1], "q4_k_m", sys.argv[2], Path(), lambda said: print(said, file=sys.stderr)))
except UserError as error:
    sys.exit(str(error))
"""
Fetch = Callable[[str, str], "subprocess.CompletedProcess[str]"]


class Hub(http.server.BaseHTTPRequestHandler):
    """One repository, org/name, with a revision v1."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        listing = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in FILES]}
        tree = [{"type": "file", "path": name, "size": len(data), "oid": name} for name, data in FILES.items()]
        known = {f"/org/name/resolve/{COMMIT}/{name}": data for name, data in FILES.items()}
        known |= {f"/api/models/org/name/revision/{name}": json.dumps(listing).encode() for name in ("main", "v1")}
        known |= {f"/api/models/org/name/tree/{COMMIT}": json.dumps(tree).encode()}
        path = self.path.partition("?")[0]
        data = known.get(path)
        self.send_response(200 if data is not None else 404)
        headers = {"ETag": f'"{hashlib.sha256(data or b"").hexdigest()}"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(data or b""))}
        for header in (headers | ({"X-Error-Code": "RepoNotFound"} if data is None else {})).items():
            self.send_header(*header)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data or b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a process that asks this hub: its client reads the address when it is imported."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folders = {"ENGINEBENCH_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf")}
    yield {**os.environ, **folders, "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HUB_OFFLINE": "0"}
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(hub: dict[str, str]) -> Fetch:
    """Prepares a reference."""
    return lambda reference, form: subprocess.run([sys.executable, "-c", CODE, reference, form], env=hub, capture_output=True, text=True)


def test_a_file_comes_with_all_its_parts_and_only_once(fetch: Fetch) -> None:
    reference = "hf:org/name@v1/Q4/m-00001-of-00002.gguf"
    first, again = fetch(reference, "gguf"), fetch(reference, "gguf")
    path = Path(first.stdout.strip())
    assert path.read_bytes() == b"one", first.stderr
    assert path.with_name("m-00002-of-00002.gguf").read_bytes() == b"two"
    assert not (path.parents[1] / "config.json").exists()
    assert "fetching org/name@v1" in first.stderr
    assert (again.stdout, again.stderr) == (first.stdout, "")


def test_a_folder_comes_whole(fetch: Fetch) -> None:
    folder = Path(fetch("hf:org/name@v1", "safetensors").stdout.strip())
    assert {name: (folder / name).read_bytes() for name in FILES} == FILES


PLACES = [{"HF_HOME": "{}/hf"}, {"XDG_CACHE_HOME": "{}/x"}, {"HF_HUB_CACHE": "{}/h"}, {"HF_HOME": "{}/hf", "HUGGINGFACE_HUB_CACHE": "{}/h"}]


@pytest.mark.parametrize("places", PLACES)
def test_what_an_engine_has_fetched_by_itself_is_found(hub: dict[str, str], places: dict[str, str], tmp_path: Path) -> None:
    names = ("HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    env = {name: value for name, value in hub.items() if name not in names} | {n: v.format(tmp_path) for n, v in places.items()}
    assert cached_folder("org/name", "tokenizer.json", env) is None
    code = "import huggingface_hub; print(huggingface_hub.snapshot_download('org/name'))"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert cached_folder("org/name", "tokenizer.json", env) == Path(done.stdout.strip()), done.stderr
    assert cached_folder("org/name", "nothing.json", env) is None
    assert cached_folder("org/other", "tokenizer.json", env) is None
    assert local_path("org/name", tmp_path) is None, "of its weights nothing is promised"


@pytest.mark.parametrize(
    ("runtime", "container", "argv", "env", "found"),
    [
        ("process", {}, (), {}, False),
        ("process", {}, (), {"HF_HUB_CACHE": ""}, True),
        ("process", {}, ("--tokenizer", "org/other"), {"HF_HUB_CACHE": ""}, False),
        ("process", {}, ("--revision=v1",), {"HF_HUB_CACHE": ""}, False),
        ("docker", {}, (), {}, True),
        ("docker", {"env": {"HF_HOME": "/elsewhere"}}, (), {}, False),
        ("docker", {"hf_cache": False}, (), {}, False),
    ],
)
def test_a_tokenizer_is_taken_only_from_the_cache_that_is_the_engines(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    fetched_from_hub: Callable[[Path], Path],
    runtime: Runtime,
    container: dict[str, Any],
    argv: tuple[str, ...],
    env: dict[str, str],
    found: bool,
) -> None:
    """HF_HUB_CACHE of this process leads elsewhere; a container gets HF_HOME and no more."""
    fetched_from_hub(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "empty"))
    deployment = Deployment("vllm", "m", "f32", "org/name", runtime=runtime, container=Container(**container))
    alone = Launch(("vllm", "serve", *argv), "m", env=env)
    behind = Launch(("proxy",), "m", members=(Member("decode", alone.argv, 8000, alone.env),))
    for launch in (alone, behind):
        assert (vocabulary_of(deployment, "org/name", launch, tmp_path) is not None) is found


@pytest.mark.parametrize(
    ("reference", "why"),
    [("hf:org/name@v1/nowhere.gguf", "org/name@v1 has no nowhere.gguf"), ("hf:org/other/a.gguf", "cannot fetch org/other")],
)
def test_what_the_hub_has_not_is_one_sentence(fetch: Fetch, reference: str, why: str) -> None:
    done = fetch(reference, "gguf")
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_what_a_reference_means() -> None:
    assert parse("hf:org/name") == HubReference("org/name", None, None)
    assert parse("hf:org/name@4.0bpw") == HubReference("org/name", "4.0bpw", None)
    assert parse("hf:org/name/sub/a.gguf") == HubReference("org/name", None, "sub/a.gguf")
    assert HubReference("org/name", None, "a.gguf").parts == ("a.gguf",)


@pytest.mark.parametrize(
    ("reference", "form", "why"),
    [
        ("hf:org/name", "gguf", "is not a GGUF file"),
        ("hf:org/name/a.gguf", "safetensors", "one file"),
        ("hf:org/name/../a.gguf", "gguf", "invalid reference"),
        ("hf:name/a.gguf", "safetensors", "invalid reference"),
        ("hf:org", "gguf", "invalid reference"),
    ],
)
def test_references_that_mean_nothing(reference: str, form: str, why: str) -> None:
    assert why in (missing(reference, "f16", form, Path()) or "")
