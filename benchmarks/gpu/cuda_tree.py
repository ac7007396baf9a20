"""Makes a CUDA toolkit out of links: nvcc and the runtime of an installed toolkit, cuBLAS of the Python package that torch brings.

CMake looks for cuBLAS in the toolkit's folder, and a toolkit made from Python packages often has none. Prints the folder; copies nothing.
"""

import argparse
import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path


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


def make(toolkit: Path, folder: Path) -> None:
    for name in ("include", "lib64"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "nvvm"):
        link(toolkit / name, folder / name)
    target = folder / "targets" / "x86_64-linux"  # where nvcc looks, by its own path
    target.mkdir(parents=True, exist_ok=True)
    link(folder / "include", target / "include")
    link(folder / "lib64", target / "lib")
    origins = [toolkit, *toolkit.glob("targets/*"), *package_folders()]
    for origin in origins:
        for part, place in (("include", "include"), ("lib", "lib64"), ("lib64", "lib64")):
            for path in sorted((origin / part).glob("*")) if (origin / part).is_dir() else ():
                link(path.resolve(), folder / place / path.name)
    for library in sorted((folder / "lib64").glob("lib*.so.*")):  # a linker looks for the name without a version
        link(library.resolve(), library.with_name(library.name.split(".so.")[0] + ".so"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toolkit", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    make(given.toolkit, given.folder)
    if not (given.folder / "include" / "cublas_v2.h").exists():
        sys.exit("cuda_tree.py: neither the toolkit nor a Python package has cuBLAS")
    print(given.folder)


if __name__ == "__main__":
    main()
