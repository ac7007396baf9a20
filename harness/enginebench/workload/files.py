"""The files that a load names: their paths, when they last changed, and their text, packed or not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TextIO, cast

from enginebench.errors import UserError

_PACKED: Mapping[bytes, Callable[..., IO[Any]]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
"""First bytes of a packed file -> what opens it."""
_OTHERS: Mapping[bytes, tuple[str, str]] = {
    b"\x28\xb5\x2f\xfd": ("packed with zstd", "unpack it (zstd -d), or pack it with gzip"),
    b"PK\x03\x04": ("a zip archive", "unpack it"),
    b"PAR1": ("Parquet", "write it as JSON lines, with pandas: read_parquet(FILE).to_json(OTHER, orient='records', lines=True)"),
    b"\xff\xfe": ("UTF-16", "save it as UTF-8"),
    b"\xfe\xff": ("UTF-16", "save it as UTF-8"),
}
"""First bytes of files that are not read -> what they are, and what to do."""


def find(name: str, base: Path, key: str) -> Path:
    """A file named in a scenario; relative names start from `base`. UserError, with `key`, if it does not exist."""
    file = base / Path(name).expanduser()
    if not file.is_file():
        raise UserError(f"there is no file {file}", key=key, advice="relative names start from the folder of the scenario")
    return file


def modified(file: Path) -> int:
    """Time of a file's last change in ns, for the keys of caches."""
    return file.stat().st_mtime_ns


@contextmanager
def opened(file: Path, errors: str = "strict") -> Iterator[TextIO]:
    """A text file in UTF-8, with or without a byte order mark, packed with gzip, bzip2 or xz or not. UserError for other files and for a
    damaged one. errors: as for `open`."""
    with file.open("rb") as raw:
        head = raw.read(8)
    for mark, (what, advice) in _OTHERS.items():
        if head.startswith(mark):
            raise UserError(f"the file is {what}, which is not read", file=file, advice=advice)
    unpack = next((each for mark, each in _PACKED.items() if head.startswith(mark)), open)
    try:
        with cast("TextIO", unpack(file, "rt", encoding="utf-8-sig", errors=errors, newline="")) as text:
            yield text
    except UnicodeDecodeError as error:
        raise UserError(f"invalid UTF-8: {error}", file=file, advice="save it as UTF-8") from None
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:  # bz2 raises OSError
        raise UserError(f"the file cannot be read: {error}", file=file, advice="if it is packed, it is damaged: fetch it again") from None
