"""The place of llama.cpp's evaluation callback in parameters whose fields are not the same in every build."""

from __future__ import annotations

import ctypes
import importlib.util
import struct
import sys
from typing import Any

import pytest
from enginebench.adapter import WORKERS


@pytest.fixture(scope="module")
def worker() -> Any:
    sys.path.insert(0, str(WORKERS))
    try:
        spec = importlib.util.spec_from_file_location("llamacpp_routing_under_test", WORKERS / "llamacpp_routing.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(WORKERS))
        sys.modules.pop("worker_protocol", None)


def layout(*, first: tuple[int, ...] = (512, 2048, 512, 1), more: int = 4, places: int = 1) -> bytes:
    """Default parameters of a build with `more` fields before the scaling factors; cb_eval is at the returned bytes' end minus 64."""
    head = struct.pack("<4I", *first) + struct.pack(f"<{more}i", *[4] * more) + struct.pack("<5i", -1, -1, -1, -1, -1)
    head += struct.pack("<8f", 0, 0, -1, -1, -1, -1, 0, -1)
    head += bytes(-len(head) % 8)
    block = bytes(16) + struct.pack("<2i", 1, 1) + struct.pack("<2Q", 7, 7)
    return (head + block * places).ljust(2048, b"\0")


@pytest.mark.parametrize("more", [2, 3, 4, 5])
def test_the_callback_is_found_wherever_fields_were_added(worker: Any, more: int) -> None:
    callback = ctypes.CFUNCTYPE(None)(lambda: None)
    defaults = layout(more=more)
    raw = bytes(worker.context_params(defaults, 96, callback))
    assert struct.unpack_from("<4I", raw) == (96, 96, 96, 1)
    address = struct.pack("<Q", ctypes.cast(callback, ctypes.c_void_p).value or 0)
    at = raw.index(address)
    assert raw[:12] != defaults[:12]
    assert raw[12:at] + raw[at + 8 :] == defaults[12:at] + defaults[at + 8 :]
    assert struct.unpack_from("<2i", raw, at + 16) == (1, 1)


@pytest.mark.parametrize("defaults", [layout(places=2), layout(places=0), layout(first=(0, 2048, 512, 1))])
def test_an_unknown_layout_is_refused_before_anything_is_written_to_it(worker: Any, defaults: bytes) -> None:
    with pytest.raises(RuntimeError, match="unknown layout"):
        worker.context_params(defaults, 96, ctypes.CFUNCTYPE(None)(lambda: None))
