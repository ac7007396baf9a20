"""Which machine, and which target, gets which connections."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from enginebench.loadgen import Target
from enginebench.loadgen.transport import library
from enginebench.loadgen.transport.factory import EventLoopTransports, open_transports

pytestmark = pytest.mark.usefixtures("built_receiver")


def test_a_system_that_does_not_stamp_gets_the_event_loops_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    unable = Mock(eb_version=lambda: library.VERSION, eb_usable=lambda: 0)
    monkeypatch.setattr("ctypes.CDLL", lambda _: unable)
    library.library.cache_clear()
    try:
        assert isinstance(open_transports(Target("127.0.0.1", 9), "kernel"), EventLoopTransports)
    finally:
        library.library.cache_clear()


def test_tls_gets_the_event_loops_connections() -> None:
    assert isinstance(open_transports(Target("127.0.0.1", 9, tls=True), "kernel"), EventLoopTransports)


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "VERSION", library.VERSION + 1)
    library.library.cache_clear()
    try:
        assert library.library() is None
    finally:
        library.library.cache_clear()
