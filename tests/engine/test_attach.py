"""`bench run` on servers that are up already: nothing is started, nothing can be proved, and no key is stored."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
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


class Picky(http.server.BaseHTTPRequestHandler):
    """A server with one route, which asks for its own key header, max_completion_tokens and no temperature."""

    protocol_version = "HTTP/1.1"
    route = "/openai/deployments/gpt/chat/completions?api-version=2026-01-01"

    def do_GET(self) -> None:
        self.reply(403, {"error": {"message": "forbidden"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path != self.route:
            self.reply(404, {"error": {"message": f"no route {self.path}"}})
        elif self.headers["api-key"] != "sk-very-secret":
            self.reply(401, {"error": {"message": "wrong key"}})
        elif "max_tokens" in body:
            self.reply(400, {"error": {"message": "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."}})
        elif "temperature" in body:
            self.reply(400, {"error": {"message": "Unsupported value: 'temperature' does not support 0 with this model."}})
        else:
            self.stream(body["max_completion_tokens"])

    def reply(self, status: int, value: object) -> None:
        self.send_body(status, "application/json", json.dumps(value).encode())

    def stream(self, tokens: int) -> None:
        events = [{"choices": [{"delta": {"content": "a "}, "finish_reason": None}]}] * tokens
        events += [{"choices": [{"delta": {}, "finish_reason": "length"}]}]
        events += [{"choices": [], "usage": {"prompt_tokens": 16, "completion_tokens": tokens}}]
        lines = [f"data: {json.dumps(event)}\n\n" for event in events]
        self.send_body(200, "text/event-stream", "".join([*lines, "data: [DONE]\n\n"]).encode())

    def send_body(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None: ...


@pytest.mark.parametrize("path", ["", "/chat/completions"], ids=["base", "route"])
def test_a_server_with_its_own_path_query_key_header_and_fields(bench: Bench, path: str) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Picky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/openai/deployments/gpt{path}?api-version=2026-01-01"
        bench.env["BENCH_TEST_KEY"] = "sk-very-secret"
        bench.write(f"engine: openai, model: m, runtime: attach, url: '{url}', api_key_env: BENCH_TEST_KEY, api_key_header: api-key")
        file = bench.folder / "s.yaml"
        file.write_text(file.read_text().replace("concurrency:", "api: chat, concurrency:"))
        done = bench("run", "s.yaml", "--no-html")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert "the server refuses max_tokens: sending max_completion_tokens" in done.stderr
    assert "the server refuses temperature: sending requests without" in done.stderr
    (launch,) = (json.loads(file.read_text()) for file in (bench.run_folder() / "launches").glob("*.json"))
    assert {"name": "temperature", "asked": 0.0, "got": "not sent: the server refuses it"} in launch["configuration"]["differences"]


TLS = Path(__file__).parent / "tls"


def test_a_certificate_of_ones_own_is_named_or_asked_for(bench: Bench, start_fake: object) -> None:
    target: Target = start_fake(
        "--ttft-ms", "5", "--itl-ms", "2", "--tls-cert", str(TLS / "server.crt"), "--tls-key", str(TLS / "server.key")
    )
    server = f"engine: openai, model: any, runtime: attach, url: 'https://127.0.0.1:{target.port}'"
    bench.env.pop("SSL_CERT_FILE", None)
    done = bench("run", bench.write(server), "--no-html")
    assert done.returncode == 3
    assert "the server's certificate is not trusted" in done.stderr
    assert "`ca_file`" in done.stderr
    done = bench("run", bench.write(f"{server}, ca_file: none.pem"))
    assert (done.returncode, "s.yaml:4: deployments[0].ca_file: cannot be read" in done.stderr) == (2, True), done.stderr
    done = bench("run", bench.write(f"{server}, ca_file: '{TLS / 'ca.crt'}'"), "--no-html", "--fresh")
    assert done.returncode == 0, done.stderr


def test_a_server_that_speaks_only_http_2_is_told_so(bench: Bench) -> None:
    settings = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + bytes(7) + b"\x01"  # SETTINGS, GOAWAY

    class Frames(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(settings)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Frames) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        done = bench("run", bench.write(f"engine: openai, model: m, runtime: attach, url: 'http://127.0.0.1:{server.server_address[1]}'"))
        server.shutdown()
    assert done.returncode == 3
    assert "the server speaks only HTTP/2" in done.stderr


@pytest.mark.parametrize("query", ["api_key=x", "sig=x", "api-version=1&access_token=y"])
def test_a_secret_in_a_url_is_refused(bench: Bench, query: str) -> None:
    done = bench("plan", bench.write(f"engine: openai, model: m, runtime: attach, url: 'http://127.0.0.1:9/v1?{query}'"))
    assert done.returncode == 2
    assert "name a secret with `api_key_env`" in done.stderr


def test_a_server_whose_first_answer_fails_is_measured(bench: Bench) -> None:
    class Flaky(Picky):
        answered = 0

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            Flaky.answered += 1
            if Flaky.answered % 5 == 1:
                self.send_body(200, "text/event-stream", b'data: {"error": {"message": "upstream gone"}}\n\n')
            else:
                self.stream(body["max_tokens"])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Flaky) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        bench.write(f"engine: openai, model: m, runtime: attach, url: 'http://127.0.0.1:{server.server_port}'")
        file = bench.folder / "s.yaml"
        file.write_text(file.read_text().replace("concurrency:", "api: chat, concurrency:"))
        done = bench("run", "s.yaml", "--no-html")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert [cell["status"] for cell in bench.cells()] == ["ok", "ok"]


class Echo(http.server.BaseHTTPRequestHandler):
    """A server that returns the key wherever it can: model list, text, finish reason, timings, headers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        key = self.headers["Authorization"]
        self.reply("application/json", json.dumps({"object": "list", "data": [{"id": key, "owned_by": key, "object": "model"}]}))

    def do_POST(self) -> None:
        key, body = self.headers["Authorization"], json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        events = [{"choices": [{"text": f" {key}", "finish_reason": None}]}] * body.get("max_tokens", 1)
        events += [
            {"choices": [{"text": "", "finish_reason": key}], "timings": {key: 1.0}, "usage": {"prompt_tokens": 16, "completion_tokens": 8}}
        ]
        self.reply("text/event-stream", "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n")

    def reply(self, kind: str, text: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(text)), "Server": self.headers["Authorization"]}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_arguments: object) -> None: ...


def test_a_key_in_text_models_timings_and_headers_is_stored_nowhere(bench: Bench) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        bench.env["BENCH_TEST_KEY"] = "sk-very-secret"
        scenario = bench.write(f"engine: openai, model: any, runtime: attach, url: '{url}', api_key_env: BENCH_TEST_KEY")
        (bench.folder / scenario).write_text((bench.folder / scenario).read_text() + "parity: {prompts: 2}\n")
        done = bench("run", scenario)
        server.shutdown()
    files = [file for file in bench.folder.glob("results/**/*") if file.is_file()]
    stored = "".join(file.read_text(errors="replace") for file in files if file.suffix != ".parquet")
    tables = [str(pq.read_table(file).to_pylist()) for file in files if file.suffix == ".parquet"]
    assert tables, done.stderr
    assert "sk-very-secret" not in stored + "".join(tables) + done.stdout + done.stderr
    assert "***" in stored


def test_system_turns_of_a_data_set_are_sent_and_what_is_not_sent_is_said(bench: Bench) -> None:
    sent: list[list[dict[str, str]]] = []

    class Logging(Picky):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            sent.append(body["messages"])
            self.stream(body["max_tokens"])

    rows = [{"messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": f"question {i}"}]} for i in range(8)]
    rows.append({"messages": [{"role": "assistant", "content": "hello"}]})
    (bench.folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Logging) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        bench.write(f"engine: openai, model: m, runtime: attach, url: 'http://127.0.0.1:{server.server_port}'")
        file = bench.folder / "s.yaml"
        load = "prompts: 'jsonl:data.jsonl', input_tokens: data, api: chat, prefix_cache: allowed, output_tokens: 8"
        file.write_text(file.read_text().replace("input_tokens: 16, output_tokens: 8", load))
        done = bench("run", "s.yaml", "--no-html")
        server.shutdown()
    assert done.returncode == 0, done.stderr
    asked = [messages for messages in sent if messages[-1]["content"].startswith("question ")]
    assert len(asked) == 16
    assert all(messages[0] == {"role": "system", "content": "be brief"} and len(messages) == 2 for messages in asked)
    assert "left out: 1 records without a prompt" in " ".join(bench("report", str(bench.run_folder()), "--table").stdout.split())
