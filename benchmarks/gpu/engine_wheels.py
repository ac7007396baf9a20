"""Fetches the wheels of a further engine for the GPU kit: all that it requires, but for torch and CUDA's libraries, which the machine has.

What is needed is resolved from metadata alone (pip's `--dry-run --report`), so that no gigabyte of torch is fetched for it. Only what is
not here yet is downloaded, with the hash that the report has. Does not know: pieces, and whether the engine runs.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
MANIFEST = "WHEELS"
"""A line for each wheel of an engine: SHA-256, number of parts, name."""
OF_THE_MACHINE = re.compile(
    r"torch|torchvision|torchaudio|triton|cuda-(bindings|pathfinder|toolkit|python)"
    r"|nvidia-(cublas|cuda-.*|cu(dnn|sparselt)-cu13|cu(fft|file|rand|solver|sparse)|(nccl|nvshmem)-cu13|nvjitlink|nvtx)"
)
"""torch, and what it requires of CUDA: not carried."""


@dataclass(frozen=True)
class Wanted:
    """A wheel that an engine needs."""

    name: str
    version: str
    file: str
    sha256: str


def pins() -> Mapping[str, Sequence[str]]:
    """Engine -> what is asked for."""
    found: Mapping[str, Sequence[str]] = _stated()["engines"]
    return found


def _stated() -> Any:
    return yaml.safe_load((HERE / "engine_wheels.yaml").read_text())


def resolve(engine: str, pip: Path, target: Sequence[str]) -> list[Wanted]:
    """What has to be carried for an engine. pip: a wheel of pip 25.3 or later, which asks for metadata only."""
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder) / "machine.txt", Path(folder) / "report.json"
        constraints.write_text("\n".join(_stated()["machine"]) + "\n")
        command = [sys.executable, str(pip / "pip"), "install", "--quiet", "--disable-pip-version-check", "--dry-run", "--ignore-installed"]
        more = ["--report", str(report), "--target", str(Path(folder) / "none"), "--constraint", str(constraints)]
        subprocess.run([*command, *target, *more, *pins()[engine]], check=True)
        return list(wanted(json.loads(report.read_text())))


def wanted(report: Mapping[str, Any]) -> Iterator[Wanted]:
    """The wheels of pip's report that the machine does not have."""
    for each in report["install"]:
        name = re.sub(r"[-_.]+", "-", each["metadata"]["name"]).lower()
        if OF_THE_MACHINE.fullmatch(name) is None:
            source = each["download_info"]
            file = urllib.parse.unquote(source["url"].rpartition("/")[2])
            yield Wanted(name, each["metadata"]["version"], file, source["archive_info"]["hashes"]["sha256"])


def fetch(engine: str, folder: Path, pip: Path, target: Sequence[str]) -> Path:
    """A folder with exactly the wheels that the engine needs. Says how large they are."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = resolve(engine, pip, target)
    files = {each.file for each in needed}
    for old in folder.glob("*.whl"):
        if old.name not in files:
            old.unlink()
    if lacking := [f"{each.name}=={each.version}" for each in needed if not (folder / each.file).exists()]:
        command = [sys.executable, str(pip / "pip"), "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, *target, "--dest", str(folder), *lacking], check=True)
    for each in needed:
        path = folder / each.file
        if hashlib.sha256(path.read_bytes()).hexdigest() != each.sha256:
            path.unlink()
            sys.exit(f"engine_wheels.py: {each.file} does not have the hash that the index states; run this again")
    sizes = sorted(((folder / each.file).stat().st_size / 2**20, each.file) for each in needed)
    largest = ", ".join(f"{name.split('-')[0]} {size:.0f}" for size, name in reversed(sizes[-4:]))
    print(f"{engine}: {len(needed)} wheels, {sum(size for size, _ in sizes):.0f} MiB ({largest})")
    return folder
