"""Images of an exact size: PNGs of coloured squares, different for every request, that compress to a few kilobytes.

A model's vision encoder sees only the size. Does not know requests, models or how many tokens an image has.
"""

from __future__ import annotations

import base64
import re
import struct
import zlib

import numpy as np

from enginebench.errors import UserError
from enginebench.workload.draws import stream

_SIZE = re.compile(r"(\d+)x(\d+)")
_LARGEST = 16_384
_SQUARE = 16
"""Pixels of the side of a square."""


def size_of(text: str) -> tuple[int, int]:
    """(width, height) of '1024x768'. UserError for anything else."""
    found = _SIZE.fullmatch(text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not (0 < width <= _LARGEST and 0 < height <= _LARGEST):
        advice = f"write width and height in pixels, at most {_LARGEST:,} each: 1024x768"
        raise UserError(f"invalid image size '{text}'", key="image_size", advice=advice)
    return width, height


def png(width: int, height: int, seed: int, salt: str) -> bytes:
    """A PNG of 8-bit RGB."""
    columns, rows = -(-width // _SQUARE), -(-height // _SQUARE)
    raw = stream(seed, f"{salt}/image").random_raw(columns * rows)
    colours = np.stack([(raw >> np.uint64(8 * shift)) & np.uint64(255) for shift in range(3)], axis=-1).astype(np.uint8)
    pixels = colours.reshape(rows, columns, 3).repeat(_SQUARE, axis=0).repeat(_SQUARE, axis=1)[:height, :width]
    lines = np.concatenate((np.zeros((height, 1), np.uint8), pixels.reshape(height, 3 * width)), axis=1)  # each line begins with its filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 6)) + _chunk(b"IEND", b"")


def base64_png(width: int, height: int, seed: int, salt: str) -> str:
    return base64.b64encode(png(width, height, seed, salt)).decode()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
