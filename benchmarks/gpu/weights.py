"""Makes the checkpoints of recipes.yaml from a seed, says how fast, and removes those that are no longer needed. What is there is kept."""

import argparse
import shutil
import time
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


def remove(folder: Path, name: str) -> None:
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / f"{name}.gguf").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--drop", action="append", default=[], metavar="NAME", help="remove this checkpoint first")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    for name in given.drop:
        remove(given.folder, name)
    for name in given.names:
        print(make(given.folder, name, given.size), flush=True)


if __name__ == "__main__":
    main()
