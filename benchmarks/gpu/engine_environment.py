"""Makes the environment of one further engine out of the kit's wheels, on top of the packages of the Python that has torch. No network.

Does nothing where it is made already. The wheels are installed without what they require: what they need of torch is the machine's own, and
`pip check` says what is missing.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from engine_wheels import MANIFEST

COMPLETE = "complete"
BLOCK = 2**24


def listed(folder: Path) -> Iterator[tuple[str, int, str]]:
    """(SHA-256, parts, name) of each wheel of an engine."""
    for line in (folder / MANIFEST).read_text().splitlines():
        digest, parts, name = line.split()
        yield digest, int(parts), name


def parts_of(folder: Path, parts: int, name: str) -> list[Path]:
    """The files in which a wheel is carried."""
    return [folder / name] if parts == 1 else [folder / f"{name}.part{i:03}" for i in range(parts)]


def missing(folder: Path) -> list[str]:
    """Wheels, or parts of them, that are in pieces which are not here yet."""
    if not (folder / MANIFEST).exists():
        return [f"{folder.name}/{MANIFEST}"]
    return [
        f"{folder.name}/{file.name}"
        for _, parts, name in listed(folder)
        for file in ([] if (folder / name).exists() else parts_of(folder, parts, name))
        if not file.exists()
    ]


def join(folder: Path) -> list[Path]:
    """Every wheel, those that came in parts put together. ValueError for one that does not have the hash of the list."""
    return [_whole(folder / name, digest, parts_of(folder, parts, name)) for digest, parts, name in listed(folder)]


def _whole(wheel: Path, digest: str, parts: Sequence[Path]) -> Path:
    if not wheel.exists():
        draft = wheel.with_name(f"{wheel.name}.draft")
        with draft.open("wb") as out:
            for part in parts:
                with part.open("rb") as file:
                    shutil.copyfileobj(file, out, BLOCK)
        draft.replace(wheel)
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise ValueError(f"{wheel.name} does not have the hash of {MANIFEST}: its pieces are of different kits")
    for part in parts:
        if part != wheel:
            part.unlink(missing_ok=True)
    return wheel


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheels", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    if (given.folder / COMPLETE).exists():
        return 0
    try:
        wheels = [str(path) for path in join(given.wheels)]
    except ValueError as error:
        sys.exit(f"engine_environment.py: {error}")
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(given.folder)], check=True)
    (own,) = given.folder.glob("lib/python3*/site-packages")
    base = next(Path(sys.prefix).glob("lib/python3*/site-packages")) / "kit_base.pth"
    (own / base.name).write_text(base.read_text())
    pip = [sys.executable, "-m", "pip", "--python", str(given.folder / "bin" / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-index", "--no-deps", *wheels], check=True)
    subprocess.run([*pip, "check"], check=False)  # what is missing is said here, and shows when the engine starts
    (given.folder / COMPLETE).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
