"""Finds the CUDA toolkit, and makes a whole one out of links where it lacks cuBLAS: nvcc and the runtime of the installed toolkit, and
the libraries of the Python packages that torch brings.

CMake, and extensions that are compiled for torch, look for cuBLAS in the toolkit's folder; one made from Python packages often has
none. Prints the folder; copies nothing.
"""

import argparse
import importlib.metadata
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LIBRARY = "libcublas.so"


def toolkit() -> Path | None:
    """The folder of nvcc's toolkit as nvcc itself states it: what is on PATH may be a script that starts the real one."""
    nvcc = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
    if nvcc is None:
        return None
    said = subprocess.run([nvcc, "--dryrun", "-x", "cu", "/dev/null"], capture_output=True, text=True, check=False)
    places = [line.partition("_HERE_=")[2] for line in (said.stderr + said.stdout).splitlines() if "_HERE_=" in line]
    return Path(places[0]).resolve().parent if places else Path(nvcc).resolve().parent.parent


def is_whole(folder: Path) -> bool:
    return any((folder / part / LIBRARY).exists() for part in ("lib64", "targets/x86_64-linux/lib"))


def package_folders() -> Iterator[Path]:
    """Folders with include/ and lib/ of the nvidia-* Python packages that this Python sees."""
    seen = set()
    for distribution in importlib.metadata.distributions():
        if (distribution.metadata["Name"] or "").lower().startswith("nvidia-"):
            for file in distribution.files or ():
                path = Path(str(distribution.locate_file(file)))
                if path.parent.name == "lib" and path.parent.parent not in seen:
                    seen.add(path.parent.parent)
                    yield path.parent.parent


def link(source: Path, target: Path) -> None:
    if not target.exists() and not target.is_symlink():
        target.symlink_to(source)


def make(root: Path, folder: Path) -> None:
    for name in ("include", "lib64"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "nvvm"):
        link(root / name, folder / name)
    target = folder / "targets" / "x86_64-linux"  # where nvcc looks, by its own path
    target.mkdir(parents=True, exist_ok=True)
    link(folder / "include", target / "include")
    link(folder / "lib64", target / "lib")
    origins = [root, *root.glob("targets/*"), *package_folders()]
    for origin in origins:
        for part, place in (("include", "include"), ("lib", "lib64"), ("lib64", "lib64")):
            for path in sorted((origin / part).glob("*")) if (origin / part).is_dir() else ():
                link(path.resolve(), folder / place / path.name)
    for library in sorted((folder / "lib64").glob("lib*.so.*")):  # a linker looks for the name without a version
        link(library.resolve(), library.with_name(library.name.split(".so.")[0] + ".so"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for the links, if there have to be any")
    given = parser.parse_args()
    root = toolkit()
    if root is None:
        sys.exit("cuda_tree.py: no nvcc on PATH or in /usr/local/cuda/bin")
    if is_whole(root):
        given.folder.parent.mkdir(parents=True, exist_ok=True)
        link(root, given.folder)
    else:
        make(root, given.folder)
        if not is_whole(given.folder):
            sys.exit("cuda_tree.py: neither the toolkit nor a Python package has cuBLAS")
    print(given.folder)


if __name__ == "__main__":
    main()
