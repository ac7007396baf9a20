"""A load from several hosts: clients with clocks of their own, one that is lost, one that is far away, one that is none."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.dialects import OpenAIChat, OpenAICompletions
from enginebench.domain import JSON
from enginebench.loadgen import LoadResult, LoadSpec, Progress, Target, WireRequest, run_load
from enginebench.loadgen.health import Vitals
from enginebench.loadgen.remote.agent import Agent
from enginebench.loadgen.remote.host import ClientHost
from enginebench.loadgen.sharing import ClientLost
from enginebench.report.run import open_run
from enginebench.report.sample_summary import SampleSummary
from enginebench.report.sections.provenance import provenance
from enginebench.runner.clients.hosts import about_this_machine

from ..slow_way import slow_way  # noqa: TID252  # tests/ is no package
from .bench import Bench

StartFake = Callable[..., Target]
StartClient = Callable[..., str]
TOKEN = "a token of these tests"
MS = 1_000_000
OTHER_CLOCK = Path(__file__).with_name("other_clock.py")
QUICK = ("--ttft-ms", "20", "--itl-ms", "2")


class Clients:
    """Runs `bench client`s."""

    def __init__(self, folder: Path) -> None:
        self.env = {**os.environ, "ENGINEBENCH_CLIENT_TOKEN": TOKEN, "ENGINEBENCH_HOME": str(folder / "home")}
        self.env["ENGINEBENCH_LEASES"] = str(folder / "leases")
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def start(self, clock_ns: int = 0) -> str:
        """Its address, once it listens. clock_ns: what its clock is ahead of this machine's."""
        command = [sys.executable, "-m", "enginebench", "client"]
        if clock_ns:
            command = [sys.executable, str(OTHER_CLOCK), str(clock_ns), *command]
        process = subprocess.Popen(command, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line and process.wait(10) == 77:
            pytest.skip("no time namespaces here")
        address = line.removeprefix("--clients ").strip()
        self.processes[address] = process
        return address

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clients]:
    started = Clients(tmp_path_factory.mktemp("clients"))
    yield started
    started.close()


@contextmanager
def watch_nothing(_: Mapping[str, JSON]) -> Iterator[Callable[[list[Vitals]], dict[str, JSON]]]:
    yield lambda _: {}


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[str, str]]:
    """Two that stay: agents of this process, whose client processes are their own. They take no telemetry."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2)]
        threads = [threading.Thread(target=serve, args=(each,)) for each in listeners]
        for thread in threads:
            thread.start()
        first, second = (f"127.0.0.1:{each.getsockname()[1]}" for each in listeners)
        yield first, second
        for each, thread in zip(listeners, threads, strict=True):
            each.shutdown(socket.SHUT_RDWR)
            thread.join()


def serve(listener: socket.socket) -> None:
    with suppress(OSError):  # at the end of the tests
        Agent(TOKEN, about_this_machine(), watch_nothing, lambda _: None).serve(listener)


def connected(address: str, token: str = TOKEN) -> ClientHost:
    host, _, port = address.rpartition(":")
    return ClientHost(host, int(port), token, about_this_machine())


def send(spec: LoadSpec, *addresses: str, processes: int = 1, on_progress: Callable[[Progress], None] | None = None) -> LoadResult:
    hosts = [connected(address) for address in addresses]
    try:
        return run_load(spec, on_progress, hosts=hosts, processes=processes)
    finally:
        for host in hosts:
            host.close()


def wire(count: int, *, tokens: int = 4, due_ms: Callable[[int], float] | None = None) -> list[WireRequest]:
    out = []
    for i in range(count):
        body = {"model": "fake", "prompt": f"prompt {i}", "max_tokens": tokens, "stream": True}
        due_ns = None if due_ms is None else round(due_ms(i) * MS)
        out.append(WireRequest(i, "/v1/completions", json.dumps(body).encode(), 2, tokens, due_ns=due_ns))
    return out


def load(target: Target, requests: list[WireRequest], concurrency: int = 0) -> LoadSpec:
    return LoadSpec(target, requests, concurrency, OpenAICompletions(), 20.0)


# -- what is sent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("due_ms", [None, lambda i: 5.0 * i])
def test_two_hosts_send_the_load_and_no_request_is_lost_or_doubled(
    start_fake: StartFake, pair: tuple[str, str], due_ms: Callable[[int], float] | None
) -> None:
    seen: list[Progress] = []
    result = send(load(start_fake(*QUICK), wire(61, due_ms=due_ms), 0 if due_ms else 5), *pair, on_progress=seen.append)
    assert [sample.index for sample in result.samples] == list(range(61))
    assert {sample.outcome for sample in result.samples} == {"ok"}
    assert sum(len(sample.event_ns) for sample in result.samples) == 61 * 4
    assert [(share.name, share.requests) for share in result.shares] == [(pair[0], 31), (pair[1], 30)]
    assert [share.streams for share in result.shares] == ([0, 0] if due_ms else [3, 2])
    assert (result.client.processes, result.unsent, result.stopped) == (2, 0, None)
    assert all(progress.requests <= 61 for progress in seen)
    if due_ms is not None:
        start = min(sample.due_ns for sample in result.samples)
        wrong_ns = max(abs(sample.due_ns - start - 5 * MS * sample.index) for sample in result.samples)
        assert wrong_ns <= 2 * max(share.clock.error_ns for share in result.shares) + MS // 100, "one schedule on one clock"


def test_turns_of_a_conversation_stay_on_one_host_with_the_answers_of_the_turns_before(
    start_fake: StartFake, pair: tuple[str, str]
) -> None:
    requests = []
    for index in range(12):
        talk, turn = divmod(index, 3)
        pieces: list[bytes | int] = [b'{"model":"fake","stream":true,"max_tokens":3,"messages":[']
        for before in range(turn):
            pieces += [b'{"role":"user","content":"and"},{"role":"assistant","content":"', before, b'"},']
        pieces.append(b'{"role":"user","content":"so"}]}')
        requests.append(WireRequest(index, "/v1/chat/completions", tuple(pieces), 2, 3, conversation=talk, turn=turn))
    spec = replace(load(start_fake(*QUICK), requests, 2), dialect=OpenAIChat(), keep_text=True)
    result = send(spec, *pair)
    assert [(s.conversation, s.turn, s.outcome) for s in result.samples] == [(i // 3, i % 3, "ok") for i in range(12)]
    assert all(sample.text for sample in result.samples)
    assert [share.requests for share in result.shares] == [6, 6]
    assert all(later.sent_ns >= earlier.end_ns for earlier, later in zip(result.samples, result.samples[1:], strict=False) if later.turn), (
        "on one clock"
    )


def test_a_host_may_send_from_several_processes_and_a_single_stream_comes_from_one_host(
    start_fake: StartFake, pair: tuple[str, str]
) -> None:
    result = send(load(start_fake(*QUICK), wire(24), 4), pair[0], processes=2)
    assert result.client.processes == 2
    assert [sample.index for sample in result.samples] == list(range(24))
    alone = send(load(start_fake(*QUICK), wire(3), 1), *pair)
    assert [share.requests for share in alone.shares] == [3]


# -- clocks --------------------------------------------------------------------------------------------------------------


def test_the_clock_of_a_host_is_recovered_within_its_stated_error(start_fake: StartFake, clients: Clients, pair: tuple[str, str]) -> None:
    """This machine's own clock, shifted by the kernel: the difference is known exactly."""
    truths = (0, 3_000 * MS, -250 * MS)
    shifted = [clients.start(truth) for truth in truths[1:]]
    before = time.monotonic_ns()
    result = send(load(start_fake(*QUICK), wire(40), 6), pair[0], *shifted)
    after = time.monotonic_ns()
    for share, truth in zip(result.shares, truths, strict=True):
        for reading in (share.clock.before, share.clock.after):
            assert abs(reading.offset_ns - truth) <= reading.error_ns
            assert 2 * reading.error_ns <= reading.round_trip_ns + 1
    assert {sample.outcome for sample in result.samples} == {"ok"}
    for its in result.samples:
        times = [its.due_ns, its.sent_ns, its.headers_ns, *its.event_ns, its.end_ns]
        assert [before, *times, after] == sorted([before, *times, after])


def test_a_way_that_is_slow_in_one_direction_shows_in_the_error(pair: tuple[str, str]) -> None:
    with slow_way(pair[0], 0.004) as address:
        host = connected(address)
        host.connect()
        reading = host.read_clock()
        host.close()
    assert reading.error_ns >= 2 * MS, "half of the delay"
    assert abs(reading.offset_ns) <= reading.error_ns, "the clocks are the same"
    assert abs(reading.offset_ns) > MS, "as the delay of the way back"


# -- what goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_client_that_falls_silent_is_given_up(start_fake: StartFake, clients: Clients, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a host that has lost its network: the connection stays open."""
    monkeypatch.setattr("enginebench.loadgen.remote.worker.SILENCE_S", 1.5)
    doomed = clients.start()

    def freeze(progress: Progress) -> None:
        if progress.ended >= 2:
            clients.processes[doomed].send_signal(signal.SIGSTOP)

    with pytest.raises(ClientLost, match=f"client {doomed} was lost: silent for 1.5 s"):
        send(load(start_fake("--ttft-ms", "20", "--itl-ms", "5"), wire(4000), 4), doomed, on_progress=freeze)


@pytest.mark.long
def test_a_run_that_is_killed_leaves_the_client_free(start_fake: StartFake, bench: Bench, pair: tuple[str, str]) -> None:
    bench.env["ENGINEBENCH_CLIENT_TOKEN"] = TOKEN
    running = bench.start("run", long_second_load(bench), "--clients", pair[0], "--no-html")
    bench.wait_for_cells(1)
    running.kill()
    running.communicate()
    assert len(send(load(start_fake(*QUICK), wire(8), 2), pair[0]).samples) == 8


def long_second_load(bench: Bench) -> str:
    """A scenario whose second load takes 8 s."""
    path = bench.folder / bench.scenario("options: {ttft_ms: 20, itl_ms: 5}")
    other = "}\n  - {concurrency: 2, input_tokens: 16, output_tokens: 400, requests: 8}\nrepeats"
    path.write_text(path.read_text().replace("concurrency: [1, 4]", "concurrency: 4").replace("}\nrepeats", other))
    return path.name


def test_ctrl_c_stops_every_host_and_keeps_what_was_sent(start_fake: StartFake, pair: tuple[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    pressed = Counter[str]()

    def press(progress: Progress) -> None:
        if progress.ended >= 4 and not pressed["once"]:
            pressed["once"] += 1
            os.kill(os.getpid(), signal.SIGINT)

    result = send(load(start_fake("--ttft-ms", "60", "--itl-ms", "5"), wire(500), 4), *pair, on_progress=press)
    assert result.stopped == "interrupted"
    assert {sample.outcome for sample in result.samples} == {"ok", "cancelled"}
    assert len({sample.index for sample in result.samples}) == len(result.samples) == 500 - result.unsent


def test_a_server_that_a_client_cannot_reach_is_named_before_the_load(pair: tuple[str, str]) -> None:
    with pytest.raises(ClientLost, match=r"^client 127.+: cannot reach the server at 127.0.0.1:9: Connection refused; a server in"):
        send(load(Target("127.0.0.1", 9), wire(4), 2), *pair)


def test_a_stranger_is_refused_and_learns_nothing(pair: tuple[str, str]) -> None:
    with pytest.raises(ClientLost, match="the tokens differ"):
        connected(pair[0], "a guess").connect()
    with closing(socket.create_connection(("127.0.0.1", int(pair[0].rpartition(":")[2])))) as web:
        web.sendall(b"GET / HTTP/1.0\r\n\r\n")
        said = b""
        with suppress(ConnectionResetError):
            while data := web.recv(1 << 12):
                said += data
        assert TOKEN.encode() not in said
    other = ClientHost("127.0.0.1", int(pair[0].rpartition(":")[2]), TOKEN, {**about_this_machine(), "enginebench": "0.0.1"})
    with pytest.raises(ClientLost, match=r"the run has enginebench 0.0.1, not .*: install the same version on all hosts"):
        other.connect()
    host = connected(pair[0])
    assert host.connect().peer == "127.0.0.1", "and it serves on"
    host.close()


# -- bench run -----------------------------------------------------------------------------------------------------------


def test_a_run_stores_its_clients_and_a_lost_one_costs_the_cell_in_flight(
    bench: Bench, start_fake: StartFake, clients: Clients, pair: tuple[str, str]
) -> None:
    doomed = clients.start()
    bench.env["ENGINEBENCH_CLIENT_TOKEN"] = TOKEN
    running = bench.start("run", long_second_load(bench), "--clients", f"{pair[0]},{doomed}", "--no-html")
    bench.wait_for_cells(1)
    clients.processes[doomed].kill()
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 3, errors
    cells = {cell["load"]["concurrency"]: cell for cell in bench.cells()}
    assert cells[4]["status"] == "ok"
    assert [(host["name"], host["streams"], host["requests"]) for host in cells[4]["client"]["hosts"]] == [(pair[0], 2, 4), (doomed, 2, 4)]
    assert all(abs(host["offset_ms"]) <= host["error_ms"] < 5 for host in cells[4]["client"]["hosts"])
    assert [[subject["kind"] for subject in host["telemetry"]] for host in cells[4]["client"]["hosts"]] == [[], ["host"]]
    assert cells[2]["status"] == "failed"
    assert re.fullmatch(f"client {doomed} does not answer: .* during the cell", str(cells[2]["reason"]))
    again = send(load(start_fake(*QUICK), wire(8), 2), pair[0])
    assert len(again.samples) == 8, "the other one stopped its part, and serves on"
    assert TOKEN not in "".join(file.read_text(errors="replace") for file in bench.run_folder().rglob("*.json"))
    clock = cells[4]["client"]["hosts"][1]["offset_ms"]
    page = provenance(open_run(bench.run_folder()).analysis, SampleSummary({}, {}))
    assert f"{doomed} sent 2 streams, its clock {clock:+,.3f} ms within " in json.dumps(page)


@pytest.mark.parametrize(
    ("clients_of", "sentence"),
    [
        ("127.0.0.1:9", "client 127.0.0.1:9 does not answer: Connection refused"),
        ("guess@PAIR", "client PAIR does not answer: the tokens differ"),
        ("nowhere", "--clients nowhere: expected HOST:PORT"),
        ("t@h:99999", "--clients h:99999: expected HOST:PORT"),
        ("PAIR,PAIR", "--clients names a client twice"),
    ],
)
def test_a_client_that_cannot_be_used_is_a_sentence_and_nothing_starts(
    bench: Bench, pair: tuple[str, str], clients_of: str, sentence: str
) -> None:
    bench.env["ENGINEBENCH_CLIENT_TOKEN"] = TOKEN
    done = bench("run", bench.scenario("options: {}"), "--clients", clients_of.replace("PAIR", pair[0]))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence.replace('PAIR', pair[0])}"), done.stderr
    assert "Traceback" not in done.stderr
    assert not (bench.folder / "results").exists()


def test_a_scenario_that_asks_for_more_hosts_than_there_are_does_not_start(bench: Bench, pair: tuple[str, str]) -> None:
    bench.env["ENGINEBENCH_CLIENT_TOKEN"] = TOKEN
    path = bench.folder / bench.scenario("options: {}")
    path.write_text(path.read_text() + "client_nodes: 3\n")
    for named, said in ((",".join(pair), "--clients names 2"), ("", "no client is named")):
        done = bench("run", "s.yaml", "--clients", named)
        assert done.returncode == 2
        assert done.stderr.splitlines()[0].endswith(f"s.yaml: client_nodes: asks for 3 client hosts, and {said}"), done.stderr
    assert "sent from 3 client hosts" in bench("plan", "s.yaml").stdout
    on = bench("run", "s.yaml", "--on", "local")
    assert (on.returncode, "client_nodes: --on starts no client hosts" in on.stderr) == (2, True), on.stderr


def test_a_client_needs_a_token_and_a_free_address(bench: Bench, pair: tuple[str, str]) -> None:
    bench.env.pop("ENGINEBENCH_CLIENT_TOKEN", None)
    done = bench("run", bench.scenario("options: {}"), "--clients", pair[0])
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, f"error: --clients {pair[0]}: no token")
    taken = bench("client", "--listen", pair[0])
    assert (taken.returncode, taken.stderr.splitlines()[0]) == (2, f"error: --listen {pair[0]}: Address already in use")
