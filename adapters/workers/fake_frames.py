"""The fake engine's streams as bytes: HTTP chunks, each with the token at whose time it is sent, faults included."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import TypeAlias

from fake_spelling import Spelling

Frame: TypeAlias = tuple[int, bytes]
"""(token, bytes to write at its time)"""

CUT = b""
"""In place of bytes to write: close the connection."""
AT_ONCE = -1
"""In place of a token: send at once."""
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def frames(options: argparse.Namespace, spelling: Spelling) -> Iterator[Frame]:
    """The stream in the pieces in which it is written. A batch of events is sent with its last event."""
    single, size = events(options, spelling), max(1, options.batch_events)
    if size == 1:
        yield from single
        return
    while batch := list(itertools.islice(single, size)):
        token, last = batch[-1]
        data = b"".join([data for _, data in batch])
        if data:
            yield token, data
        if last == CUT:
            yield token, CUT


def events(options: argparse.Namespace, spelling: Spelling) -> Iterator[Frame]:
    ping = chunk(spelling.ping) if options.pings else b""
    opening, closing = spelling.opening(), spelling.closing()
    ending = (chunk(closing) if closing else b"") + LAST_CHUNK
    if opening or ping:
        yield AT_ONCE, (chunk(opening) if opening else b"") + ping
    if not spelling.count:
        yield 0, ending
    faulty = options.cut_after or options.in_stream_error or options.malformed != "no"
    for number, tokens in enumerate(spelling.tokens()):
        if faulty:
            if options.cut_after and tokens.start >= options.cut_after:
                yield tokens.start, CUT
                return
            if options.in_stream_error and tokens.start >= options.in_stream_error:
                yield tokens.start, chunk(spelling.error("fake error in mid-stream")) + LAST_CHUNK
                return
        data = chunk(spelling.event(tokens)) if number != 1 or options.malformed == "no" else broken(options.malformed, spelling)
        yield tokens.start, data + (ending if spelling.ends(tokens) else ping)


def broken(what: str, spelling: Spelling) -> bytes:
    """An event with invalid JSON or UTF-8, or a chunk that is invalid HTTP."""
    if what == "chunk":
        return b"zz\r\nthis is not a chunk size\r\n"
    return chunk(spelling.frame(b'{"text":' if what == "json" else b'{"text":" \xff\xfe"}'))
