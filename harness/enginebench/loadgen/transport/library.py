"""Loads the library that hatch_build.py compiles from receive.c, through ctypes."""

import ctypes
import struct
from functools import cache
from pathlib import Path
from typing import Final

VERSION: Final = 8
"""Version of the interface below; must match the library's."""
WAITS: Final = 256
"""Steps of the wait-time histogram."""
RECORD: Final = struct.Struct("=iiqqqq")
"""`struct record`."""
_RECORDS: Final = 3 * 256


class Handle(ctypes.Structure):
    """The part of `struct receiver` that is used here."""

    _fields_ = (
        ("free_until_ns", ctypes.c_int64),
        ("loop_waiters", ctypes.c_int64),
        ("acks", ctypes.c_int64),
        ("nodelay_events", ctypes.c_int64),
        ("nagle_connections", ctypes.c_int64),
        ("pending", ctypes.c_int64),
        ("last_event_ns", ctypes.c_int64),
        ("reads", ctypes.c_int64),
        ("unstamped", ctypes.c_int64),
        ("waits", ctypes.c_int64 * WAITS),
        ("stamps", ctypes.c_void_p),
        ("lengths", ctypes.c_void_p),
        ("texts", ctypes.c_void_p),
        ("text_bytes", ctypes.c_int64),
        ("records", ctypes.c_char * (RECORD.size * _RECORDS)),
    )


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None if it is missing, has another version, or gets no kernel time stamps on this system."""
    path = Path(__file__).with_name("_receive.so")
    if not path.is_file():
        return None
    try:
        found = ctypes.CDLL(str(path))
        if found.eb_version() != VERSION or not found.eb_usable():
            return None
    except (OSError, AttributeError):
        return None
    found.eb_open.restype = ctypes.POINTER(Handle)
    handle, fd, size = ctypes.POINTER(Handle), ctypes.c_int, ctypes.c_size_t
    for name, rest in (("fd", ()), ("add", (fd, fd)), ("remove", (fd,)), ("take", (fd,)), ("drain", ()), ("close", ())):
        getattr(found, f"eb_{name}").argtypes = (handle, *rest)
    found.eb_expect.argtypes = (handle, fd, *(ctypes.c_char_p, size) * 3)
    return found
