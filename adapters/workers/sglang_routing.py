"""SGLang's expert distribution recorder files (.pt) as an .npz that `bench routing` reads.

`python sglang_routing.py FILE.pt OUT.npz [FILE.pt of another rank ...]`, where torch is installed. Reads the modes `stat` and `stat_approx`
(`logical_count` [steps, layers, experts]) and `per_pass` and `per_token` (`records` with `global_physical_count` [layers, physical
experts], one file per rank, and the map back to logical experts). Unverified: the layout was read in SGLang 0.5.23's source.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


def counts_of(recorded: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """[layers, experts], summed over the recording. Raises ValueError for another kind of file."""
    if "logical_count" in recorded:
        return np.asarray(recorded["logical_count"].sum(dim=0).cpu()).astype(np.int64)
    if "records" not in recorded:
        raise ValueError(f"expected logical_count or records, found {sorted(recorded)}")
    physical = torch.stack([record["global_physical_count"] for record in recorded["records"]]).sum(dim=0).long().cpu()
    owners = recorded["last_physical_to_logical_map"].long().cpu()
    logical = torch.zeros((physical.shape[0], int(owners.max()) + 1), dtype=torch.long)
    return np.asarray(logical.scatter_add_(1, owners, physical))


def main(arguments: Sequence[str]) -> int:
    if len(arguments) < 2:
        print("usage: sglang_routing.py FILE.pt OUT.npz [FILE.pt of another rank ...]", file=sys.stderr)
        return 2
    files = [Path(arguments[0]), *map(Path, arguments[2:])]
    counts = sum(counts_of(torch.load(file, map_location="cpu", weights_only=True)) for file in files)
    counts = np.asarray(counts)
    told = np.array(json.dumps({"model": files[0].stem, "source": "SGLang expert distribution recorder", "experts": counts.shape[1]}))
    np.savez_compressed(arguments[1], told=told, counts=counts, layers=np.arange(len(counts), dtype=np.int32))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
