"""The plotting library of the page, compressed: the browser inflates it when a figure is first looked at.

It comes from the installed package; nothing of it is in this repository. gzip, written as text of 7 bits a character, which is a seventh
larger than the bytes, where base64 is a third larger. The text is UTF-8 without what HTML reads in a script element or changes in it.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache

import numpy as np

_REFUSED = (0x00, 0x0D)
"""NUL, which HTML replaces, and a carriage return, which it turns into a line feed. Such a group of 7 bits is the character 0x80 + its
place in this tuple instead."""
_MARKUP = re.compile(r"<(?:!--|/?script)", re.IGNORECASE)


@dataclass(frozen=True)
class Packed:
    text: str
    refused: tuple[int, ...]
    """The codes that are written in another way, '<' only where it would be markup."""


@cache
def packed_plotly() -> tuple[Packed, str]:
    """The library, and its hash for the policy."""
    source = plotly_source()
    return pack(source), script_hash(source)


def plotly_source() -> str:
    """The library as the installed package has it."""
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source


def pack(source: str) -> Packed:
    """`unpack` in reports/templates/report.js is the inverse."""
    codes = _sevens(gzip.compress(source.encode(), 9, mtime=0))
    text = _written(codes, _REFUSED)
    if _MARKUP.search(text) is None:
        return Packed(text, _REFUSED)
    refused = (*_REFUSED, ord("<"))
    return Packed(_written(codes, refused), refused)


def _sevens(data: bytes) -> bytes:
    """Bytes as groups of 7 bits, the first bit first; the last group is filled with zeros."""
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    groups = np.pad(bits, (0, -len(bits) % 7)).reshape(-1, 7)
    return (np.packbits(groups, axis=1).ravel() >> 1).tobytes()


def _written(codes: bytes, refused: tuple[int, ...]) -> str:
    return codes.decode("ascii").translate({code: 0x80 + i for i, code in enumerate(refused)})


def script_hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
