"""The receiver: nothing lost, nothing out of order, recognised as in Python, and stamped when it came and not when it was read."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from enginebench.loadgen.template import Pattern, Template
from enginebench.loadgen.transport import library as library_module
from enginebench.loadgen.transport import receiver
from enginebench.loadgen.transport.library import library
from enginebench.loadgen.transport.receiver import Receiver
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("built_receiver")

TEMPLATE = Template(b'data: {"id":"x","text":"', b'","done":null}\n\n', 1, answer=True)
LOWER = Pattern(TEMPLATE, b"%x")


def event(text: bytes, spelling: bytes = b"%x") -> bytes:
    piece = TEMPLATE.head + text + TEMPLATE.tail
    return spelling % len(piece) + b"\r\n" + piece + b"\r\n"


class Log:
    """A connection that writes down what it is told, as bytes again."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, Any]] = []
        self.stamps: list[int] = []
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def recognised(self, stamps: array[int], lengths: array[int], texts: bytes) -> None:
        assert len(stamps) == len(lengths)
        assert sum(lengths) == len(texts)
        for stamp, length in zip(stamps, lengths, strict=True):
            self.entries.append(("event", texts[:length]))
            self.stamps.append(stamp)
            texts = texts[length:]

    def received(self, stamp: int, data: bytes) -> None:
        self.entries.append(("bytes", data))
        self.stamps.append(stamp)

    def examine(self, stamp: int) -> None:
        self.entries.append(("examine", None))

    def connection_lost(self, exc: Exception | None) -> None:
        self.entries.append(("lost", exc))

    def whole(self, spelling: bytes = b"%x") -> bytes:
        """All bytes that were told of, in order."""
        return b"".join(event(what, spelling) if kind == "event" else what for kind, what in self.entries if kind in ("event", "bytes"))

    def texts(self) -> list[bytes]:
        return [what for kind, what in self.entries if kind == "event"]


def play(pattern: Pattern | None, act: Callable[[socket.socket, Log, Receiver], Any]) -> Log:
    """Connect, expect the pattern, and let act send. It may be a coroutine function."""

    async def run() -> Log:
        found = library()
        assert found is not None
        hub, log = Receiver(found), Log()
        with socket.create_server(("127.0.0.1", 0)) as listening:
            await hub.connect("127.0.0.1", listening.getsockname()[1], log)
            server, _ = listening.accept()
        with server:
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            log.transport.expect(pattern)
            await act(server, log, hub)
        for _ in range(500):
            if log.entries and log.entries[-1][0] == "lost":
                break
            await asyncio.sleep(0.001)
        hub.close()
        return log

    return asyncio.run(run())


async def until(done: Callable[[], bool]) -> None:
    for _ in range(2000):
        if done():
            return
        await asyncio.sleep(0.001)
    pytest.fail("it never came")


def sent(pieces: list[bytes], pattern: Pattern | None) -> Log:
    """What is told of these pieces, each read alone, and then the end."""

    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        for piece in pieces:
            server.sendall(piece)
            hub._ready()

    return play(pattern, act)


def test_expected_events_are_held_and_the_rest_comes_up_in_order() -> None:
    log = sent([event(b"one"), event(b" two") + event(b"three"), b"0\r\n\r\n"], LOWER)
    assert log.entries == [("event", b"one"), ("event", b" two"), ("event", b"three"), ("bytes", b"0\r\n\r\n"), ("lost", None)]


@pytest.mark.parametrize("spelling", [b"%x", b"%X"])
def test_sizes_are_recognised_in_either_spelling(spelling: bytes) -> None:
    long = b"y" * (0x2AF - len(TEMPLATE.head + TEMPLATE.tail))
    assert sent([event(long, spelling)], LOWER).texts() == [long]


@pytest.mark.parametrize(
    "odd",
    [
        event(b""),
        event(b"a").replace(b"done", b"gone"),
        event(b"a").replace(b"id", b"iD"),
        b"0" + event(b"a"),
        event(b"a").replace(b"\r\n", b"\n", 1),
        event(b"a")[:-2] + b"\n\r",
        b"\r\n" + event(b"a"),
        event(b"b" * 9000),
        b"fffffff\r\n" + TEMPLATE.head,
        b"12345678\r\n",
    ],
)
def test_what_is_different_comes_up_as_it_was_sent(odd: bytes) -> None:
    log = sent([event(b"a"), odd], LOWER)
    assert log.texts() == [b"a"]
    assert log.whole() == event(b"a") + odd


def test_without_a_pattern_everything_comes_up() -> None:
    assert sent([event(b"a"), event(b"b")], None).entries == [("bytes", event(b"a")), ("bytes", event(b"b")), ("lost", None)]


STREAM = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=40).map(event),
        st.binary(max_size=20),
        st.just(b"0\r\n\r\n"),
        st.binary(min_size=1, max_size=5).map(lambda text: event(text).replace(b"x", b"z")),
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(STREAM, st.lists(st.integers(1, 90), max_size=40))
def test_any_chunking_of_any_stream_tells_of_the_same_bytes_in_order(stream: bytes, cuts: list[int]) -> None:
    pieces, rest = [], stream
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    log = sent([piece for piece in (*pieces, rest) if piece], LOWER)
    assert log.whole() == stream
    assert log.entries[-1] == ("lost", None)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=20))
def test_whole_events_are_recognised_as_in_python(texts: list[bytes]) -> None:
    events = [event(text) for text in texts]
    assert sent(events, LOWER).texts() == [LOWER.text(piece) for piece in events]


def test_what_comes_at_once_is_read_to_the_end_the_close_included() -> None:
    stream = b"".join(event(b"%d" % number) for number in range(3000)) + b"0\r\n\r\n"  # several reads

    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(stream))
        server.sendall(stream)
        await until(lambda: hub.pending + len(log.texts()) == 3000)
        server.shutdown(socket.SHUT_WR)

    log = play(LOWER, act)
    assert log.whole() == stream
    assert len(log.texts()) == 3000
    assert log.entries[-1] == ("lost", None)


def test_connections_that_are_read_together_are_kept_apart() -> None:
    async def run() -> list[Log]:
        found = library()
        assert found is not None
        hub, logs, servers = Receiver(found), [Log() for _ in range(300)], []
        with socket.create_server(("127.0.0.1", 0), backlog=300) as listening:
            for log in logs:
                await hub.connect("127.0.0.1", listening.getsockname()[1], log)
                servers.append(listening.accept()[0])
        for number, server in enumerate(servers):
            logs[number].transport.expect(LOWER)
            server.sendall(event(b"%d" % number) + b"rest %d" % number)
            server.close()
        await until(lambda: all(log.entries and log.entries[-1][0] == "lost" for log in logs))
        hub.close()
        return logs

    for number, log in enumerate(asyncio.run(run())):
        assert log.entries == [("event", b"%d" % number), ("bytes", b"rest %d" % number), ("lost", None)]


def test_one_connections_trouble_is_not_anothers() -> None:
    async def run() -> list[Log]:
        found = library()
        assert found is not None
        hub, logs, servers = Receiver(found), [Log() for _ in range(20)], []
        told: list[Any] = []
        hub.loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
        with socket.create_server(("127.0.0.1", 0), backlog=20) as listening:
            for log in logs:
                await hub.connect("127.0.0.1", listening.getsockname()[1], log)
                servers.append(listening.accept()[0])
        error = RuntimeError("a bug")
        logs[3].received = Mock(side_effect=error)  # type: ignore[method-assign]
        for server in servers:
            server.sendall(b"something")
        await until(lambda: all(log.entries for log in logs))
        assert told == [error]
        assert logs[3].entries == [("lost", error)]
        for server in servers:
            server.close()
        hub.close()
        return logs

    assert [log.entries[0] for number, log in enumerate(asyncio.run(run())) if number != 3] == [("bytes", b"something")] * 19


@pytest.mark.parametrize("us", [0, 7, 8, 9, 100, 1000, 65_535, 10**6, 10**9])
def test_a_step_of_the_histogram_of_waits_is_an_eighth_wide(us: int) -> None:
    step = next(n for n in range(256) if receiver._wait_us(n + 1) > us)
    low, high = receiver._wait_us(step), receiver._wait_us(step + 1)
    assert low <= us < high <= max(low + 1, low * 9 // 8)


def test_reads_are_counted_and_those_without_a_stamp_of_the_kernels() -> None:
    counts: list[tuple[int, int]] = []

    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        for number in range(5):
            server.sendall(b"%d" % number)
            hub._ready()
            counts.append((hub._shared.reads, hub.unstamped))
            await asyncio.sleep(0.02)  # the kernel begins to stamp a moment after it was first asked to

    play(None, act)
    assert [reads for reads, _ in counts] == [1, 2, 3, 4, 5]
    assert counts[-1][1] <= 1


@pytest.mark.clock
def test_a_stamp_is_the_arrival_however_late_the_read() -> None:
    spans: list[tuple[int, int]] = []

    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        server.sendall(event(b"first"))  # the kernel begins to stamp some milliseconds after it was first asked to
        await until(lambda: hub.pending == 1)
        for _ in range(3):
            before = time.monotonic_ns()
            server.sendall(event(b"late"))
            spans.append((before, time.monotonic_ns()))
            time.sleep(0.06)  # noqa: ASYNC251 -- the loop is busy with something else
            hub._ready()

        waits.append([hub.wait_ms(share) for share in (0.25, 0.5, 1.0)])

    waits: list[list[float]] = []
    log = play(LOWER, act)
    assert len(log.stamps) == 4
    assert waits[0][0] < 50, "the first one was read at once"
    assert 55 < waits[0][1] <= waits[0][2] < 200, "the others while the loop was busy"
    for (before, after), stamp in zip(spans, log.stamps[1:], strict=True):
        assert before - 50_000 <= stamp <= after + 20_000_000, "the read's time, and not the arrival's"


TRIES = 12
"""Kernels keep what waits apart until they acknowledge it, which some do now and then before it is read."""


async def waiting(server: socket.socket, pieces: list[bytes]) -> None:
    """Send pieces some milliseconds apart while the loop is busy with something else."""
    for piece in pieces:
        server.sendall(piece)
        time.sleep(0.005)  # noqa: ASYNC251


def held(hub: Receiver, events: int) -> bool:
    return hub.pending == events


@pytest.mark.clock
@pytest.mark.parametrize(
    "texts",
    [
        [b"same", b"long", b"text", b"here"],
        [b"a", b"much longer than that", b"bc", b"d"],
        [b"quite long", b"a", b"longer than before", b"b"],
    ],
)
def test_tokens_that_wait_together_keep_their_own_stamps(texts: list[bytes]) -> None:
    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        for answered in range(0, 4 * TRIES, 4):
            log.transport.write(b"a request")
            server.sendall(event(texts[0]))
            await until(partial(held, hub, answered + 1))
            await waiting(server, [event(text) for text in texts[1:]])
            await until(partial(held, hub, answered + 4))

    log = play(LOWER, act)
    assert log.texts() == texts * TRIES
    waited = zip(log.stamps[1::4], log.stamps[2::4], log.stamps[3::4], strict=True)
    assert max(min(second - first, third - second) for first, second, third in waited) > 2_500_000


@pytest.mark.clock
def test_a_first_token_that_waits_with_the_second_keeps_its_stamp() -> None:
    head, end = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0\r\n\r\n"
    first, second = event(b"first"), event(b"2nd")

    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        for _ in range(TRIES):
            log.transport.expect(LOWER)
            server.sendall(event(b"known"))
            await until(lambda: hub.pending == 1)
            log.transport.write(b"a request")
            log.transport.expect(None)
            server.sendall(end)
            await until(lambda: log.whole().endswith(end))
            await waiting(server, [head, first, second])
            await until(lambda: log.whole().endswith(second))

    log = play(LOWER, act)
    assert log.whole() == (event(b"known") + end + head + first + second) * TRIES
    told = [(data, stamp) for (kind, data), stamp in zip(log.entries, log.stamps, strict=False) if kind == "bytes"]
    gaps = [after - before for (data, before), (_, after) in pairwise(told) if data.endswith(first)]
    assert max(gaps) > 2_500_000


def test_events_that_were_sent_together_are_not_read_one_by_one() -> None:
    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        server.sendall(event(b"one"))
        await until(lambda: hub.pending == 1)
        for _ in range(10):
            server.sendall(event(b"six") * 6)
            time.sleep(0.001)  # noqa: ASYNC251 -- the loop is busy with something else
            await until(lambda: hub.pending % 6 == 1)
        reads.append(hub._shared.reads)

    reads: list[int] = []
    assert len(play(LOWER, act).texts()) == 61
    assert reads[0] < 25, "one before it is known that they come together"


def test_a_drain_goes_on_while_nobody_else_needs_the_loop() -> None:
    """One call reads once where somebody waits, or where an instant is near; else as often as something comes."""
    most: dict[str, int] = {}

    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        for name, free_until_ns, waiting in (("free", 2**63 - 1, 0), ("an instant is near", 0, 0), ("somebody waits", 2**63 - 1, 1)):
            hub.free_until(free_until_ns)
            hub.add_loop_waiters(waiting)
            counts = []
            for _ in range(30):
                before = hub._shared.reads
                sender = threading.Thread(target=lambda: [server.sendall(event(b"x")) for _ in range(20)])
                sender.start()
                while hub._shared.reads == before:
                    hub._ready()
                counts.append(hub._shared.reads - before)
                sender.join()
            hub.add_loop_waiters(-waiting)
            most[name] = max(counts)

    log = play(LOWER, act)
    assert len(log.texts()) == 3 * 30 * 20
    assert most["free"] > 1
    assert most["an instant is near"] == most["somebody waits"] == 1


SENDER = """
import socket, sys, time
pace_ns, times, event = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
servers = [socket.socket(fileno=int(fd)) for fd in sys.argv[4:]]
due_ns = time.monotonic_ns()
for _ in range(times):
    for server in servers:
        server.sendall(event)
        due_ns = max(due_ns + pace_ns, time.monotonic_ns())
        while time.monotonic_ns() < due_ns:
            pass
"""
"""In a process of its own, so that it does not hold the interpreter while the receiver should run."""


def streamed(connections: int, events: int, pace_us: int) -> tuple[list[Log], Receiver]:
    """Connections that get so many events each, one connection after another at this pace."""

    async def run() -> tuple[list[Log], Receiver]:
        found = library()
        assert found is not None
        hub, logs, servers = Receiver(found, "delayed"), [Log() for _ in range(connections)], []
        hub.free_until(2**63 - 1)
        with socket.create_server(("127.0.0.1", 0), backlog=connections) as listening:
            for log in logs:
                await hub.connect("127.0.0.1", listening.getsockname()[1], log)
                log.transport.expect(LOWER)
                servers.append(listening.accept()[0])
                servers[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        fds = [server.fileno() for server in servers]
        argv = [sys.executable, "-c", SENDER, str(1000 * pace_us), str(events), event(b"token").decode(), *map(str, fds)]
        sender = await asyncio.create_subprocess_exec(*argv, pass_fds=fds)
        assert await sender.wait() == 0
        await until(lambda: hub.pending + sum(len(log.texts()) for log in logs) == events * connections)
        for log in logs:
            log.transport.abort()
        hub.close()
        for server in servers:
            server.close()
        return logs, hub

    return asyncio.run(run())


def test_what_a_crowd_of_connections_sends_is_read_some_at_a_time_and_keeps_its_stamps() -> None:
    logs, hub = streamed(200, 40, pace_us=20)
    assert hub.wait_ms(0.5) >= 0.05, "a sleep in between; without one they would be read at once"
    assert sum(len(set(log.stamps)) for log in logs) > 0.9 * 200 * 40


@pytest.mark.clock
def test_events_of_one_connection_that_are_close_are_not_made_to_wait_for_each_other() -> None:
    tries = [streamed(1, 1000, pace_us=5)[0][0] for _ in range(6)]  # a sender that was interrupted makes up for it in a burst
    assert max(len(set(log.stamps)) for log in tries) > 130, "with a sleep before each look, a tenth of them"


def test_a_kernel_that_waits_by_the_millisecond_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(library_module.__file__).with_name("receive.c").read_text()
    lacking = source.replace("syscall(SYS_epoll_pwait2,", "syscall(99999,")
    assert lacking != source
    (tmp_path / "receive.c").write_text(lacking)
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")))
    argv = [compiler, "-shared", "-fPIC", "-o", str(tmp_path / "_receive.so"), str(tmp_path / "receive.c")]
    subprocess.run(argv, check=True)
    monkeypatch.setattr(library_module, "__file__", str(tmp_path / "compiled.py"))
    library.cache_clear()
    try:
        logs, _ = streamed(20, 20, pace_us=200)
    finally:
        library.cache_clear()
    assert all(log.texts() == [b"token"] * 20 for log in logs)


def test_urgent_data_are_not_part_of_the_stream_and_stop_nothing() -> None:
    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        server.sendall(event(b"before"))
        server.send(b"!", socket.MSG_OOB)
        server.sendall(event(b"after"))
        await until(lambda: hub.pending == 2)

    log = play(LOWER, act)
    assert log.entries == [("event", b"before"), ("event", b"after"), ("lost", None)]


def test_many_events_ask_to_be_examined_and_totals_follow() -> None:
    totals: list[int] = []

    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        server.sendall(event(b"a") * 20)
        await until(lambda: hub.pending == 20)
        totals.append(hub.last_event_ns)
        server.sendall(event(b"b") * receiver.MAX_HELD)
        await until(lambda: bool(log.entries))
        totals.append(hub.pending)

    log = play(LOWER, act)
    kinds = [kind for kind, _ in log.entries]
    assert "examine" in kinds
    assert kinds.index("examine") >= receiver.MAX_HELD // 2
    assert log.texts() == [b"a"] * 20 + [b"b"] * receiver.MAX_HELD
    assert totals[0] > 0
    assert totals[1] < 20 + receiver.MAX_HELD


def test_long_texts_are_taken_before_there_are_many_of_them() -> None:
    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        for number in range(40):
            server.sendall(event(b"%d" % (number % 10) * 7000))
            hub._ready()

    kinds = [kind for kind, _ in play(LOWER, act).entries]
    assert kinds.index("examine") * 7000 < 80_000


def test_a_reset_is_an_error_and_what_came_before_is_kept() -> None:
    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        server.sendall(event(b"kept"))
        await until(lambda: hub.pending == 1)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    log = play(LOWER, act)
    assert log.entries[0] == ("event", b"kept")
    assert isinstance(log.entries[1][1], ConnectionResetError)


def test_an_abort_delivers_what_is_held_and_tells_once() -> None:
    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        server.sendall(event(b"kept") + event(b"torn")[:9])
        await until(lambda: hub.pending == 1)
        log.transport.abort()
        log.transport.abort()
        log.transport.write(b"too late")
        assert log.transport.is_closing()
        assert hub.pending == 0

    assert play(LOWER, act).entries == [("event", b"kept"), ("lost", None)]


def test_a_message_that_the_system_does_not_take_at_once_is_sent_whole() -> None:
    message = bytes(range(256)) * (1 << 15)
    heard = bytearray()

    async def act(server: socket.socket, log: Log, hub: Receiver) -> None:
        log.transport.write(message)
        log.transport.write(b"end")
        server.settimeout(0)
        while len(heard) < len(message) + 3:
            try:
                heard.extend(server.recv(1 << 16))
            except BlockingIOError:
                await asyncio.sleep(0.001)

    play(None, act)
    assert bytes(heard) == message + b"end"


def test_a_server_that_is_not_there_is_an_error() -> None:
    async def run() -> None:
        found = library()
        assert found is not None
        hub = Receiver(found)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
        try:
            with pytest.raises(ConnectionRefusedError):
                await hub.connect("127.0.0.1", port, Log())
        finally:
            hub.close()

    asyncio.run(run())
