"""Which machine, and which target, gets which connections."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from enginebench.loadgen import Target, compiled
from enginebench.loadgen.wires import LoopWires, open_wires

pytestmark = pytest.mark.usefixtures("built_receiver")


def test_a_system_that_does_not_stamp_gets_the_event_loops_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    unable = Mock(eb_version=lambda: compiled.VERSION, eb_usable=lambda: 0)
    monkeypatch.setattr(compiled.ctypes, "CDLL", lambda _: unable)
    compiled.library.cache_clear()
    try:
        assert isinstance(open_wires(Target("127.0.0.1", 9), "kernel"), LoopWires)
    finally:
        compiled.library.cache_clear()


def test_tls_gets_the_event_loops_connections() -> None:
    assert isinstance(open_wires(Target("127.0.0.1", 9, tls=True), "kernel"), LoopWires)


def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "VERSION", compiled.VERSION + 1)
    compiled.library.cache_clear()
    try:
        assert compiled.library() is None
    finally:
        compiled.library.cache_clear()
