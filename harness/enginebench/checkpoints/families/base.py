"""What all families share: the numbers that describe a model, a tensor, and how a family says what it consists of.

Tensors are defined under their GGUF names and in GGUF's layout; a family says how the tensors of a Hugging Face file come from
them. It knows neither the values of weights nor how files are written.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from enginebench.domain import JSON

Array = npt.NDArray[np.float32]
Problem = tuple[str, str]
"""The name of a wrong number, and what is wrong with it."""

RMS_NORM_EPSILON = 1e-6
ROPE_BASE = 1e6


@dataclass(frozen=True)
class Tensor:
    """One tensor under its GGUF name. gain: standard deviation of its output for inputs of variance one; None: all ones.

    A vector (bias, attention sinks) is added instead of multiplied: gain is the standard deviation of its values.
    """

    name: str
    shape: tuple[int, ...]
    gain: float | None = None

    @property
    def vector(self) -> bool:
        return self.name.endswith((".bias", "attn_sinks.weight"))

    @property
    def full_precision(self) -> bool:
        """Norms, biases and the router stay float32 in every GGUF file, as llama.cpp keeps them."""
        return self.gain is None or self.vector or self.name.endswith("ffn_gate_inp.weight")

    @property
    def writes_residual(self) -> bool:
        """Whether its output is added to the residual stream."""
        return self.name.split(".")[-2] in ("attn_output", "ffn_down", "ffn_down_exps", "ffn_down_shexp")


@dataclass(frozen=True)
class Geometry:
    """The numbers of a model. Those after `seed` belong to some families only; None: the family's own choice.

    A dense model is one with a single expert that every token takes.
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

    def need(self, name: str) -> int:
        """A number that the family has chosen a value for."""
        value: int = getattr(self, name)
        return value


def as_it_is(values: Array) -> Array:
    return values


@dataclass(frozen=True)
class Stored:
    """Tensors of a Hugging Face file that lie one after another (name, shape), and the array that they are, made from `sources`."""

    parts: tuple[tuple[str, tuple[int, ...]], ...]
    sources: tuple[Tensor, ...]
    make: Callable[..., Array] = as_it_is


class Family(ABC):
    """One model family. Subclass, fill in the class attributes and say what a block consists of."""

    name: ClassVar[str]
    """The name in scenarios and references."""
    gguf: ClassVar[str]
    """`general.architecture` of a GGUF file."""
    hf_class: ClassVar[str]
    hf_type: ClassVar[str]
    """`architectures` and `model_type` of config.json."""
    names: ClassVar[Mapping[str, str]]
    """Tensors of a block: GGUF name -> Hugging Face name; {expert} stands for a number where every expert has a tensor of its own."""
    paired_rotation: ClassVar[bool] = False
    """llama.cpp turns neighbouring lanes of a head as pairs and transformers lane i with lane i + half: rows of q and k are permuted."""

    def choices(self, g: Geometry) -> dict[str, int]:
        """The family's own numbers, with the value each has when it is left out. Default: none."""
        return {}

    def problem(self, g: Geometry) -> Problem | None:
        """What this family cannot be built with. Default: nothing."""
        return None

    @abstractmethod
    def block(self, g: Geometry, layer: int) -> list[Tensor]:
        """The tensors of one layer, their names without `blk.N.`; shapes are (out, in), experts stacked in front."""

    def metadata(self, g: Geometry) -> dict[str, bool | int | float | str]:
        """GGUF keys of this family beside those of every model, without the architecture's prefix; they win over the common ones."""
        return {}

    @abstractmethod
    def config(self, g: Geometry) -> dict[str, JSON]:
        """Keys of config.json beside those of every model; they win over the common ones."""

    def stored(self, g: Geometry, layer: str, tensors: Mapping[str, Tensor]) -> list[Stored]:
        """The tensors of one layer in a Hugging Face file. layer: their prefix; tensors: those of `block` by their short names."""
        return [self._one(g, layer, kind, tensor) for kind, tensor in tensors.items()]

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
    """Rows of a projection for rotation by halves from those for rotation by pairs: of each head, the even lanes, then the odd ones.

    The inverse of what llama.cpp's converter does to Llama's q and k.
    """
    rows, width = values.shape
    return np.ascontiguousarray(values.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width))


def grouped_query_attention(g: Geometry) -> list[Tensor]:
    """attn_norm, q, k, v and output. Gains of one: with stronger attention all contexts look alike and the text becomes one token."""
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

    A decided router: the last expert chosen has little weight, so a tie that falls the other way in another engine's arithmetic
    hardly shows.
    """
    return [
        Tensor("ffn_gate_inp.weight", (g.experts, g.hidden), gain=router_gain),
        *gated_mlp("exps", g.hidden, g.expert_intermediate, (g.experts,)),
    ]


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
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}
DENSE_NAMES: Mapping[str, str] = {f"ffn_{part}.weight": f"mlp.{part}_proj.weight" for part in ("gate", "up", "down")}
EXPERT_NAMES: Mapping[str, str] = {
    "ffn_gate_inp.weight": "mlp.gate.weight",
    **{f"ffn_{part}_exps.weight": f"mlp.experts.{{expert}}.{part}_proj.weight" for part in ("gate", "up", "down")},
}
