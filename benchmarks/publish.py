"""Copies a run into results/published: without the engines' logs, and with names for this machine's folders.

    python benchmarks/publish.py results/2026-11-30-quickstart

The home folder becomes `~`, the checkout `.`, the temporary folder of the run `/tmp/enginebench`. Samples stay byte for byte; the records
whose text changes get new checksums.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

from enginebench.records.schema import CHECKSUM, dump

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "results" / "published"


def without_folders(text: str) -> str:
    """The text with names in place of this machine's folders."""
    temporary = re.escape(str(Path(tempfile.gettempdir())))
    text = re.sub(rf"{temporary}/enginebench-[\w-]+", "/tmp/enginebench", text)  # noqa: S108  # a name, not a file
    return text.replace(str(ROOT), ".").replace(str(Path.home()), "~")


def publish(run: Path) -> Path:
    """Copy the run; its new folder. FileExistsError if it is there already."""
    target = PUBLISHED / run.resolve().name
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("logs", "report.html", ".lock"))
    for file in (*target.rglob("*.json"), *target.glob("*.yaml")):
        text = file.read_text()
        if (changed := without_folders(text)) != text:
            if file.suffix == ".json":
                changed = dump({name: value for name, value in json.loads(changed).items() if name not in ("schema", CHECKSUM)})
            file.write_text(changed)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print(publish(Path(sys.argv[1])).relative_to(ROOT))
