"""Which experts llama.cpp chooses, for any GGUF with experts: its evaluation callback hands over every tensor `ffn_moe_topk`.

Calls the C functions that the wheel of xllamacpp exports, or the library of llama-cpp-python. Greedy, one sequence at a time, so that rows
are tokens in order. Every token asks for logits: llama.cpp drops the rows of the others before the experts of the last layer.
"""

import ctypes as c
import importlib.util
import os
import re
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worker_protocol import Flat, run_routing

PARAMS_BYTES = 2048
"""More than any of llama.cpp's parameter structs: passed by value, the rest is ignored."""
UBATCH = 512
_TOPK = re.compile(rb"ffn_moe_topk-(\d+)")
_ON_EVALUATION = c.CFUNCTYPE(c.c_bool, c.c_void_p, c.c_bool, c.c_void_p)
_ON_LOG = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
_ERROR = 4
"""GGML_LOG_LEVEL_ERROR."""


class _Params(c.Structure):
    _fields_ = [("raw", c.c_uint8 * PARAMS_BYTES)]


class _Batch(c.Structure):
    _fields_ = [
        ("n_tokens", c.c_int32), ("token", c.POINTER(c.c_int32)), ("embd", c.c_void_p), ("pos", c.POINTER(c.c_int32)),
        ("n_seq_id", c.POINTER(c.c_int32)), ("seq_id", c.POINTER(c.POINTER(c.c_int32))), ("logits", c.POINTER(c.c_int8)),
    ]  # fmt: skip


_VOID, _TEXT = c.c_void_p, c.c_char_p
_FUNCTIONS: Mapping[str, tuple[Any, tuple[Any, ...]]] = {
    "llama_backend_init": (None, ()), "llama_log_set": (None, (_ON_LOG, _VOID)), "llama_model_default_params": (_Params, ()),
    "llama_context_default_params": (_Params, ()), "llama_model_load_from_file": (_VOID, (_TEXT, _Params)),
    "llama_init_from_model": (_VOID, (_VOID, _Params)), "llama_model_get_vocab": (_VOID, (_VOID,)),
    "llama_model_meta_val_str": (c.c_int32, (_VOID, _TEXT, _TEXT, c.c_size_t)), "llama_get_memory": (_VOID, (_VOID,)),
    "llama_memory_clear": (None, (_VOID, c.c_bool)), "llama_batch_init": (_Batch, (c.c_int32, c.c_int32, c.c_int32)),
    "llama_decode": (c.c_int32, (_VOID, _Batch)), "llama_sampler_init_greedy": (_VOID, ()),
    "llama_sampler_sample": (c.c_int32, (_VOID, _VOID, c.c_int32)), "ggml_get_name": (_TEXT, (_VOID,)),
    "llama_tokenize": (c.c_int32, (_VOID, _TEXT, c.c_int32, c.POINTER(c.c_int32), c.c_int32, c.c_bool, c.c_bool)),
    "ggml_nbytes": (c.c_size_t, (_VOID,)), "ggml_nrows": (c.c_int64, (_VOID,)), "ggml_nelements": (c.c_int64, (_VOID,)),
    "ggml_backend_tensor_get": (None, (_VOID, _VOID, c.c_size_t, c.c_size_t)),
}  # fmt: skip


class Library:
    """llama.cpp's C functions, from whichever package of this environment has them."""

    def __init__(self) -> None:
        self._parts = [c.CDLL(str(file)) for file in _files()]
        for name, (result, arguments) in _FUNCTIONS.items():
            function = next((getattr(part, name) for part in self._parts if hasattr(part, name)), None)
            if function is None:
                raise RuntimeError(f"this build of llama.cpp has no {name}")
            function.restype, function.argtypes = result, list(arguments)
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:  # the functions, for type checkers
        raise AttributeError(name)


def _files() -> Iterator[Path]:
    """The shared libraries with llama.cpp's and ggml's C functions."""
    for package, pattern in (("xllamacpp", "*.abi3.so"), ("llama_cpp", "lib/lib*.so"), ("llama_cpp", "lib/lib*.dylib")):
        spec = importlib.util.find_spec(package)
        found = sorted(Path(spec.submodule_search_locations[0]).glob(pattern)) if spec and spec.submodule_search_locations else []
        if found:
            importlib.import_module(package)  # loads what the library itself depends on
            yield from found
            return
    raise RuntimeError("neither xllamacpp nor llama-cpp-python is installed here")


def context_params(defaults: bytes, context: int, callback: Any) -> _Params:
    """The parameters of a context, without a header of this build: fields were added over time, so the callback is found by its neighbours.

    n_ctx, n_batch, n_ubatch and n_seq_max come first, with known defaults. cb_eval and its data are the two null pointers before the types
    of K and V, which are both f16 (1). RuntimeError if that is not exactly one place.
    """
    places = [
        at for at in range(32, 512, 8) if defaults[at : at + 16] == bytes(16) and struct.unpack_from("<2i", defaults, at + 16) == (1, 1)
    ]
    if len(places) != 1 or struct.unpack_from("<4I", defaults) != (512, 2048, 512, 1):
        raise RuntimeError("the parameters of this build of llama.cpp have an unknown layout")
    raw = bytearray(defaults)
    struct.pack_into("<3I", raw, 0, context, context, min(context, UBATCH))
    struct.pack_into("<Q", raw, places[0], c.cast(callback, c.c_void_p).value)
    return _Params.from_buffer_copy(raw)


class Model:
    """A loaded model that records the experts of every token: `chosen`, layer -> indices, top_k per token."""

    def __init__(self, file: str, context: int) -> None:
        self.library = lib = Library()
        self.chosen: dict[int, array[int]] = {}
        self.top_k = 0
        self._error = ""
        os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # a failed assertion is one line then, without gdb
        self._callbacks = (_ON_LOG(self._log), _ON_EVALUATION(self._evaluated))  # must live as long as the model
        lib.llama_log_set(self._callbacks[0], None)
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(file.encode(), lib.llama_model_default_params())
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {file}: {self._error.strip() or 'no reason given'}")
        self.experts = self._number("expert_count")
        if not self.experts:
            raise ValueError(f"{self._text('general.architecture')} without experts: the model is dense")
        params = context_params(bytes(lib.llama_context_default_params()), context, self._callbacks[1])
        self._context = lib.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"llama.cpp cannot make a context of {context} tokens: {self._error.strip() or 'no reason given'}")
        self._batch, self._sampler = lib.llama_batch_init(context, 0, 1), lib.llama_sampler_init_greedy()

    def ids(self, text: str, most: int) -> list[int]:
        """The first `most` tokens of a text, with those that the model adds before it."""
        raw = text.encode()
        room = (c.c_int32 * (len(raw) + 8))()
        found = self.library.llama_tokenize(self.library.llama_model_get_vocab(self._model), raw, len(raw), room, len(room), True, False)  # noqa: FBT003
        return list(room[: min(found, most)])

    def run(self, prompt: Sequence[int], output_tokens: int) -> int:
        """Generate greedily after a prompt. Returns the tokens whose experts were recorded: the last one is never an input."""
        self.library.llama_memory_clear(self.library.llama_get_memory(self._context), True)  # noqa: FBT003
        self._decode(prompt, 0)
        for step in range(output_tokens - 1):
            token = self.library.llama_sampler_sample(self._sampler, self._context, -1)
            self._decode([token], len(prompt) + step)
        return len(prompt) + output_tokens - 1

    def _decode(self, tokens: Sequence[int], start: int) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place], batch.n_seq_id[place], batch.logits[place] = token, start + place, 1, 1
            batch.seq_id[place][0] = 0
        if code := self.library.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {code}: {self._error.strip()}")

    def _evaluated(self, tensor: int, ask: bool, _data: object) -> bool:  # the signature of ggml's callback
        """Called before (ask) and after each tensor is computed; the first answer says whether its data are wanted."""
        found = _TOPK.fullmatch(self.library.ggml_get_name(tensor))
        if ask or found is None:
            return found is not None or not ask
        size, rows = self.library.ggml_nbytes(tensor), self.library.ggml_nrows(tensor)
        raw, self.top_k = (c.c_int32 * (size // 4))(), self.library.ggml_nelements(tensor) // rows
        self.library.ggml_backend_tensor_get(tensor, raw, 0, size)
        stride = (size // 4 - self.top_k) // (rows - 1) if rows > 1 else self.top_k  # a view of all experts in order, or only the first
        into = self.chosen.setdefault(int(found[1]), array("h"))
        for row in range(rows):
            into.extend(raw[row * stride : row * stride + self.top_k])
        return True

    def _log(self, level: int, text: bytes, _data: object) -> None:
        if level == _ERROR:
            self._error = text.decode(errors="replace")

    def _number(self, name: str) -> int:
        return int(self._text(f"{self._text('general.architecture')}.{name}") or 0)

    def _text(self, key: str) -> str:
        room = c.create_string_buffer(256)
        return room.value.decode() if self.library.llama_model_meta_val_str(self._model, key.encode(), room, len(room)) >= 0 else ""


def collect(job: Mapping[str, Any]) -> dict[str, Any]:
    model = Model(job["model"], job["input_tokens"] + job["output_tokens"])
    sequence, decoded = array("i"), array("b")
    for number, given in enumerate(job["prompts"]):
        prompt = model.ids(given, job["input_tokens"]) if isinstance(given, str) else given
        tokens = model.run(prompt, job["output_tokens"])
        sequence.extend([number] * tokens)
        decoded.extend(place >= len(prompt) for place in range(tokens))
    layers, top_k, tokens = sorted(model.chosen), model.top_k, len(sequence)
    if any(len(model.chosen[layer]) != tokens * top_k for layer in layers) or not layers:
        seen = {layer: len(model.chosen[layer]) // max(1, top_k) for layer in layers}
        raise RuntimeError(f"llama.cpp reported the experts of {seen} tokens by layer, not of {tokens}")
    experts = array("h", bytes(2 * tokens * len(layers) * top_k))
    for place, layer in enumerate(layers):
        for rank in range(top_k):
            experts[place * top_k + rank :: len(layers) * top_k] = model.chosen[layer][rank::top_k]
    return {
        "choices": Flat("<i2", (tokens, len(layers), top_k), experts.tobytes()), "sequence": Flat("<i4", (tokens,), sequence.tobytes()),
        "decoded": Flat("|b1", (tokens,), decoded.tobytes()), "layers": Flat("<i4", (len(layers),), array("i", layers).tobytes()),
        "experts": model.experts,
    }  # fmt: skip


def version() -> str:
    """'llama.cpp of xllamacpp 2026.10.11549'."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    for package in ("xllamacpp", "llama-cpp-python"):
        try:
            return f"llama.cpp of {package} {installed(package)}"
        except PackageNotFoundError:
            continue
    return "llama.cpp"


if __name__ == "__main__":
    sys.exit(run_routing(collect, f"{version()}, evaluation callback"))
