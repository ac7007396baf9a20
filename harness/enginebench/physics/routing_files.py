"""Reads and writes expert counts in files.

| file | from | contents |
|---|---|---|
| `.npz` | `bench routing` and its worker scripts | single choices or counts, and which checkpoint and kinds of input |
| `.gguf` | llama.cpp's `llama-imatrix` | counts of every expert |
| `.npy`, `.json` | vLLM's and SGLang's routed experts of one response | single choices |
| `.pt` | SGLang's expert distribution recorder | needs torch: `adapters/workers/sglang_routing.py` converts it to `.npz` |

Unverified (taken from the engines' sources): the layouts of `.gguf` and of responses with routed experts; counts of preempted requests.
"""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from enginebench.checkpoints.cache import atomic
from enginebench.errors import UserError
from enginebench.physics.routing import Choices, Routing, routing_of

SUFFIXES = (".npz", ".gguf", ".npy", ".json")
_IMATRIX_EXPERTS = re.compile(r"blk\.(\d+)\.ffn_(?:gate|gate_up|up)_exps\.weight\.counts")


def save(routing: Routing, file: Path) -> None:
    """Write `file` (.npz) atomically: counts, choices if known, model and source."""
    arrays: dict[str, Any] = {"counts": routing.counts, "layers": np.array(routing.layers, np.int32)}
    if routing.choices is not None:
        arrays |= {"choices": routing.choices.experts, "sequence": routing.choices.sequence, "decoded": routing.choices.decoded}
        arrays |= {"input": routing.choices.input} if routing.choices.input is not None else {}
    about = {"model": routing.model, "source": routing.source, "experts": routing.experts}
    about |= {"inputs": routing.inputs, "names": routing.names, "content": routing.content}
    header = np.array(json.dumps(about))
    with atomic(file) as draft, draft.open("wb") as out:
        np.savez_compressed(out, told=header, **arrays)


def read(file: Path) -> Routing:
    """The routing in a file with one of SUFFIXES. UserError if it contains none."""
    readers = {".npz": _npz, ".gguf": _imatrix, ".npy": lambda file: _responses(file, [np.load(file, allow_pickle=False)]), ".json": _json}
    if file.suffix not in readers:
        raise UserError("unknown type of expert counts", file=file, advice=f"known: {', '.join(SUFFIXES)}")
    try:
        return readers[file.suffix](file)
    except (ValueError, KeyError, IndexError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"cannot read expert counts ({type(error).__name__}: {error})", file=file) from error


def _npz(file: Path) -> Routing:
    # opened here, because np.load does not close a damaged file that it opened
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
        header = json.loads(str(stored["told"]))
        layers = tuple(int(layer) for layer in stored["layers"])
        known = {"names": tuple(header.get("names", ())), "content": header.get("content", ""), "inputs": tuple(header.get("inputs", ()))}
        if "choices" not in stored:
            return Routing(header["model"], header["source"], layers, stored["counts"].astype(np.int64), **known)
        choices = Choices(stored["choices"], stored["sequence"], stored["decoded"], stored.get("input"))
        return routing_of(header["model"], header["source"], layers, int(header["experts"]), choices, **known)


def names_in(file: Path) -> tuple[str, ...]:
    """What the model of an .npz is called, without reading its counts; empty for a damaged file."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            return tuple(json.loads(str(stored["told"])).get("names", ()))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return ()


def _imatrix(file: Path) -> Routing:
    """llama-imatrix counts the rows of each expert's matrices. Gate and up have the same counts, so one is enough."""
    import gguf

    found: dict[int, npt.NDArray[np.int64]] = {}
    for tensor in gguf.GGUFReader(file).tensors:
        if match := _IMATRIX_EXPERTS.fullmatch(tensor.name):
            found.setdefault(int(match[1]), np.asarray(tensor.data).ravel().astype(np.int64))
    if not found:
        raise ValueError("no expert counts")
    layers = sorted(found)
    return Routing(file.stem, "llama.cpp imatrix", tuple(layers), np.stack([found[layer] for layer in layers]))


def _json(file: Path) -> Routing:
    """Responses of a server, one JSON object or a list, with `routed_experts` (base64 of a .npy file) in their choices."""
    data = json.loads(file.read_text(encoding="utf-8"))
    encoded = list(_routed_experts(data))
    if not encoded:
        raise ValueError("no response with routed_experts")
    return _responses(file, [np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) for text in encoded])


def _routed_experts(data: object) -> Iterator[str]:
    if isinstance(data, dict):
        if isinstance(data.get("routed_experts"), str):
            yield data["routed_experts"]
        for value in data.values():
            yield from _routed_experts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _routed_experts(value)


def _responses(file: Path, responses: list[npt.NDArray[Any]]) -> Routing:
    """Arrays [tokens, layers, top_k], one per response. They contain neither the number of experts (the highest chosen one is taken), nor
    the end of the prompt (no token counts as decoded)."""
    if any(response.ndim != 3 for response in responses):
        raise ValueError(f"expected arrays [tokens, layers, top_k], got {[response.shape for response in responses]}")
    experts = np.concatenate(responses).astype(np.int16)
    owners = np.repeat(np.arange(len(responses), dtype=np.int32), [len(response) for response in responses])
    choices = Choices(experts, owners, np.zeros(len(experts), np.bool_))
    source = "routed experts of a server (experts: up to the highest chosen)"
    return routing_of(file.stem, source, range(experts.shape[1]), int(experts.max()) + 1, choices)
