"""The base of all model families: the numbers that describe a model, tensors, and the interface of a family.

Tensors have GGUF names and layouts; a family defines how the tensors of a Hugging Face file are made from them. Does not know: values of
weights, file formats.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from enginebench.domain import JSON

Array = npt.NDArray[np.float32]
Problem = tuple[str, str]
"""The name of an invalid number, and the message."""

RMS_NORM_EPSILON = 1e-6
ROPE_BASE = 1e6


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    gain: float | None = None
    """Standard deviation of the output for inputs of variance one (of the values, for a `vector`); None: all values are one."""

    @property
    def vector(self) -> bool:
        """Whether it is added, not multiplied: a bias, or attention sinks."""
        return self.name.endswith((".bias", "attn_sinks.weight"))

    @property
    def full_precision(self) -> bool:
        """Whether it stays float32 in every GGUF file, as in llama.cpp: norms, biases and the router."""
        return self.gain is None or self.vector or self.name.endswith("ffn_gate_inp.weight")

    @property
    def writes_residual(self) -> bool:
        return self.name.split(".")[-2] in ("attn_output", "ffn_down", "ffn_down_exps", "ffn_down_shexp")


@dataclass(frozen=True)
class Geometry:
    """The numbers of a model. Those after `seed` exist only in some families; None: the family's default.

    A dense model has one expert, which every token uses.
    """

    architecture: str = "qwen3moe"
    layers: int = 2
    hidden: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    experts: int = 16
    top_k: int = 4
    expert_intermediate: int = 64
    context: int = 2048
    seed: int = 0
    shared_experts: int | None = None
    dense_layers: int | None = None
    dense_intermediate: int | None = None
    expert_groups: int | None = None
    top_k_groups: int | None = None
    q_lora_rank: int | None = None
    kv_lora_rank: int | None = None
    rope_head_dim: int | None = None
    sliding_window: int | None = None
    vocabulary: int | None = None
    """Every family: tokens of the embedding and the head; those beyond the tokenizer's are never made. None: the tokenizer's."""
    distinct_layers: int | None = None
    """Every family: layers with weights of their own; layer N has those of layer N modulo this number. None: all of them."""

    def need(self, name: str) -> int:
        value: int = getattr(self, name)
        return value


def unchanged(values: Array) -> Array:
    return values


@dataclass(frozen=True)
class Stored:
    """Consecutive tensors of a Hugging Face file that are written as one array."""

    parts: tuple[tuple[str, tuple[int, ...]], ...]
    """Name and shape of each tensor."""
    sources: tuple[Tensor, ...]
    make: Callable[..., Array] = unchanged
    """Makes the array from the values of `sources`."""


@dataclass(frozen=True)
class Packed:
    """Bytes of a Hugging Face file that hold quantised weights: random bits, or scales that are all the same."""

    name: str
    shape: tuple[int, ...]
    source: Tensor
    """Whose seed and standard deviation they have."""
    scales: bool = False


class Family(ABC):
    """One model family. Subclass it, set the class attributes and implement `block` and `config`."""

    name: ClassVar[str]
    """The name in scenarios and references."""
    gguf: ClassVar[str]
    """`general.architecture` of a GGUF file."""
    hf_class: ClassVar[str]
    hf_type: ClassVar[str]
    """`architectures` and `model_type` of config.json."""
    counted_as: ClassVar[str | None] = None
    """The `model_type` whose dimensions mean the same, for sizes and ceilings; None: `enginebench.physics.config` knows `hf_type`."""
    names: ClassVar[Mapping[str, str]]
    """Tensors of a block: GGUF name -> Hugging Face name, with {expert} for the number of an expert that has its own tensor."""
    paired_rotation: ClassVar[bool] = False
    """For RoPE, llama.cpp pairs neighbouring lanes of a head, transformers pairs lane i with i + half: permute the rows of q and k."""

    def choices(self, g: Geometry) -> dict[str, int]:
        return {}

    def problem(self, g: Geometry) -> Problem | None:
        return None

    @abstractmethod
    def block(self, g: Geometry, layer: int) -> list[Tensor]:
        """The tensors of one layer, named without `blk.N.`. Shapes are (out, in), with experts stacked in front."""

    def metadata(self, g: Geometry) -> dict[str, bool | int | float | str]:
        """GGUF keys in addition to the common ones (these win), without the architecture's prefix."""
        return {}

    @abstractmethod
    def config(self, g: Geometry) -> dict[str, JSON]:
        """Keys of config.json in addition to the common ones (these win)."""

    def stored(self, g: Geometry, layer: str, tensors: Mapping[str, Tensor]) -> list[Stored]:
        """The tensors of one layer in a Hugging Face file. layer: prefix of their names. tensors: of `block`, by short name."""
        return [self._one(g, layer, kind, tensor) for kind, tensor in tensors.items()]

    def packed(self, g: Geometry, layer: str, tensors: Mapping[str, Tensor]) -> list[Packed]:
        """The experts of one layer in MXFP4, in place of those of `stored`; empty where the family has no such files."""
        return []

    def _one(self, g: Geometry, layer: str, kind: str, tensor: Tensor) -> Stored:
        name = layer + self.names[kind]
        if "{expert}" in name:
            experts = range(tensor.shape[0])
            return Stored(tuple((name.format(expert=expert), tensor.shape[1:]) for expert in experts), (tensor,))
        if self.paired_rotation and kind in ("attn_q.weight", "attn_k.weight"):
            heads = g.heads if kind == "attn_q.weight" else g.kv_heads
            return Stored(((name, tensor.shape),), (tensor,), lambda values: halves_from_pairs(values, heads))
        return Stored(((name, tensor.shape),), (tensor,))


def halves_from_pairs(values: Array, heads: int) -> Array:
    """Permute the rows of a projection from pairwise rotation to rotation by halves: in each head, even lanes, then odd ones.

    The inverse of what llama.cpp's converter does to q and k of Llama.
    """
    rows, width = values.shape
    return np.ascontiguousarray(values.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width))


def grouped_query_attention(g: Geometry) -> list[Tensor]:
    """attn_norm, q, k, v and output. With gains above one all contexts become similar and the text degenerates to one token."""
    queries, keys = g.heads * g.head_dim, g.kv_heads * g.head_dim
    return [
        Tensor("attn_norm.weight", (g.hidden,)),
        Tensor("attn_q.weight", (queries, g.hidden), gain=1.0),
        Tensor("attn_k.weight", (keys, g.hidden), gain=1.0),
        Tensor("attn_v.weight", (keys, g.hidden), gain=1.0),
        Tensor("attn_output.weight", (g.hidden, queries), gain=1.0),
    ]


def routed_experts(g: Geometry, router_gain: float = 3.0) -> list[Tensor]:
    """The router and three stacked matrices.

    A high router gain gives the last selected expert little weight, so a tie that another engine decides differently hardly matters.
    """
    router = Tensor("ffn_gate_inp.weight", (g.experts, g.hidden), gain=router_gain)
    return [router, *gated_mlp("exps", g.hidden, g.expert_intermediate, (g.experts,))]


def gated_mlp(suffix: str, hidden: int, inner: int, stack: Sequence[int] = ()) -> list[Tensor]:
    """Gate, up and down matrices; suffix '' (dense), 'exps' (stacked experts) or 'shexp' (shared experts)."""
    tail = f"_{suffix}.weight" if suffix else ".weight"
    return [
        Tensor("ffn_gate" + tail, (*stack, inner, hidden), gain=1.0),
        Tensor("ffn_up" + tail, (*stack, inner, hidden), gain=1.0),
        Tensor("ffn_down" + tail, (*stack, hidden, inner), gain=2.0),
    ]


def transposed(values: Array) -> Array:
    """[experts, out, in] as [experts, in, out]."""
    return np.ascontiguousarray(values.swapaxes(1, 2))


ATTENTION_NAMES: Mapping[str, str] = {
    "attn_norm.weight": "input_layernorm.weight", "attn_q.weight": "self_attn.q_proj.weight", "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight", "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}  # fmt: skip
DENSE_NAMES: Mapping[str, str] = {f"ffn_{part}.weight": f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
EXPERT_NAMES: Mapping[str, str] = {
    "ffn_gate_inp.weight": "mlp.gate.weight",
    **{f"ffn_{part}_exps.weight": f"mlp.experts.{{expert}}.{part}_proj.weight" for part in ("gate", "up", "down")},
}
