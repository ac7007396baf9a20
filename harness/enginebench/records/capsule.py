"""A capsule: one file, `run.ebz`, that holds a run and the SHA-256 of everything in it. docs/decisions/0023-capsules.md says why a zip.

    manifest.json   first: schema, what wrote it, SHA-256 and size of every other file: a `Manifest`
    run/...         the run folder: records, raw samples, logs
    ...             what `enginebench.report.capsules` adds

The same files make the same bytes. Reading distrusts the file: names, kinds, sizes and compression are checked before anything is
unpacked, and every content against its hash. Knows neither runs nor figures.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from pydantic import TypeAdapter, ValidationError

from enginebench.domain import JSON, plain_object
from enginebench.errors import UserError
from enginebench.machine.folders import cache_dir
from enginebench.records.files import replace_atomically, sha256

SUFFIX = ".ebz"
CAPSULE_SCHEMA = 1
"""Version of the layout. Raise it when an older reader would misread a capsule."""
MANIFEST = "manifest.json"
MOST_BYTES = 64 << 30
"""Of all files together, unpacked."""
MOST_FILES = 200_000
MOST_MANIFEST_BYTES = 128 << 20
MOST_RATIO = 100
"""Unpacked over packed size of a file above 1 MiB. What compresses better is stored as it is."""
_FREE_RATIO = 1 << 20
_PIECE = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_+=,@%~-][A-Za-z0-9._+=,@%~ -]*(?:/[A-Za-z0-9_+=,@%~-][A-Za-z0-9._+=,@%~ -]*)*")
"""File names in a capsule: no absolute ones, no '..', no hidden files, no backslashes, no drives."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Entry:
    """One file of a capsule."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """What is in a capsule."""

    schema: int
    enginebench: str
    """Version that wrote it."""
    about: Mapping[str, JSON]
    """For people: the run's name, when it was started, the id of its plan."""
    files: Mapping[str, Entry]
    """Name -> size and hash of every file but the manifest."""


# -- writing -------------------------------------------------------------------------------------------------------------


def write_capsule(target: Path, version: str, about: Mapping[str, JSON], files: Mapping[str, Path | bytes]) -> Manifest:
    """Write a capsule of these files, name -> file or content. Replaces `target` as a whole."""
    sizes: dict[str, Entry] = {}
    packed: dict[str, int] = {}
    for name in sorted(files):
        if not _NAME.fullmatch(name):
            raise UserError(f"cannot be packed: the file name {name!r} is not portable", file=target)
        sizes[name], packed[name] = _measured(files[name])
    manifest = Manifest(CAPSULE_SCHEMA, version, about, sizes)
    text = json.dumps(plain_object(manifest), indent=1, sort_keys=True, ensure_ascii=False) + "\n"

    def fill(part: Path) -> None:
        with zipfile.ZipFile(part, "w") as out:
            _add(out, MANIFEST, text.encode(), deflate=True)
            for name in sorted(files):
                size = sizes[name].size
                _add(out, name, files[name], deflate=packed[name] < size and not _suspicious(size, packed[name]))

    replace_atomically(target, fill)
    return manifest


def _measured(content: Path | bytes) -> tuple[Entry, int]:
    """The entry of a file, and its size when deflated."""
    digest, squeeze, size, packed = hashlib.sha256(), zlib.compressobj(6, zlib.DEFLATED, -15), 0, 0
    with _opened(content) as source:
        while piece := source.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            packed += len(squeeze.compress(piece))
    return Entry(digest.hexdigest(), size), packed + len(squeeze.flush())


def _add(out: zipfile.ZipFile, name: str, content: Path | bytes, *, deflate: bool) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
    info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    with _opened(content) as source, out.open(info, "w", force_zip64=True) as member:
        shutil.copyfileobj(source, member, _PIECE)


@contextlib.contextmanager
def _opened(content: Path | bytes) -> Iterator[IO[bytes]]:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
        yield source


def _suspicious(size: int, packed: int) -> bool:
    return size > _FREE_RATIO and size > MOST_RATIO * max(packed, 1)


# -- reading -------------------------------------------------------------------------------------------------------------


class Damaged(Exception):  # noqa: N818  # a finding of `Capsule.check`, which goes on
    """A file of a capsule is not what the manifest says."""


class Capsule:
    """A capsule, opened: its structure is safe and its manifest is read. UserError, one sentence, for anything that is not so."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            with zipfile.ZipFile(file) as opened:
                self._members = _safe_members(opened, file)
                self.manifest = self._read_manifest(opened)
        except FileNotFoundError:
            raise UserError("file not found", file=file) from None
        except OSError as error:
            raise UserError(f"cannot be read: {error.strerror or error}", file=file) from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
            why = (str(error).splitlines() or ["?"])[0]
            raise UserError(f"is not a whole capsule: it is truncated or damaged ({why})", file=file) from None

    @property
    def missing(self) -> tuple[str, ...]:
        """Files that the manifest names and the capsule lacks."""
        return tuple(name for name in self.manifest.files if name not in self._members)

    @property
    def unlisted(self) -> tuple[str, ...]:
        """Files of the capsule that the manifest does not name."""
        return tuple(name for name in self._members if name != MANIFEST and name not in self.manifest.files)

    def unpack(self, folder: Path) -> dict[str, str]:
        """Write the files that are as the manifest says into a folder. Name of each that is not -> why."""
        bad: dict[str, str] = dict.fromkeys(self.missing, "is missing") | dict.fromkeys(self.unlisted, "is not in the manifest")
        with zipfile.ZipFile(self.file) as opened:
            for name, entry in self.manifest.files.items():
                if name in bad:
                    continue
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                try:
                    _copy(opened, self._members[name], target, entry)
                except Damaged as error:
                    target.unlink(missing_ok=True)
                    bad[name] = str(error)
        return bad

    def _read_manifest(self, opened: zipfile.ZipFile) -> Manifest:
        if MANIFEST not in self._members:
            raise UserError(f"is not a capsule: it has no {MANIFEST}", file=self.file, advice=f"make one: bench pack RUN -o run{SUFFIX}")
        if self._members[MANIFEST].file_size > MOST_MANIFEST_BYTES:
            raise UserError(f"is refused: its {MANIFEST} has more than {MOST_MANIFEST_BYTES >> 20} MiB", file=self.file)
        data: Any = json.loads(opened.read(MANIFEST))
        version = data.get("schema") if isinstance(data, dict) else None
        if type(version) is not int or version < 1:
            raise UserError(f"is not a capsule: its {MANIFEST} has no schema version", file=self.file)
        if version > CAPSULE_SCHEMA:
            message = f"has schema {version}, this enginebench reads capsules up to {CAPSULE_SCHEMA}"
            raise UserError(message, file=self.file, advice="upgrade enginebench to read it")
        try:
            manifest: Manifest = TypeAdapter(Manifest).validate_python(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UserError(f"its {MANIFEST} is damaged: {place}: {first['msg']}", file=self.file) from None
        if bad := next((name for name in manifest.files if not _NAME.fullmatch(name)), None):
            raise UserError(f"is refused: its {MANIFEST} names the unsafe file {bad!r}", file=self.file)
        return manifest


def _safe_members(opened: zipfile.ZipFile, file: Path) -> dict[str, zipfile.ZipInfo]:
    """Name -> member, when nothing about the list of members is dangerous. UserError otherwise."""
    members, seen = opened.infolist(), set[str]()
    if len(members) > MOST_FILES:
        raise UserError(f"is refused: it has more than {MOST_FILES:,} files", file=file)
    for member in members:
        if (why := _unsafe(member, seen)) is not None:
            raise UserError(f"is refused: {member.orig_filename!r} {why}", file=file)
        seen.add(member.filename.casefold())
    if sum(member.file_size for member in members) > MOST_BYTES:
        raise UserError(f"is refused: it unpacks to more than {MOST_BYTES >> 30} GiB", file=file)
    if sum(member.compress_size for member in members) > file.stat().st_size:
        raise UserError("is refused: its files overlap", file=file)
    return {member.filename: member for member in members}


def _unsafe(member: zipfile.ZipInfo, seen: set[str]) -> str | None:
    """Why a member must not be unpacked; None if nothing speaks against it. seen: names before it, without case."""
    name, mode = member.orig_filename, member.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "is a link or no regular file"
    if not _NAME.fullmatch(name):
        return "is no safe file name: absolute, with '..', hidden, or with unusual characters"
    if name.casefold() in seen:
        return "is in it twice"
    if member.flag_bits & 1:
        return "is encrypted"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that capsules do not use"
    if _suspicious(member.file_size, member.compress_size):
        return f"unpacks to more than {MOST_RATIO} times its size"
    return None


def _copy(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, entry: Entry) -> None:
    """Unpack a member, never more bytes than the manifest says. Damaged when it is not as the manifest says."""
    digest, size = hashlib.sha256(), 0
    try:
        with opened.open(member) as source, target.open("wb") as out:
            while piece := source.read(_PIECE):
                size += len(piece)
                if size > entry.size:
                    raise Damaged(f"has more than the {entry.size:,} bytes of the manifest")
                digest.update(piece)
                out.write(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise Damaged(f"cannot be unpacked: {(str(error).splitlines() or ['?'])[0]}") from None
    if size != entry.size:
        raise Damaged(f"has {size:,} bytes, the manifest says {entry.size:,}")
    if digest.hexdigest() != entry.sha256:
        raise Damaged(f"has SHA-256 {digest.hexdigest()[:12]}, the manifest says {entry.sha256[:12]}")


def is_capsule(path: Path) -> bool:
    """Whether the path is a file that should be a capsule: by its suffix, or because it is a zip."""
    return path.is_file() and (path.suffix == SUFFIX or zipfile.is_zipfile(path))


def unpacked(file: Path) -> Path:
    """The run folder of a capsule, unpacked once into the cache. UserError for a capsule that is unsafe or damaged."""
    target = cache_dir() / "capsules" / sha256(file)[:24]
    if not target.is_dir():
        capsule = Capsule(file)

        def fill(part: Path) -> None:
            part.mkdir()
            if bad := capsule.unpack(part):
                name, why = next(iter(bad.items()))
                raise UserError(f"is damaged: {name} {why}", file=file, advice=f"see everything that differs: bench verify {file}")

        target.parent.mkdir(parents=True, exist_ok=True)
        replace_atomically(target, fill)
    return target / "run"
