"""The roles of weights, and the number of weights of one role in one layer."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias


class Role(StrEnum):
    """The role of a weight. It determines how the weight is split over devices, stored, and how often it is read."""

    EMBEDDING = "embedding"
    """The input table. Only one row per token is read."""
    LOOKUP = "lookup tables"
    """Tables besides that of the vocabulary: embeddings of each layer, or of n-grams. Only a few rows per token are read."""
    HEAD = "head"
    ATTENTION = "attention"
    """Weights of query heads: queries and output."""
    RECURRENT = "recurrent layers"
    """Mamba, linear attention and short convolutions, which keep a state instead of keys and values."""
    KEYS = "keys and values"
    """Weights of key-value heads; replicated if there are more ranks than such heads."""
    LATENT = "latent"
    """Down-projections of multi-head latent attention, what chooses the tokens of sparse attention, and other narrow matrices. They are
    replicated on every rank."""
    DENSE = "dense MLP"
    SHARED = "shared experts"
    EXPERT = "routed experts"
    ROUTER = "router"
    NORM = "norms"
    OTHER = "other"
    """In the file, but not used to decode text: a vision tower, layers for multi-token prediction."""


Tables: TypeAlias = Literal["both", "head", "none"]
"""Vocabulary tables included in a number of active weights: input and head, only the head, or neither. A tied table counts once."""

FFN = frozenset({Role.DENSE, Role.SHARED, Role.EXPERT})


@dataclass(frozen=True)
class Part:
    role: Role
    layer: int
    """-1: before the first layer; the number of layers: after the last."""
    params: int
