"""The prefill/decode proxy as a process of its own, between a client and servers that a test has in its hand."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import pytest
from enginebench.adapter import WORKERS
from hypothesis import given
from hypothesis import strategies as st

from .conftest import free_port, wait_until_listening

sys.path.append(str(WORKERS))
from pd_http import Body, Whole
from worker_http import Head

EVENT = b"data: {}\n\n"
BODY = {"model": "m", "prompt": [1, 2, 3], "max_tokens": 9, "min_tokens": 9, "stream": True, "stream_options": {"include_usage": True}}
KV = {"do_remote_prefill": True, "remote_engine_id": "e", "remote_block_ids": [7], "remote_host": "h", "remote_port": 5600}

Handler = http.server.BaseHTTPRequestHandler
Script = Callable[[Handler], None]
Proxy = Callable[..., http.client.HTTPConnection]


@dataclass
class Seen:
    """One request as a server got it."""

    path: str
    headers: dict[str, str]
    body: Any
    client: tuple[str, int]


def say(handler: Handler, body: object, status: int = 200) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def begin_stream(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()


def chunk(handler: Handler, data: bytes) -> None:
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
    handler.wfile.flush()


def stream(handler: Handler) -> None:
    begin_stream(handler)
    for data in (EVENT, EVENT, b"data: [DONE]\n\n", b""):
        chunk(handler, data)


@dataclass
class Backend:
    """A server that answers POSTs by a script, and GETs with what it is told."""

    script: Script = stream
    gets: dict[str, tuple[int, bytes]] = field(default_factory=lambda: {"/health": (200, b"")})
    seen: list[Seen] = field(default_factory=list)

    def __enter__(self) -> Self:
        backend = self

        class Scripted(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                backend.seen.append(Seen(self.path, dict(self.headers), body, self.client_address))
                backend.script(self)

            def do_GET(self) -> None:
                status, body = backend.gets.get(self.path, (404, b"no such route"))
                say(self, body, status)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Scripted)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def pair() -> Iterator[tuple[Backend, Backend]]:
    """A prefill server that hands over, and a decode server that streams."""
    with Backend(lambda handler: say(handler, {"choices": [], "kv_transfer_params": KV})) as prefill, Backend() as decode:
        yield prefill, decode


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """proxy("--protocol", "plain", ...) -> a connection to it."""
    with contextlib.ExitStack() as stack:

        def start(*flags: str) -> http.client.HTTPConnection:
            port = free_port()
            argv = [sys.executable, str(WORKERS / "pd_proxy.py"), "--port", str(port), *flags]
            process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
            stack.callback(process.wait, 10)
            stack.callback(process.terminate)
            wait_until_listening(process, port)
            return stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)))

        yield start


def vllm(proxy: Proxy, pair: tuple[Backend, Backend]) -> http.client.HTTPConnection:
    return proxy("--protocol", "vllm", "--prefill", pair[0].url, "--decode", pair[1].url)


def post(connection: http.client.HTTPConnection, body: object = BODY, **headers: str) -> tuple[int, bytes]:
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json", **headers})
    response = connection.getresponse()
    return response.status, response.read()


def test_vllm_prefill_computes_one_token_and_decode_is_handed_the_rest(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    connection = vllm(proxy, pair)
    assert post(connection) == (200, EVENT * 2 + b"data: [DONE]\n\n")
    first, second = pair[0].seen[0], pair[1].seen[0]
    assert {name: first.body[name] for name in ("prompt", "stream", "max_tokens", "min_tokens")} == {
        "prompt": [1, 2, 3],
        "stream": False,
        "max_tokens": 1,
        "min_tokens": 1,
    }
    assert "stream_options" not in first.body
    assert first.body["kv_transfer_params"]["do_remote_decode"] is True
    assert second.body == {**BODY, "kv_transfer_params": KV}
    assert first.path == second.path == "/v1/completions"
    assert first.headers["X-Request-Id"] == second.headers["X-Request-Id"] != ""
    assert post(connection, **{"X-Request-Id": "mine"})[0] == 200
    assert [server.seen[1].headers["X-Request-Id"] for server in pair] == ["mine", "mine"]
    assert [server.seen[0].client == server.seen[1].client for server in pair] == [True, True], "connections are kept"


def test_a_refused_prefill_is_the_answer(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    pair[0].script = lambda handler: say(handler, {"message": "prompt too long"}, 400)
    assert post(vllm(proxy, pair)) == (400, b'{"message": "prompt too long"}')
    assert not pair[1].seen


def test_a_prefill_that_hands_nothing_over_is_an_error(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    pair[0].script = lambda handler: say(handler, {"choices": [], "kv_transfer_params": None})
    status, text = post(vllm(proxy, pair))
    assert status == 502
    assert b"returned no kv_transfer_params" in text
    assert not pair[1].seen


def test_a_refused_decode_is_the_answer(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    pair[1].script = lambda handler: say(handler, b"busy", 503)
    connection = vllm(proxy, pair)
    assert post(connection) == (503, b"busy")
    assert post(connection) == (503, b"busy")


def test_a_server_that_is_not_there_is_named(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    status, text = post(proxy("--protocol", "vllm", "--prefill", pair[0].url, "--decode", nowhere))
    assert status == 502
    assert nowhere.encode() in text


def test_an_answer_that_breaks_off_breaks_off(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    def cut(handler: Handler) -> None:
        begin_stream(handler)
        chunk(handler, EVENT)
        handler.connection.shutdown(socket.SHUT_RDWR)
        handler.close_connection = True

    pair[1].script = cut
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        post(vllm(proxy, pair))


def test_every_event_is_passed_on_when_it_comes(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    arrived = threading.Event()

    def wait_between(handler: Handler) -> None:
        begin_stream(handler)
        chunk(handler, EVENT)
        assert arrived.wait(10), "the client has not seen the first event"
        chunk(handler, EVENT)
        chunk(handler, b"")

    pair[1].script = wait_between
    connection = vllm(proxy, pair)
    connection.request("POST", "/v1/completions", json.dumps(BODY))
    response = connection.getresponse()
    assert response.read(len(EVENT)) == EVENT
    arrived.set()
    assert response.read() == EVENT


def test_a_client_that_goes_away_ends_the_request(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    gone = threading.Event()

    def endless(handler: Handler) -> None:
        begin_stream(handler)
        chunk(handler, EVENT)
        if handler.rfile.read(1) == b"":  # the proxy has closed the connection
            gone.set()

    pair[1].script = endless
    connection = vllm(proxy, pair)
    connection.request("POST", "/v1/completions", json.dumps(BODY))
    response = connection.getresponse()
    assert response.read(len(EVENT)) == EVENT
    response.close()
    connection.close()
    assert gone.wait(10)


def sglang(proxy: Proxy, pair: tuple[Backend, Backend]) -> http.client.HTTPConnection:
    return proxy("--protocol", "sglang", "--prefill", pair[0].url, "--bootstrap-port", "8998", "--decode", pair[1].url)


def test_sglang_both_sides_meet_in_a_room(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    asked = threading.Event()

    def prefill(handler: Handler) -> None:
        asked.set()
        stream(handler)

    def decode(handler: Handler) -> None:
        assert asked.wait(10), "prefill is not asked before decode has answered"
        stream(handler)

    pair[0].script, pair[1].script = prefill, decode
    connection = sglang(proxy, pair)
    assert post(connection) == (200, EVENT * 2 + b"data: [DONE]\n\n")
    assert post(connection)[0] == 200
    rooms = []
    for first, second in zip(pair[0].seen, pair[1].seen, strict=True):
        assert first.body == second.body
        assert (first.body["bootstrap_host"], first.body["bootstrap_port"]) == ("127.0.0.1", 8998)
        assert first.body["prompt"] == [1, 2, 3]
        rooms.append(first.body["bootstrap_room"])
    assert len(set(rooms)) == 2


def test_sglang_a_refused_prefill_ends_the_wait_of_decode(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    ended = threading.Event()

    def wait_for_kv(handler: Handler) -> None:
        if handler.rfile.read(1) == b"":
            ended.set()

    pair[0].script, pair[1].script = lambda handler: say(handler, b"too long", 400), wait_for_kv
    assert post(sglang(proxy, pair)) == (400, b"too long")
    assert ended.wait(10)


def test_plain_servers_take_turns(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    pair[0].script = stream
    connection = proxy("--protocol", "plain", "--decode", pair[0].url, "--decode", pair[1].url)
    for _ in range(4):
        assert post(connection)[0] == 200
    assert [len(server.seen) for server in pair] == [2, 2]
    assert all(seen.body == BODY for server in pair for seen in server.seen)


def test_gets_speak_for_all_or_for_decode(proxy: Proxy, pair: tuple[Backend, Backend]) -> None:
    connection = vllm(proxy, pair)

    def get(path: str) -> tuple[int, bytes]:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()

    pair[0].gets["/metrics"], pair[1].gets["/metrics"] = (200, b"a 1\n"), (200, b"a 2")
    pair[0].gets["/version"], pair[1].gets["/version"] = (200, b"prefill"), (200, b"decode")
    assert get("/health")[0] == 200
    assert get("/metrics") == (200, b"a 1\na 2\n")
    assert get("/version") == (200, b"decode")
    assert get("/nothing") == (404, b"no such route")
    pair[0].gets["/health"] = (503, b"loading")
    assert get("/health") == (503, b"loading")


@pytest.mark.parametrize("sent", [b"no http\r\n\r\n", b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"PUT / HTTP/1.1\r\n\r\n"])
def test_what_is_not_passed_on_is_answered(proxy: Proxy, pair: tuple[Backend, Backend], sent: bytes) -> None:
    port = proxy("--protocol", "plain", "--decode", pair[1].url).port
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client, client.makefile("rb") as answer:
        client.sendall(sent)
        assert answer.readline() == b"HTTP/1.1 400 Bad Request\r\n"
        assert b"Connection: close\r\n" in answer.read()


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--protocol", "vllm"), "needs a --prefill"),
        (("--protocol", "sglang", "--prefill", "http://h:1"), "--bootstrap-port for every --prefill"),
        (("--protocol", "plain", "--prefill", "h:1"), "invalid Server value"),
    ],
)
def test_flags_that_do_not_fit(flags: tuple[str, ...], why: str) -> None:
    argv = [sys.executable, str(WORKERS / "pd_proxy.py"), "--port", "1", "--decode", "http://h:2", *flags]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert why in done.stderr


# -- where an answer ends --------------------------------------------------------------------------------------------------------


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.booleans(), st.data())
def test_the_end_of_an_answer_is_found_however_it_is_cut(pieces: list[bytes], chunked: bool, data: st.DataObject) -> None:
    if chunked:
        raw = b"".join([b"%X;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces]) + b"0\r\nTrailer: x\r\n\r\n"
        head = Head.parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked")
    else:
        raw = b"".join(pieces)
        head = Head.parse(b"HTTP/1.1 200 OK\r\nContent-Length: %d" % len(raw))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    body, whole = Body(head), Whole()
    whole.begin(head, body)
    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        assert body.ended == (start == len(raw))
        body.feed(raw[start:end])
        whole.more(raw[start:end])
    assert body.ended
    assert whole.body == b"".join(pieces)
    with pytest.raises(ValueError, match="more than one response"):
        body.feed(b"x")
