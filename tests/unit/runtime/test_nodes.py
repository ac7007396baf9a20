"""The connection between the nodes of an engine: processes that are started elsewhere look like processes here."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import AuthenticationError
from pathlib import Path

import pytest
from enginebench.adapter import Launch, Site
from enginebench.runtime.exit_status import LaunchFailed
from enginebench.runtime.nodes import Channel, Follower, FollowerProcesses, Followers, NodeLost, NodeMissing, OtherNode, connect
from enginebench.runtime.nodes.place import RemoteProcess


@pytest.fixture
def joined(tmp_path: Path) -> Iterator[tuple[Followers, FollowerProcesses, list[Follower]]]:
    """A node and its follower in this process."""
    lost: list[Follower] = []
    with Followers(1, lost.append, "127.0.0.1") as others:
        meeting = others.meeting
        channels: list[Channel] = []

        def come() -> None:
            channel = connect(meeting["host"], meeting["port"], bytes.fromhex(meeting["key"]), 10)
            channel.send({"rank": 1, "name": "b", "machine": {}})
            channels.append(channel)

        thread = threading.Thread(target=come)
        thread.start()
        others.gather(30)
        thread.join()
        processes = FollowerProcesses(channels[0], tmp_path)

        def serve() -> None:
            with suppress(NodeLost):
                while True:
                    ask = channels[0].receive()
                    try:
                        reply = getattr(processes, {"stop": "stop_one"}.get(ask["ask"], ask["ask"]))(ask) or {}
                    except LaunchFailed as error:
                        reply = {"error": error.reason}
                    if "number" in ask:
                        channels[0].send({"number": ask["number"], **reply})

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield others, processes, lost
        processes.stop()
        channels[0].close()


def start(others: Followers, tmp_path: Path, script: str) -> RemoteProcess:
    site = Site("127.0.0.1", 0, tmp_path / "member", "")
    place = OtherNode(site, others[0])
    return place.start(Launch((sys.executable, "-c", script), "m"), site, log=tmp_path / "here.log", tag="t-1")


def test_the_log_and_the_end_of_a_remote_process_come_here(joined, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    process = start(joined[0], tmp_path, "print('grüße', flush=True); raise SystemExit(3)")
    assert process.wait(30)
    assert process.ending == "exited with code 3 on b"
    assert process.log_tail() == "grüße"


def test_a_remote_process_is_stopped(joined, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    process = start(joined[0], tmp_path, "import time; time.sleep(600)")
    process.stop(5)
    assert process.ending == "stopped by the harness (killed by SIGTERM) on b"


def test_a_program_that_is_not_there_is_a_failed_launch(joined, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    site = Site("127.0.0.1", 0, tmp_path / "member", "")
    with pytest.raises(LaunchFailed, match=r"node b: .*no-such-program"):
        OtherNode(site, joined[0][0]).start(Launch(("/no-such-program",), "m"), site, log=tmp_path / "here.log", tag="t-1")


def test_whoever_does_not_know_the_key_is_not_let_in_and_the_missing_rank_is_named() -> None:
    with Followers(2, host="127.0.0.1") as others:
        stranger = threading.Thread(target=_come_with, args=(others.meeting, b"wrong"), daemon=True)
        stranger.start()
        with pytest.raises(NodeMissing, match=r"1 of 3 nodes are here after 0.5 s; missing: rank 1, 2"):
            others.gather(0.5)
        assert len(others) == 0


def _come_with(meeting: dict[str, object], key: bytes) -> None:
    with suppress(AuthenticationError, NodeLost):
        connect("127.0.0.1", int(str(meeting["port"])), key, 5)
