"""Telemetry of an attached server of this machine: the process that listens on its port, unless that is a proxy."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from enginebench.telemetry.engines import Attached
from enginebench.telemetry.machine import ThisMachine

from .conftest import StartFake

PROXY = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
upstream = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def forwarder(start_fake: StartFake) -> Iterator[int]:
    """The port of a process that has a connection to a fake engine."""
    argv = [sys.executable, "-c", PROXY, str(start_fake().port)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        yield int(proxy.stdout.readline())
        proxy.communicate("")


def test_the_listener_and_its_children_are_the_engine(start_fake: StartFake) -> None:
    engine = Attached("engine", start_fake().port)
    before = engine.read()
    time.sleep(0.05)
    after = engine.read()
    assert before["processes"] == 1
    assert 0 < (before["cpu_s"] or 0) <= (after["cpu_s"] or 0)
    assert engine.facts == {"forwards": False}


def test_what_passes_requests_on_is_not_the_engine(forwarder: int) -> None:
    proxy = Attached("engine", forwarder)
    proxy.read()
    assert proxy.facts == {"forwards": True}


def test_a_port_that_nothing_listens_on_has_no_engine() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert Attached("engine", port).read() == {}


def test_the_time_of_bench_is_its_own_and_not_that_of_what_it_has_started(start_fake: StartFake) -> None:
    start_fake()
    machine = ThisMachine(bench=os.getpid())
    first = machine.read()["bench_s"]
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    second = machine.read()["bench_s"]
    assert first is not None
    assert second is not None
    assert 0.15 < second - first < 1.0
    assert ThisMachine().read()["bench_s"] is None
