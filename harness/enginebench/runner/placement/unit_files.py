"""The files of a unit's folder that are new, complete, and worth bringing back.

python -m enginebench.runner.placement.unit_files FOLDER            writes all of them to stdout as a tar file
python -m enginebench.runner.placement.unit_files FOLDER --known    those that are not in the `known.json` of an earlier call, on stdin
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from enginebench.runner.placement.unit_data import ENDED, NODE

KNOWN = "known.json"
"""In the tar file of the command: which files a caller has now, for the next call."""


class Reader:
    """Reads a folder again and again. Records are replaced atomically, so each is read whole."""

    def __init__(self, folder: Path, known: Mapping[str, Sequence[int]] = MappingProxyType({})) -> None:
        self._folder = folder
        self.known: dict[str, list[int]] = {name: list(seen) for name, seen in known.items()}
        """Path -> time of change and size when it was read."""

    def new(self) -> dict[str, bytes]:
        """Path -> content of what has changed since the last call, in the order in which the driver needs it.

        A log comes when its server has stopped (secrets are masked then), or when all has ended.
        """
        found: dict[str, bytes] = {}
        ended = self._changed(self._folder / ENDED, ENDED)  # first: whatever it ended with has been written by now
        found |= self._changed(self._folder / NODE, NODE)
        for run in sorted(self._folder.glob("*/run.json"))[-1:]:
            folder = run.parent
            found |= self._changed(run, "run.json")
            for file in sorted(folder.glob("launches/*.json")):
                if new := self._changed(file, f"launches/{file.name}"):
                    found |= new | (self._logs(folder, file.stem) if ended or _stopped(*new.values()) else {})
            if ended:
                found |= self._logs(folder, "*")
            for file in sorted(folder.glob("cells/*.json")):
                if new := self._changed(file, f"cells/{file.name}"):
                    with suppress(FileNotFoundError):
                        found[f"samples/{file.stem}.parquet"] = (folder / "samples" / f"{file.stem}.parquet").read_bytes()
                    found |= new
        return found | ended

    def _changed(self, file: Path, name: str) -> dict[str, bytes]:
        try:
            facts = file.stat()
            if self.known.get(name) == (seen := [facts.st_mtime_ns, facts.st_size]):
                return {}
            content = file.read_bytes()
        except FileNotFoundError:
            return {}
        self.known[name] = seen
        return {name: content}

    def _logs(self, folder: Path, launch: str) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for file in sorted(folder.glob(f"logs/{launch}.*")):
            found |= self._changed(file, f"logs/{file.name}")
        return found


def _stopped(record: bytes) -> bool:
    """Whether the server of a launch record has been stopped."""
    data: Any = json.loads(record)
    return data["startup"]["stop_s"] is not None


def as_tar(files: dict[str, bytes]) -> bytes:
    """Files as a tar file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def from_tar(content: bytes) -> dict[str, bytes]:
    """The files of a tar file, in its order."""
    return dict(_members(content))


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for info in tar:
            file = tar.extractfile(info) if info.isfile() else None
            if file is not None:
                yield info.name, file.read()


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    folder, *options = sys.argv[1:] if argv is None else argv
    reader = Reader(Path(folder), json.load(sys.stdin) if options == ["--known"] else {})
    files = reader.new()
    sys.stdout.buffer.write(as_tar({**files, KNOWN: json.dumps(reader.known).encode()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
