"""Delayed acknowledgements: only for a server that was seen to send on without, and then there are fewer of them."""

from __future__ import annotations

import itertools
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal, Self

import pytest
from enginebench.dialects import OpenAICompletions
from enginebench.loadgen import LoadResult, LoadSpec, Target, WireRequest, run_load
from enginebench.loadgen.health import Acks
from enginebench.records.run_folder import open_run

pytestmark = pytest.mark.usefixtures("built_receiver")

STREAMS = 8
TRIES = 3
"""Of what a busy machine may spoil."""
TOKENS = 24
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
TOKEN = b'{"id":"x","object":"text_completion","choices":[{"index":0,"text":" t%02d","finish_reason":null}]}'
USAGE = b'{"id":"x","object":"text_completion","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":%d}}'
MODELS = b'{"object":"list","data":[{"id":"any","object":"model"}]}'
SEGS_IN_AT = 140
"""Of tcpi_segs_in in the kernel's struct tcp_info."""


def chunk(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


@dataclass
class Server:
    """Streams tokens at a steady pace. nagle: small segments wait until the one before is acknowledged; 'some': on two connections."""

    nagle: bool | Literal["some"]
    tokens: int = TOKENS
    pace_s: float = 0.004
    heard: list[int] = field(default_factory=list)
    """Segments received from the client during each answer."""

    def __post_init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            for number in itertools.count():
                nagle = number in (2, 3) if self.nagle == "some" else self.nagle  # every other one is probed
                threading.Thread(target=self._serve, args=(self.listening.accept()[0], nagle), daemon=True).start()

    def _serve(self, client: socket.socket, nagle: bool) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, not nagle)
        with suppress(OSError), client:
            while (method := self._request(client)) is not None:
                if method == b"GET":
                    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(MODELS), MODELS))
                    continue
                before = self._segments(client)
                client.sendall(HEAD)
                for number in range(self.tokens):
                    time.sleep(self.pace_s)
                    client.sendall(chunk(TOKEN % number))
                time.sleep(self.pace_s)
                self.heard.append(self._segments(client) - before)
                client.sendall(chunk(USAGE % self.tokens) + chunk(b"[DONE]") + b"0\r\n\r\n")

    def _request(self, client: socket.socket) -> bytes | None:
        """The method of the next request, once all of it has come; None: no more."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = client.recv(1 << 16)
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        while len(body) < size:
            more = client.recv(1 << 16)
            if not more:
                return None
            body += more
        return head.partition(b" ")[0]

    @staticmethod
    def _segments(client: socket.socket) -> int:
        (count,) = struct.unpack_from("=I", client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), SEGS_IN_AT)
        return int(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.listening.close()

    def load(self, acks: Acks) -> LoadResult:
        dialect = OpenAICompletions()
        requests = [WireRequest(i, dialect.path, b'{"stream":true}', 1, self.tokens) for i in range(STREAMS)]
        return run_load(LoadSpec(Target("127.0.0.1", self.port), requests, STREAMS, dialect, 20.0, acks=acks))

    @property
    def port(self) -> int:
        return int(self.listening.getsockname()[1])


def ok(result: LoadResult) -> bool:
    return [sample.outcome for sample in result.samples] == ["ok"] * STREAMS


def longest_ms(result: LoadResult) -> list[float]:
    """The longest gap of each response, in order."""
    return sorted(max(b - a for a, b in pairwise(sample.event_ns)) / 1e6 for sample in result.samples)


def test_a_server_that_waits_for_acknowledgements_is_never_taken_for_one_that_does_not() -> None:
    with Server(nagle=True) as server:
        result = server.load("probe")
    assert ok(result)
    assert not result.server_nodelay
    assert longest_ms(result)[STREAMS * 3 // 4] > 25, "the kernel's delay; if this fails, the server did not wait and nothing was shown"


def test_every_other_connection_is_left_alone() -> None:
    with Server(nagle=True) as server:
        results = (server.load("probe") for _ in range(TRIES))
        assert any(longest_ms(result)[STREAMS // 4] < 25 for result in results)


@pytest.mark.parametrize(("tokens", "pace_s"), [(16, 0.002), (16, 0.004), (24, 0.004), (24, 0.008)])
def test_nor_because_most_of_its_connections_do_not_wait(tokens: int, pace_s: float) -> None:
    with Server("some", tokens, pace_s) as server:
        result = server.load("probe")
    assert ok(result)
    assert not result.server_nodelay


def test_a_server_that_does_not_wait_is_seen_not_to() -> None:
    with Server(nagle=False) as server:
        results = (server.load("probe") for _ in range(TRIES))
        assert any(ok(result) and result.server_nodelay for result in results)


def test_nobody_is_probed_unless_asked() -> None:
    with Server(nagle=True) as server:
        results = (server.load("usual") for _ in range(TRIES))
        assert any(longest_ms(result)[STREAMS // 2] < 25 for result in results)
    with Server(nagle=False) as server:
        assert not server.load("usual").server_nodelay


@pytest.mark.clock
def test_delayed_acknowledgements_are_fewer() -> None:
    """A half in theory: the kernel acknowledges every second read. The medians, because the kernel's delay ends where a machine is busy."""
    medians: list[float] = []
    ways: tuple[Acks, ...] = ("usual", "delayed")
    for acks in ways:
        with Server(nagle=False) as server:
            assert server.load(acks).client.acks == acks
            medians.append(median(server.heard))
    assert medians[0] > TOKENS * 3 // 4
    assert medians[1] < medians[0] * 3 // 4


SCENARIO = """
name: acks
deployments: [{{engine: openai, model: any, runtime: attach, url: "http://127.0.0.1:{port}"}}]
loads: [{{concurrency: 2, requests: 6, input_tokens: 8, output_tokens: 24}}]
"""


@pytest.mark.parametrize(("nagle", "acks"), [(False, "delayed"), (True, "usual")])
def test_a_cell_delays_them_where_its_warm_up_has_shown_that_nothing_waits(tmp_path: Path, nagle: bool, acks: Acks) -> None:
    with Server(nagle=nagle) as server:
        (tmp_path / "s.yaml").write_text(SCENARIO.format(port=server.port))
        argv = [sys.executable, "-m", "enginebench", "run", "s.yaml", "--no-html"]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").iterdir()
    (record,) = open_run(path).cells()
    assert (record.status, record.client.health["acks"]) == ("ok", acks)
