"""Makes the checkpoints of recipes.yaml that are named, from a seed, and says how fast. What is there is kept; all others are removed
first, because the disk of the machine may hold one large checkpoint and no second one.
"""

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from enginebench.checkpoints.gguf_file import write_gguf
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.checkpoints.random_moe import RandomMoE
from step_list import recipes


def make(folder: Path, name: str, size: str) -> str:
    """Write one checkpoint. Returns what was done, in one sentence."""
    recipe = recipes(size)[name]
    path = folder / (f"{name}.gguf" if recipe["form"] == "gguf" else name)
    if path.exists():
        return f"{name} is there"
    model, began = RandomMoE.from_reference(recipe["reference"]), time.monotonic()
    if recipe["form"] == "gguf":
        write_gguf(model, recipe["precision"], path)
    else:
        write_hf_folder(model, recipe["precision"], path, weights=recipe["form"] != "config")
    seconds = time.monotonic() - began
    written = sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir())) / 1e9
    billions = model.parameters / 1e9
    return f"{name}: {billions:.2f} B parameters, {written:.2f} GB in {seconds:.1f} s, {written / seconds:.2f} GB/s"


def remove_others(folder: Path, names: Sequence[str]) -> None:
    """Remove all checkpoints but these, and what a killed call has left of one."""
    kept = {*names, *(f"{name}.gguf" for name in names)}
    for path in folder.iterdir():
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    remove_others(given.folder, given.names)
    for name in given.names:
        print(make(given.folder, name, given.size), flush=True)


if __name__ == "__main__":
    main()
