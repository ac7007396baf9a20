"""What a mirrored run was when it was brought here or uploaded: a file in its folder. Imports no file system."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

from enginebench.records.files import write_atomically

MANIFEST = ".remote.json"

Version: TypeAlias = tuple[str, int, int]
"""The tag of a remote file; size and time of change of the local one when the two were the same."""


def read_versions(run: Path) -> dict[str, Version]:
    """File of a run -> its version; {} where nothing is known, so that everything is compared again."""
    try:
        data = json.loads((run / MANIFEST).read_text(encoding="utf-8"))
        return {str(name): (str(tag), int(size), int(at)) for name, (tag, size, at) in data["files"].items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def write_versions(run: Path, url: str, versions: Mapping[str, Version]) -> None:
    write_atomically(run / MANIFEST, json.dumps({"url": url, "files": versions}, ensure_ascii=False))
