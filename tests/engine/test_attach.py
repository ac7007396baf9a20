"""`bench run` on servers that are up already: nothing is started, nothing can be proved, and no key is stored."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from enginebench.loadgen import Target
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from .bench import Bench


def test_attach_measures_a_server_that_is_up_and_leaves_it_up(bench: Bench, start_fake: object) -> None:
    target: Target = start_fake("--ttft-ms", "5", "--itl-ms", "2")
    done = bench("run", bench.write(f"engine: openai, model: any, runtime: attach, url: 'http://127.0.0.1:{target.port}'"))
    assert done.returncode == 0, done.stderr
    assert [cell["status"] for cell in bench.cells()] == ["ok", "ok"]
    assert "proven" not in str(bench.cells()[0]["identity"])


@pytest.mark.parametrize("tokenizer", ["whole", "unreadable", "of no known kind", "none"])
def test_the_tokenizer_of_a_hub_id_is_taken_from_the_engines_cache(
    bench: Bench, start_fake: object, fetched_from_hub: Callable[[Path], Path], tokenizer: str
) -> None:
    file = fetched_from_hub(bench.folder / "hf") / "tokenizer.json"
    if tokenizer == "unreadable":
        file.write_text("{}")
    elif tokenizer == "of no known kind":  # every letter a token: no word is one
        letters = {letter: place for place, letter in enumerate("abcdefghijklmnopqrstuvwxyz?")}
        Tokenizer(WordLevel(letters, "?")).save(str(file))
    elif tokenizer == "none":
        file.unlink()
    bench.env |= {"HF_HOME": str(bench.folder / "hf"), "HF_HUB_CACHE": ""}
    target: Target = start_fake("--ttft-ms", "5", "--itl-ms", "2")
    url = f"http://127.0.0.1:{target.port}"
    scenario = bench.write(f"engine: openai, model: org/name, runtime: attach, url: '{url}', options: {{prompt_ids: true}}")
    done = bench("run", scenario, "--no-html")
    assert done.returncode == 0, done.stderr + done.stdout
    for cell in bench.cells():
        assert cell["prompts"]["exact"] is (tokenizer == "whole")
        assert ("tokenizer" in cell["counters"]["token_check"]) is (tokenizer == "whole")


def test_attach_without_its_key_or_its_server(bench: Bench) -> None:
    url = "http://127.0.0.1:9"
    bench.write(f"engine: openai, model: any, runtime: attach, url: '{url}', api_key_env: BENCH_TEST_KEY, ready_timeout_s: 1")
    done = bench("run", "s.yaml")
    assert done.returncode == 2
    assert "BENCH_TEST_KEY is not set" in done.stderr
    bench.env["BENCH_TEST_KEY"] = "sk-very-secret"
    done = bench("run", "s.yaml")
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    stored = "".join(file.read_text(errors="replace") for file in bench.folder.glob("results/**/*.json"))
    assert "sk-very-secret" not in stored + done.stdout + done.stderr


def test_a_key_that_the_server_quotes_back_is_stored_nowhere(bench: Bench) -> None:
    class Quoting(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(200)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(401)

        def answer(self, status: int) -> None:
            body = json.dumps({"error": {"message": f"got {self.headers['Authorization']}"}}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quoting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        bench.env["BENCH_TEST_KEY"] = "sk-very-secret"
        done = bench("run", bench.write(f"engine: openai, model: any, runtime: attach, url: '{url}', api_key_env: BENCH_TEST_KEY"))
        server.shutdown()
    assert done.returncode == 3
    assert "got Bearer ***" in done.stderr
    stored = "".join(file.read_text(errors="replace") for file in bench.folder.glob("results/**/*") if file.is_file())
    assert "sk-very-secret" not in stored + done.stdout + done.stderr
