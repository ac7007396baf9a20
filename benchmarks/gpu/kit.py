"""Packs the GPU kit: `make gpu-kit`. docs/gpu.md explains it.

Wheels of enginebench and of what it needs for Python 3.12, llama.cpp's sources out of a published sdist, recipes of checkpoints, scenarios
and the scripts of this folder, in pieces of limited size with their hashes. The first piece has all that a machine with torch and
transformers lacks for measuring; what such a machine usually has (numpy, pandas, pyarrow) comes last, and wheels of further engines before
that, if they are asked for (`--engines`). Downloads are kept in a cache folder.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine_wheels import MANIFEST, fetch, pins
from enginebench.engines.registry import discover
from enginebench.machine.installs import python_with_pip
from environment import LATER
from llamacpp_sources import pack_sources

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PIECE_MIB = 48
"""At most, with what tar adds: a checkout of the project (13 MiB) and a piece together stay below 64 MiB, a usual limit of an upload."""
HEADER_BYTES, END_BYTES = 1024, 20_480
"""What tar adds to each file, and at the end."""
PYTHON = "3.12"
PLATFORMS = (
    "linux_x86_64",
    "manylinux1_x86_64",
    "manylinux2010_x86_64",
    "manylinux2014_x86_64",
    *(f"manylinux_2_{n}_x86_64" for n in range(5, 36)),  # pip matches each by its name alone
)
TARGET = (
    "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp",
    *(f"--abi={abi}" for abi in ("cp312", "abi3", "none")), *(f"--platform={name}" for name in PLATFORMS),
)  # fmt: skip
"""pip's options for wheels of the machine that measures."""
USUAL = (
    "certifi", "charset_normalizer", "filelock", "fsspec", "hf_xet", "huggingface_hub", "idna", "jinja2", "markupsafe", "numpy",
    "packaging", "pandas", "psutil", "pyarrow", "pyyaml", "regex", "requests", "safetensors", "tokenizers", "tqdm", "typing_extensions",
    "urllib3", *LATER,
)  # fmt: skip
"""Packages that a machine with torch and transformers usually has, or that measuring does not need: their wheels come last."""


@dataclass(frozen=True)
class Item:
    """A file of the kit: where it is here, and where it is unpacked."""

    path: Path
    name: str
    start: int = 0
    end: int | None = None
    """Bytes of the file; a file larger than a piece is carried in parts, and joined there."""

    @property
    def size(self) -> int:
        return (self.path.stat().st_size if self.end is None else self.end) - self.start

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(self.size)

    def parts(self, most: int) -> list[Item]:
        """This item, or NAME.part000, NAME.part001, ... of at most so many bytes each."""
        if self.size <= most:
            return [self]
        starts = range(0, self.size, most)
        return [Item(self.path, f"{self.name}.part{i:03}", at, min(at + most, self.size)) for i, at in enumerate(starts)]


def build_wheel(folder: Path) -> Path:
    """enginebench's own wheel, which has the receiver in C for every Python 3."""
    for old in folder.glob("enginebench-*.whl"):
        old.unlink()
    call([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)])
    return max(folder.glob("enginebench-*.whl"))


def download(wheel: Path, folder: Path) -> list[Path]:
    """Wheels for the machine that measures: of this wheel's requirements and of requirements.txt, in the versions of constraints.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(f"{folder.name}.new")  # so that no older version of an earlier kit stays
    shutil.rmtree(fresh, ignore_errors=True)
    exact = ["--constraint", str(ROOT / "constraints.txt"), "--requirement", str(HERE / "requirements.txt"), str(wheel)]
    call([*pip(), "download", "--quiet", *TARGET, "--find-links", str(folder), "--dest", str(fresh), *exact])
    shutil.rmtree(folder)
    fresh.rename(folder)
    return sorted(folder.glob("*.whl"))


def sdist(folder: Path) -> Path:
    """The sdist of llama-cpp-python that the adapter pins, which holds llama.cpp's sources."""
    (requirement,) = discover()["llamacpp"].variants["python"]
    name, version = requirement.replace("[server]", "").split("==")
    stem = f"{name.replace('-', '_')}-{version}.tar.gz"
    if not (folder / stem).exists():
        call([*pip(), "download", "--quiet", "--no-deps", f"--no-binary={name}", "--dest", str(folder), f"{name}=={version}"])
    return folder / stem


def pip() -> list[str]:
    return [python_with_pip() or sys.executable, "-m", "pip", "--disable-pip-version-check"]


def pieces(groups: Sequence[tuple[str, Sequence[Item]]], most: int) -> Iterator[tuple[str, list[Item]]]:
    """(name, items) of each piece of at most so many bytes; a group, or a file, is divided where it does not fit."""
    room = most - END_BYTES
    for name, items in groups:
        part: list[Item] = []
        parts = [part]
        for item in (part for each in items for part in each.parts(room - HEADER_BYTES)):
            if sum(each.size + HEADER_BYTES for each in [*part, item]) > room:
                part = []
                parts.append(part)
            part.append(item)
        for number, each in enumerate(parts, 1):
            yield (name if len(parts) == 1 else f"{name}-{number}"), each


def write_piece(path: Path, items: Iterable[Item]) -> str:
    """A tar with fixed times and owners, so that the same content has the same hash. Returns the hash."""
    with tarfile.open(path, "w") as out:
        for item in items:
            info = tarfile.TarInfo(item.name)
            data = item.read()
            info.size, info.mode = len(data), 0o755 if item.path.suffix == ".sh" else 0o644
            out.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def scripts() -> list[Item]:
    """The files of this folder that the machine needs."""
    found = [*HERE.glob("*.py"), *HERE.glob("*.sh"), *HERE.glob("*.yaml"), *HERE.glob("*.txt"), *(HERE / "scenarios").glob("*.yaml")]
    return [Item(path, f"gpu/{path.relative_to(HERE)}") for path in sorted(found)]


def distribution(path: Path) -> str:
    return path.name.split("-")[0].lower()


def further(folder: Path, engine: str, most: int) -> list[Item]:
    """The wheels of one further engine, after a list of them: name, SHA-256, and in how many parts it is carried."""
    items = [Item(path, f"{engine}/{path.name}") for path in sorted(folder.glob("*.whl"))]
    divided = [(item, len(item.parts(most - END_BYTES - HEADER_BYTES))) for item in items]
    lines = [f"{hashlib.sha256(item.path.read_bytes()).hexdigest()} {parts} {item.path.name}\n" for item, parts in divided]
    (folder / MANIFEST).write_text("".join(lines))
    return [Item(folder / MANIFEST, f"{engine}/{MANIFEST}"), *items]


def make(out: Path, cache: Path, engines: Sequence[str], most: int) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    wheel = build_wheel(cache)
    wheels = download(wheel, cache / "wheels")
    usual = [Item(path, f"wheels/{path.name}") for path in wheels if distribution(path) in USUAL]
    lacking = [Item(path, f"wheels/{path.name}") for path in wheels if distribution(path) not in USUAL]
    sources = pack_sources(sdist(cache), cache / "llama.cpp")
    files = [Item(path, f"llama.cpp/{path.relative_to(cache / 'llama.cpp')}") for path in sources]
    installer = max((cache / "wheels").glob("pip-*.whl"))
    more = [(name, further(fetch(name, cache / name, installer, TARGET), name, most)) for name in engines]
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    sums = []
    for number, (name, items) in enumerate(
        pieces([("core", [*scripts(), *lacking]), ("llamacpp", files), *more, ("usual", usual)], most), 1
    ):
        path = out / f"piece-{number}-{name}.tar"
        sums.append(f"{write_piece(path, items)}  {path.name}\n")
        print(f"{path.name:<24} {path.stat().st_size / 2**20:5.1f} MiB, {len(items)} files")
    (out / "SHA256SUMS").write_text("".join(sums))
    shutil.copy2(HERE / "run.sh", out / "run.sh")
    print(f"{out}: copy it to the machine, or its pieces one by one with SHA256SUMS, and run {out.name}/run.sh there")


def call(command: Sequence[str]) -> None:
    done = subprocess.run(command, check=False)
    if done.returncode:
        sys.exit(f"kit.py: exit code {done.returncode}: {' '.join(command[:6])} ...")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "gpu-kit")
    parser.add_argument("--cache", type=Path, default=ROOT / "dist" / "gpu-kit-cache", help="downloads, kept")
    parser.add_argument("--piece-mib", type=int, default=PIECE_MIB, help="largest piece")
    parser.add_argument("--engines", nargs="*", default=[], choices=sorted(pins()), help="further engines, whose wheels are packed too")
    given = parser.parse_args()
    make(given.out.absolute(), given.cache.absolute(), given.engines, given.piece_mib << 20)


if __name__ == "__main__":
    main()
