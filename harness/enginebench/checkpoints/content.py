"""Identifies files and folders by their content: size, SHA-256, and for large files a hash of their header and of sampled blocks.

The SHA-256 of a whole file is cached by device, inode, size and time of change. Does not know: what the files are for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from enginebench.checkpoints.cache import atomic
from enginebench.checkpoints.hub import parts_of
from enginebench.machine.folders import cache_dir

AT_ONCE = 1 << 30
"""Files up to this size are hashed as a whole whenever they are identified: 1 to 3 s, once for each file."""
_HEADER, _BLOCK, _BLOCKS = 4 << 20, 64 << 10, 64
_CACHED = 1 << 20
"""Smaller files are hashed again instead of remembered."""


@dataclass(frozen=True)
class Content:
    """What a file or a folder contained."""

    size: int
    """Bytes; of a folder those of its files."""
    sampled: str
    """SHA-256 of the size, the first 4 MiB and 64 blocks of 64 KiB; of a folder that of its files' names and `sampled`."""
    sha256: str | None = None
    """Of the whole file, or of a folder's names and `sha256`; None: not computed, since the file is larger than AT_ONCE."""
    files: Mapping[str, Content] = field(default_factory=dict)
    """A folder's files by name."""

    @property
    def short(self) -> str:
        """'3f9a0c1b2d4e', or '~3f9a0c1b2d4e' for a hash of samples."""
        return self.sha256[:12] if self.sha256 else f"~{self.sampled[:12]}"

    def same_as(self, other: Content) -> bool:
        """Whether nothing shows that the two differ."""
        both = self.sha256 is not None and other.sha256 is not None
        return (self.size, self.sampled) == (other.size, other.sampled) and not (both and self.sha256 != other.sha256)

    def changes(self, now: Content) -> str:
        """What is different now: the names of a folder's files, or the sizes and hashes of a file."""
        if self.files or now.files:
            names = dict.fromkeys([*self.files, *now.files])
            found = [n for n in names if n not in now.files or n not in self.files or not self.files[n].same_as(now.files[n])]
            return ", ".join(found)
        sizes = f"{self.size:,} -> {now.size:,} bytes, " if self.size != now.size else ""
        return f"{sizes}sha256 {self.short} -> {now.short}"


def content_of(path: Path, *, whole: bool = False) -> Content:
    """The content of a file, of all parts of a split one, or of the files of a folder (no hidden ones, no subfolders). Raises OSError.

    whole: the SHA-256 of files larger than AT_ONCE too, which takes about a second for each GB the first time.
    """
    parts = [path.with_name(part) for part in parts_of(path.name)]
    if path.is_dir():
        parts = [each for each in sorted(path.iterdir()) if each.is_file() and not each.name.startswith(".")]
    elif len(parts) == 1:
        return _file(path, whole=whole)
    files = {each.name: _file(each, whole=whole) for each in parts}
    wholes = {name: found.sha256 for name, found in files.items() if found.sha256}
    joined = _joined(wholes.items()) if len(wholes) == len(files) else None
    return Content(sum(found.size for found in files.values()), _joined((n, f.sampled) for n, f in files.items()), joined, files)


def _joined(hashes: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256("".join(f"{name}\0{found}\n" for name, found in hashes).encode()).hexdigest()


_known: dict[tuple[int, ...], Content] = {}


def _file(path: Path, *, whole: bool) -> Content:
    facts = path.stat()
    key = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    known = _known.get(key)
    if known is None or (known.sha256 is None and whole):
        sampled = known.sampled if known else _sampled(path, facts.st_size)
        known = _known[key] = Content(facts.st_size, sampled, _whole(path, key, compute=whole or facts.st_size <= AT_ONCE))
    return known


def _sampled(path: Path, size: int) -> str:
    digest = hashlib.sha256(f"{size}\n".encode())
    with path.open("rb") as file:
        digest.update(file.read(_HEADER))
        for number in range(_BLOCKS) if size > _HEADER else ():
            file.seek(_HEADER + (size - _HEADER) * number // _BLOCKS)
            digest.update(file.read(_BLOCK))
        if size > _HEADER:
            file.seek(max(_HEADER, size - _BLOCK))
            digest.update(file.read(_BLOCK))
    return digest.hexdigest()


def _whole(path: Path, key: tuple[int, ...], *, compute: bool) -> str | None:
    cached = cache_dir() / "hashes" / "-".join(f"{each:x}" for each in key)
    with suppress(OSError):
        return cached.read_text(encoding="ascii").strip() or None
    if not compute:
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if key[2] >= _CACHED:
        with suppress(OSError), atomic(cached) as draft:  # a full or read-only disk costs the next run a second
            draft.write_text(found, encoding="ascii")
    return found


def named_files(name: str, value: object) -> Iterator[tuple[str, Path]]:
    """The files that an option names by absolute path, alone or in a list: ('draft_model /models/draft', path)."""
    for each in value if isinstance(value, list | tuple) else [value]:
        if isinstance(each, str) and each.startswith("/") and "\0" not in each and len(each) < 4096:
            with suppress(OSError):
                if (path := Path(each)).is_file() or path.is_dir():
                    yield f"{name} {each}", path
