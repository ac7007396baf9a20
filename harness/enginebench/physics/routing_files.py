"""Expert counts in files: our own `.npz`, and what engines write.

| file | from | holds |
|---|---|---|
| `.npz` | `bench routing`, and the engine-side scripts it runs | single choices or counts |
| `.gguf` | llama.cpp's `llama-imatrix` | counts of every expert |
| `.npy`, `.json` | vLLM's and SGLang's routed experts of one answer | single choices |
| `.pt` | SGLang's expert distribution recorder | needs torch: `adapters/workers/sglang_routing.py` turns it into `.npz` |

It knows no figure that is made of them. Unverified, because only read in the engines' sources: the layout of `.gguf` and of answers
with routed experts of servers; what an engine counts of requests that it preempts.
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
    """Write `file` (.npz) whole: counts, the choices where they are known, and who counted what."""
    arrays: dict[str, Any] = {"counts": routing.counts, "layers": np.array(routing.layers, np.int32)}
    if routing.choices is not None:
        arrays |= {"choices": routing.choices.experts, "sequence": routing.choices.sequence, "decoded": routing.choices.decoded}
    told = np.array(json.dumps({"model": routing.model, "source": routing.source, "experts": routing.experts}))
    with atomic(file) as draft, draft.open("wb") as out:
        np.savez_compressed(out, told=told, **arrays)


def read(file: Path) -> Routing:
    """The routing in a file of one of SUFFIXES. UserError when there is none in it."""
    readers = {".npz": _npz, ".gguf": _imatrix, ".npy": _npy, ".json": _answer}
    if file.suffix not in readers:
        raise UserError("is no file of expert counts", file=file, advice=f"known: {', '.join(SUFFIXES)}")
    try:
        return readers[file.suffix](file)
    except (ValueError, KeyError, IndexError, OSError, EOFError, TypeError, zipfile.BadZipFile) as error:
        raise UserError(f"no expert counts can be read from it ({type(error).__name__}: {error})", file=file) from error


def _npz(file: Path) -> Routing:
    # opened here: of a damaged file np.load would leave its own handle behind
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
        told = json.loads(str(stored["told"]))
        layers = tuple(int(layer) for layer in stored["layers"])
        if "choices" not in stored:
            return Routing(told["model"], told["source"], layers, stored["counts"].astype(np.int64))
        choices = Choices(stored["choices"], stored["sequence"], stored["decoded"])
        return routing_of(told["model"], told["source"], layers, int(told["experts"]), choices)


def _imatrix(file: Path) -> Routing:
    """llama-imatrix counts the rows of each expert's matrices; gate and up see the same tokens, one of them is enough."""
    import gguf

    found: dict[int, npt.NDArray[np.int64]] = {}
    for tensor in gguf.GGUFReader(file).tensors:
        if match := _IMATRIX_EXPERTS.fullmatch(tensor.name):
            found.setdefault(int(match[1]), np.asarray(tensor.data).ravel().astype(np.int64))
    if not found:
        raise ValueError("it has no counts of experts")
    layers = sorted(found)
    return Routing(file.stem, "llama.cpp imatrix", tuple(layers), np.stack([found[layer] for layer in layers]))


def _npy(file: Path) -> Routing:
    return _answers(file, [np.load(file, allow_pickle=False)])


def _answer(file: Path) -> Routing:
    """Answers of a server, one JSON object or a list of them, with `routed_experts` (base64 of a .npy file) in their choices."""
    data = json.loads(file.read_text(encoding="utf-8"))
    encoded = list(_routed_experts(data))
    if not encoded:
        raise ValueError("no answer in it has routed_experts")
    return _answers(file, [np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) for text in encoded])


def _routed_experts(data: object) -> Iterator[str]:
    if isinstance(data, dict):
        if isinstance(data.get("routed_experts"), str):
            yield data["routed_experts"]
        for value in data.values():
            yield from _routed_experts(value)
    elif isinstance(data, list):
        for value in data:
            yield from _routed_experts(value)


def _answers(file: Path, answers: list[npt.NDArray[Any]]) -> Routing:
    """Arrays [tokens, layers, top_k], one per answer. They tell neither how many experts there are beyond the highest chosen, nor
    where a prompt ends: nothing counts as decoded."""
    if any(answer.ndim != 3 for answer in answers):
        raise ValueError(f"expected arrays [tokens, layers, top_k], got {[answer.shape for answer in answers]}")
    experts = np.concatenate(answers).astype(np.int16)
    owners = np.repeat(np.arange(len(answers), dtype=np.int32), [len(answer) for answer in answers])
    choices = Choices(experts, owners, np.zeros(len(experts), np.bool_))
    source = "routed experts of a server (experts: up to the highest chosen)"
    return routing_of(file.stem, source, range(experts.shape[1]), int(experts.max()) + 1, choices)
