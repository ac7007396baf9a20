"""The plotting library of the page, compressed: the browser inflates it when a figure is first looked at.

It comes from the installed package; nothing of it is in this repository. gzip, written as text of 7 bits a character, which is a seventh
larger than the bytes, where base64 is a third larger. HTML changes two of these characters in a script element; so each block of text
begins with a key, with which its characters are combined (exclusive or) such that neither occurs.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

_REFUSED = (0x00, 0x0D)
"""NUL, which HTML replaces, and a carriage return, which it turns into a line feed."""
_BLOCKS = (120, 40)
"""Characters of a block. Of 120 nearly every one has a key; of 40 each has, even where three characters are refused."""
_MARKUP = re.compile(r"<(?:!--|/?script)", re.IGNORECASE)
Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Packed:
    text: str
    block: int
    """Characters of a block, without its key."""


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
    for refused in (_REFUSED, (*_REFUSED, ord("<"))):  # a '<' may happen to begin markup
        found = next(its for block in _BLOCKS if (its := _written(codes, block, refused)) is not None)
        if _MARKUP.search(found.text) is None:
            return found
    raise AssertionError("text without '<' has no markup")


def _sevens(data: bytes) -> Codes:
    """Bytes as groups of 7 bits, the first bit first; the last group is filled with zeros."""
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    groups = np.pad(bits, (0, -len(bits) % 7)).reshape(-1, 7)
    return np.asarray(np.packbits(groups, axis=1).ravel() >> 1, dtype=np.uint8)


def _written(codes: Codes, block: int, refused: tuple[int, ...]) -> Packed | None:
    """Each block behind its key; None if a block has no key that keeps the refused codes out."""
    rows = np.pad(codes, (0, -len(codes) % block), mode="edge").reshape(-1, block)
    spoilt = np.zeros((len(rows), 128), dtype=bool)
    spoilt[:, refused] = True  # the key is written too
    for code in refused:
        spoilt[np.arange(len(rows))[:, None], rows ^ code] = True
    keys = spoilt.argmin(axis=1).astype(np.uint8)
    if spoilt[np.arange(len(rows)), keys].any():
        return None
    text = np.column_stack([keys, rows ^ keys[:, None]]).ravel()
    return Packed(text[: len(codes) + len(rows)].tobytes().decode("ascii"), block)


def script_hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
