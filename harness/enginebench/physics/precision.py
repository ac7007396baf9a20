"""Bits per weight and arithmetic of each precision name in scenarios, per role.

Includes scales and zero points. Mixtures (q4_k_m) are averages over the layers by llama.cpp's rules; for a local file its real sizes are
used (`enginebench.physics.files`). Sources: block layouts of GGML (ggml-common.h), `llama_tensor_get_type` of llama.cpp, OCP Microscaling
for mxfp4/mxfp8, NVIDIA's NVFP4 (16 weights share a byte).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from enginebench.errors import UserError, did_you_mean
from enginebench.physics.geometry import FFN, Role

GGML_BITS: Mapping[str, float] = {
    "f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q5_1": 6, "q5_0": 5.5, "q4_1": 5, "q4_0": 4.5,
    "q6_k": 6.5625, "q5_k": 5.5, "q4_k": 4.5, "q3_k": 3.4375, "q2_k": 2.625,
    "iq4_nl": 4.5, "iq4_xs": 4.25, "iq3_s": 3.4375, "iq3_xxs": 3.0625, "iq2_s": 2.5625, "iq2_xs": 2.3125, "iq2_xxs": 2.0625,
    "iq1_m": 1.75, "iq1_s": 1.5625, "tq2_0": 2.0625, "tq1_0": 1.6875, "mxfp4": 4.25, "nvfp4": 4.5,
}  # fmt: skip
"""Bits per weight of one GGML block type."""

_SIXTEEN = frozenset({Role.EMBEDDING, Role.LOOKUP, Role.HEAD, Role.ROUTER, Role.NORM, Role.OTHER})
"""Roles that stay at 16 bits when an engine quantises the matrices of the layers."""
_FULL = frozenset({Role.ROUTER, Role.NORM})
"""Roles that llama.cpp keeps in F32."""


@dataclass(frozen=True)
class Precision:
    name: str
    bits: Mapping[Role, float]
    """Per weight."""
    arithmetic: tuple[str, ...] = ("bf16",)
    """Formats of its products, fastest first; the first that the device supports is used."""


def precision(name: str, *, gguf: bool = False) -> Precision:
    """The precision with this name ('fp8', 'q4_k_m', 'ud-q4_k_xl', 'exl3_3.5bpw', '4bit', ...). UserError if it is unknown.

    gguf: in a GGUF file, where `mxfp4` is llama.cpp's MXFP4_MOE: Q8_0 outside of the experts, which other engines keep in 16 bits.
    """
    word = _SPELLINGS.get(name.lower(), name.lower())
    if gguf and word == "mxfp4":
        return replace(_PRECISIONS["mxfp4_moe"], name=word)
    if word in _PRECISIONS:
        return _PRECISIONS[word]
    if found := re.fullmatch(r"exl3[_-](\d+(?:\.\d+)?)bpw", word):
        return _quantised(word, {Role.EMBEDDING: 16, Role.HEAD: 6}, float(found[1]) + 0.01, ("bf16",))
    if found := re.fullmatch(r"([234568])bit", word):
        bits = int(found[1]) + 0.5  # in MLX, 64 weights share a 16-bit scale and a 16-bit bias
        return _quantised(word, dict.fromkeys((Role.EMBEDDING, Role.LOOKUP, Role.HEAD), bits), bits, ("bf16",))
    raise UserError(f"unknown precision '{name}'", key="precision", advice=did_you_mean(name, names()))


def names() -> tuple[str, ...]:
    """Every name, with one example for each pattern."""
    return (*_PRECISIONS, "exl3_3.5bpw", "4bit")


def _quantised(name: str, outside: Mapping[Role, float], inside: float, arithmetic: tuple[str, ...]) -> Precision:
    """The matrices of the layers have `inside` bits, other roles those in `outside`, or 16."""
    return Precision(name, {role: outside.get(role, 16 if role in _SIXTEEN else inside) for role in Role}, arithmetic)


def _ggml(name: str, *, matrices: float, down: float, attention: float, keys: float, table: float, head: float) -> Precision:
    """matrices: bits of gate and up of every MLP, averaged with `down`. llama.cpp multiplies quantised weights as integers."""
    mlp = (2 * matrices + down) / 3
    special = {Role.ATTENTION: attention, Role.KEYS: keys, Role.LATENT: matrices, Role.HEAD: head, Role.OTHER: 16}
    special |= dict.fromkeys((Role.EMBEDDING, Role.LOOKUP), table)
    bits = {role: special.get(role, 32 if role in _FULL else mlp if role in FFN else matrices) for role in Role}
    return Precision(name, bits, ("int8", "bf16"))


def _blend(layers: float, more: str, less: str) -> float:
    """Mean bits if a share of the layers has type `more` and the others have `less`."""
    return layers * GGML_BITS[more] + (1 - layers) * GGML_BITS[less]


def _k_mix(name: str, base: str, down: float, output: str, values: float) -> Precision:
    """output: type of the attention output matrix. values: bits of V. Queries and keys have the base type, the head Q6_K."""
    bits = GGML_BITS[base]
    attention, keys = (bits + GGML_BITS[output]) / 2, (bits + values) / 2
    return _ggml(name, matrices=bits, down=down, attention=attention, keys=keys, table=bits, head=GGML_BITS["q6_k"])


def _uniform(names: Iterable[str], head: str | None) -> dict[str, Precision]:
    """One type for all matrices. head: type of the head; None: the same."""
    types = {name: GGML_BITS[name] for name in names}
    return {
        name: _ggml(name, matrices=bits, down=bits, attention=bits, keys=bits, table=bits, head=GGML_BITS[head or name])
        for name, bits in types.items()
    }


_MORE = 0.5
"""Share of the layers that `use_more_bits` selects: the first and last eighth, and every third between."""
_NOMINAL = {"iq3_m": 3.66, "iq3_xs": 3.3, "iq2_m": 2.7}
"""Mixtures of i-quants, with llama.cpp's nominal bits per weight."""

_PRECISIONS: dict[str, Precision] = {
    "f32": Precision("f32", dict.fromkeys(Role, 32), ("fp32", "bf16")),
    "f16": Precision("f16", dict.fromkeys(Role, 16)),
    "bf16": Precision("bf16", dict.fromkeys(Role, 16)),
    "fp8": _quantised("fp8", {}, 8, ("fp8", "bf16")),
    "mxfp8": _quantised("mxfp8", {}, 8.25, ("fp8", "bf16")),
    "int8": _quantised("int8", {}, 8, ("int8", "bf16")),
    "int4": _quantised("int4", {}, 4.15625, ("bf16",)),
    "awq": _quantised("awq", {}, 4.15625, ("bf16",)),
    "gptq": _quantised("gptq", {}, 4.15625, ("bf16",)),
    "nvfp4": _quantised("nvfp4", {}, 4.5, ("fp4", "bf16")),
    "w4afp8": _quantised("w4afp8", dict.fromkeys(frozenset(Role) - _SIXTEEN - {Role.EXPERT}, 8.0), 4.125, ("fp8", "bf16")),
    "mxfp4": _quantised("mxfp4", dict.fromkeys(frozenset(Role) - {Role.EXPERT}, 16.0), 4.25, ("fp4", "fp8", "bf16")),
    "mxfp4_all": _quantised("mxfp4_all", {Role.HEAD: 4.25}, 4.25, ("fp4", "fp8", "bf16")),
    "mxfp4_moe": Precision(
        "mxfp4_moe", {role: 4.25 if role == Role.EXPERT else 32 if role in _FULL else 8.5 for role in Role}, ("fp4", "int8", "bf16")
    ),
    **_uniform(("q8_0", "q6_k"), None),
    **_uniform(("q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "iq3_s", "iq3_xxs", "tq2_0", "tq1_0"), "q6_k"),
    **_uniform(("iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s"), "q5_k"),
    "iq4_xs": _k_mix("iq4_xs", "iq4_xs", _blend(0.125, "q5_k", "iq4_xs"), "iq4_xs", GGML_BITS["q5_k"]),
    "q5_k_m": _k_mix("q5_k_m", "q5_k", _blend(_MORE, "q6_k", "q5_k"), "q5_k", _blend(_MORE, "q6_k", "q5_k")),
    "q5_k_s": _k_mix("q5_k_s", "q5_k", GGML_BITS["q5_k"], "q5_k", GGML_BITS["q5_k"]),
    "q4_k_m": _k_mix("q4_k_m", "q4_k", _blend(_MORE, "q6_k", "q4_k"), "q4_k", _blend(_MORE, "q6_k", "q4_k")),
    "q4_k_s": _k_mix("q4_k_s", "q4_k", _blend(0.125, "q5_k", "q4_k"), "q4_k", _blend(0.125, "q5_k", "q4_k")),
    "q3_k_l": _k_mix("q3_k_l", "q3_k", GGML_BITS["q5_k"], "q5_k", GGML_BITS["q5_k"]),
    "q3_k_m": _k_mix("q3_k_m", "q3_k", _blend(0.0625, "q5_k", "q4_k"), "q4_k", _blend(0.0625, "q5_k", "q4_k")),
    "q3_k_s": _k_mix("q3_k_s", "q3_k", GGML_BITS["q3_k"], "q3_k", GGML_BITS["q3_k"]),
    "q2_k": _k_mix("q2_k", "q2_k", GGML_BITS["q3_k"], "q3_k", GGML_BITS["q4_k"]),
    "q2_k_s": _k_mix("q2_k_s", "q2_k", _blend(0.125, "q4_k", "q2_k"), "q2_k", GGML_BITS["q4_k"]),
}  # fmt: skip
_PRECISIONS |= {
    name: _ggml(name, matrices=bits, down=bits, attention=bits, keys=bits, table=GGML_BITS["iq3_s"], head=GGML_BITS["q6_k"])
    for name, bits in _NOMINAL.items()
}

_UNSLOTH = {
    "ud-iq1_s": 2.17, "ud-iq1_m": 2.3, "ud-iq2_xxs": 2.56, "ud-iq2_m": 2.75, "ud-q2_k_xl": 2.86, "ud-iq3_xxs": 3.2, "ud-q3_k_xl": 3.75,
    "ud-q4_k_xl": 4.8, "ud-q5_k_xl": 5.7, "ud-q6_k_xl": 6.8, "ud-q8_k_xl": 9.0,
}  # fmt: skip
"""Unsloth's dynamic quantisations -> bits per weight of the MLPs and experts. They give down-projections and some layers more than the name
says; from the sizes of the Llama 4 Scout files (33.8, 35.4, 38.6, 42.2, 52.9, 65.6 GB), with 5.5 bits elsewhere. Another model's differ by
up to a tenth: the real sizes are in the file."""
for _name, _bits in _UNSLOTH.items():
    _more = max(_bits, 5.5)
    _mix = _ggml(_name, matrices=_bits, down=_bits, attention=_more, keys=_more, table=_more, head=GGML_BITS["q6_k"])
    _PRECISIONS[_name] = replace(_mix, bits={**_mix.bits, Role.SHARED: _more, Role.LATENT: _more})

_SPELLINGS: Mapping[str, str] = {
    "fp32": "f32", "fp16": "f16", "float16": "f16", "bfloat16": "bf16", "float32": "f32", "none": "bf16", "w4a8": "w4afp8",
}  # fmt: skip
