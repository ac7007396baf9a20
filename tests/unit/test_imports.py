"""What is not imported, as modules of ours and of others are most of what a short run takes. No clock is read."""

from __future__ import annotations

import ast
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from enginebench.machine.folders import checkout

SCENARIO = """
name: one
deployments: [{{engine: openai, model: any, runtime: attach, url: "http://127.0.0.1:{port}"}}]
loads: [{{input_tokens: 8, output_tokens: 1, requests: 1, warmup_requests: 0}}]
"""
STREAM = b'data: {"choices":[{"text":"a"}]}\n\ndata: {"choices":[],"usage":{"prompt_tokens":8,"completion_tokens":1}}\n\ndata: [DONE]\n\n'
RUN = """
import sys
from enginebench.cli import main
try:
    main(["run", "one.yaml", "--no-html"])
finally:
    print(*sorted(sys.modules))
"""


class Engine(http.server.BaseHTTPRequestHandler):
    """Answers every question with one token."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer("application/json", b'{"data":[{"id":"any"}]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer("text/event-stream", STREAM)

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the library's word
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def loaded(code: str, folder: Path) -> set[str]:
    """The modules that a program has loaded, which it prints as its last line."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=folder)
    return set(done.stdout.splitlines()[-1].split())


def test_the_report_package_is_cheap_to_import_and_knows_no_runner(tmp_path: Path) -> None:
    heavy = {"pandas", "plotly", "rich", "jinja2", "pyarrow", "enginebench.runner", "enginebench.loadgen", "enginebench.runtime"}
    assert not heavy & loaded("import sys, enginebench.report; print(*sorted(sys.modules))", tmp_path)


def test_a_run_on_a_server_that_is_up_leaves_out_what_it_has_no_use_for(port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine to reckon with, no checkpoint, no container, no page: their modules would be a third of its time."""
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "")  # no accelerator's tool, whatever this machine has
    (tmp_path / "one.yaml").write_text(SCENARIO.format(port=port))
    modules = loaded(RUN, tmp_path)
    assert {"pyarrow", "enginebench.report", "enginebench.loadgen"} <= modules, "it ran to its end"
    of_others = {
        "alembic",
        "docker",
        "fsspec",
        "gguf",
        "huggingface_hub",
        "jinja2",
        "numpy.ma",
        "pandas",
        "opentelemetry",
        "plotly",
        "pynvml",
        "s3fs",
        "sqlalchemy",
        "tokenizers",
    }
    of_ours = {
        "audit",
        "records.remote.mirror",
        "runner.otlp",
        "runner.uploads",
        "engines.images",
        "physics",
        "report.html",
        "runner.containers",
        "runtime.container.pod",
        "scenario.capacity",
    }
    assert sorted((of_others | {f"enginebench.{name}" for name in of_ours}) & modules) == []


def test_the_sampler_does_without_what_it_only_watches_for(tmp_path: Path) -> None:
    """A load waits for its start."""
    modules = loaded("import sys, enginebench.telemetry.sampler; print(*sorted(sys.modules))", tmp_path)
    assert "psutil" in modules
    assert not {"numpy", "pydantic", "enginebench.domain", "enginebench.records.run_folder"} & modules


def imported(file: Path) -> set[str]:
    """The modules of enginebench, and the other adapters, that a file in adapters/ imports."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
    return {name for name in names if name.split(".")[0] in ("enginebench", "adapters")}


def test_adapters_are_short_and_import_only_their_interface_and_workers_nothing_of_ours() -> None:
    folder = (checkout() or Path()) / "adapters"
    workers = list(folder.glob("workers/*.py"))
    engines = [file for file in (*folder.glob("*.py"), *folder.glob("*/*.py")) if file not in workers]
    assert len(engines) >= 10
    assert len(workers) >= 10
    for file in engines:
        assert imported(file) <= {"enginebench.adapter", "enginebench.__version__"}, file
        assert len(file.read_text().splitlines()) <= 350, f"{file} is too long to read in one sitting"
    assert {file.name: found for file in workers if (found := imported(file))} == {}
    interface = (checkout() or Path()) / "harness" / "enginebench" / "adapter.py"
    assert len(interface.read_text().splitlines()) <= 300, "what an adapter may do is read in one sitting, too"
