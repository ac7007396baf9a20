"""A folder in a store, through fsspec: listing, atomic upload, creation that only one of several writers can do. Does not know runs.

Whatever goes wrong becomes a `StoreError` in one sentence: each file system has exceptions of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enginebench.errors import UserError
from enginebench.records.files import replace_atomically
from enginebench.records.remote.urls import shown

_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"})
"""An upload is visible as a whole or not at all; elsewhere a file is uploaded under another name and renamed."""
_EXCLUSIVE_OPEN = frozenset({"file", "local", "memory"})
_TAGS = ("ETag", "etag", "md5Hash", "content_md5", "checksum", "mtime", "LastModified", "last_modified", "updated", "created")
"""What tells a version of a file from another, the surest first."""
_S3_CONFIG = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 2}}
_LONGEST = 200


class StoreError(UserError):  # named like LaunchFailed
    """The store cannot be reached, or refuses."""


@dataclass(frozen=True)
class RemoteFile:
    size: int
    tag: str
    """Changes with its content."""


class RemoteFolder:
    """A folder at a URL. Names are relative to it, with '/'."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._scheme = url.partition("://")[0]
        self._files, self._root = _file_system(url, self._scheme)

    @property
    def shown(self) -> str:
        return shown(self.url)

    def find(self, below: str = "") -> dict[str, RemoteFile]:
        """Every file in the folder and below, by name; {} where there is no folder."""
        with self._errors("cannot be listed"):
            self._files.invalidate_cache()
            place = self._path(below)
            try:
                found = self._files.find(place, detail=True)
            except FileNotFoundError:
                return {}
        names = {posixpath.relpath(self._bare(path), self._bare(self._root)): info for path, info in found.items()}
        return {name: _known(info) for name, info in names.items() if info.get("type", "file") == "file" and not name.startswith("..")}

    def names(self, below: str = "") -> tuple[str, ...]:
        """The files and folders directly in a folder; () where there is none."""
        with self._errors("cannot be listed"):
            self._files.invalidate_cache()
            try:
                found = self._files.ls(self._path(below), detail=False)
            except FileNotFoundError:
                return ()
        return tuple(posixpath.relpath(self._bare(str(path)), self._bare(self._root)) for path in found)

    def info(self, name: str) -> RemoteFile | None:
        """A file; None: there is no such file."""
        with self._errors("cannot be read"):
            self._files.invalidate_cache()
            try:
                found = self._files.info(self._path(name))
            except FileNotFoundError:
                return None
        return _known(found) if found.get("type", "file") == "file" else None

    def read(self, name: str) -> bytes | None:
        """The content; None: there is no such file."""
        with self._errors("cannot be read"):
            try:
                return bytes(self._files.cat_file(self._path(name)))
            except FileNotFoundError:
                return None

    def download(self, name: str, file: Path) -> None:
        """Replace a local file by one of the folder, whole."""
        file.parent.mkdir(parents=True, exist_ok=True)

        def fetch(part: Path) -> None:
            with self._errors("cannot be read"):
                self._files.get_file(self._path(name), str(part))

        replace_atomically(file, fetch)

    def upload(self, file: Path, name: str) -> RemoteFile:
        """Replace a file of the folder by a local one. A reader sees the old content or the new."""
        with self._errors("cannot be written"):
            place = self._path(name)
            if self._scheme in _OBJECT_STORES:
                self._files.put_file(str(file), place)
            else:
                self._files.makedirs(posixpath.dirname(place), exist_ok=True)
                part = posixpath.join(posixpath.dirname(place), f".{posixpath.basename(place)}.{os.getpid()}.part")
                self._files.put_file(str(file), part)
                self._files.mv(part, place)
            self._files.invalidate_cache()
            return _known(self._files.info(place))

    def write(self, name: str, content: bytes) -> None:
        with self._errors("cannot be written"):
            self._files.pipe_file(self._path(name), content)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file unless there is one of this name; False if there is. Of several writers at once only one succeeds, as far as the
        file system can do that (S3, Google Cloud Storage, local disks and NFS 3 can).
        """
        place = self._path(name)
        with self._errors("cannot be written"):
            try:
                if self._scheme in _EXCLUSIVE_OPEN:
                    self._files.makedirs(posixpath.dirname(place), exist_ok=True)
                    with self._files.open(place, "xb") as file:
                        file.write(content)
                else:
                    self._files.pipe_file(place, content, mode="create")
            except FileExistsError:
                return False
            except Exception:  # S3 says 'precondition failed', in a class that depends on the version
                if (there := self.read(name)) is None:
                    raise
                return there == content
        return True

    def remove(self, name: str) -> None:
        with self._errors("cannot be written"), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return posixpath.join(self._root, name) if name else self._root

    @staticmethod
    def _bare(path: str) -> str:
        return "/" + path.lstrip("/")

    @contextlib.contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:
            advice = "see whether the store can be reached from here and its credentials are set: docs/stores.md"
            raise StoreError(f"{self.shown} {what}: {_reason(error)}", advice=advice) from error


def _file_system(url: str, scheme: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the folder in it."""
    fsspec: Any = importlib.import_module("fsspec")
    options: dict[str, Any] = {}
    if scheme in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        options["config_kwargs"] = _S3_CONFIG  # a store that does not answer must not hold up a run for minutes
    try:
        files, root = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        advice = "pip install 'enginebench[store]' brings s3:// and gs://; others: the package that fsspec names"
        raise StoreError(f"{scheme}:// cannot be used here: {_reason(error)}", advice=advice) from None
    except ValueError as error:
        known = "s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, file:///FOLDER, or another that fsspec knows"
        raise StoreError(f"{shown(url)} is no URL of a store: {_reason(error)}", advice=f"write {known}") from None
    except Exception as error:
        raise StoreError(f"{shown(url)} cannot be opened: {_reason(error)}") from error
    return files, str(root).rstrip("/") or "/"


def _known(info: dict[str, Any]) -> RemoteFile:
    tag: Callable[[str], str] = lambda name: f"{name}={info[name]}"  # noqa: E731
    return RemoteFile(int(info.get("size") or 0), next((tag(name) for name in _TAGS if info.get(name)), ""))


def _reason(error: BaseException) -> str:
    """The first line of an error, without secrets in URLs."""
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return shown(text)[:_LONGEST].rstrip(".")
