"""Quantised weights drawn as blocks: the 4 or 6 bits of a weight come straight from the seed, so no float is made or rounded.

A file of a hundred billion weights is then made as fast as it is written. A block has a constant scale, such that the weights have the
standard deviation that floats of the same tensor have; the numbers themselves are others. Sources: the block layouts of ggml-common.h, OCP
Microscaling. Does not know: which tensor gets which type (`gguf_file`), safetensors (`hf_folder`).
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from enginebench.checkpoints.families.base import Tensor

Bytes: TypeAlias = npt.NDArray[np.uint8]
Raw: TypeAlias = Callable[[str, int], Bytes]
"""Name of a tensor and number of bytes -> random bytes, which may be overwritten."""

FP4_RMS = math.sqrt(sum(value * value for value in (0, 0.5, 1, 1.5, 2, 3, 4, 6)) / 8)
"""Root mean square of the sixteen FP4 numbers."""


@dataclass(frozen=True)
class Blocks:
    """A block type of GGML with random bits."""

    weights: int
    """In a block."""
    size: int
    """Bytes of a block."""
    fill: Callable[[Bytes, float], None]
    """Writes the scales into blocks of random bytes [n, size], for weights of this standard deviation."""


def shared_exponent(deviation: float) -> int:
    """The exponent byte (E8M0) with which random FP4 numbers have about this standard deviation: within a factor of 1.41."""
    return 127 + round(math.log2(deviation / FP4_RMS))


def _fill_mxfp4(blocks: Bytes, deviation: float) -> None:
    blocks[:, 0] = shared_exponent(deviation)


def _fill_q4_k(blocks: Bytes, deviation: float) -> None:
    """Eight sub-blocks with scale 2 and minimum 15: a weight is d (2 q - 15) with q in 0..15, whose mean is zero."""
    d = np.float16(deviation / math.sqrt((16**2 - 1) / 3))
    blocks[:, 0:2] = blocks[:, 2:4] = np.frombuffer(d.tobytes(), np.uint8)
    blocks[:, 4:16] = (2,) * 4 + (15,) * 4 + (0xF2,) * 4


def _fill_q6_k(blocks: Bytes, deviation: float) -> None:
    """Sixteen sub-blocks with scale 1: a weight is d (q - 32) with q in 0..63."""
    d = np.float16(deviation / math.sqrt((64**2 - 1) / 12 + 0.25))
    blocks[:, 192:208] = 1
    blocks[:, 208:210] = np.frombuffer(d.tobytes(), np.uint8)


BLOCKS: Mapping[str, Blocks] = {
    "mxfp4": Blocks(32, 17, _fill_mxfp4),
    "q4_k": Blocks(256, 144, _fill_q4_k),
    "q6_k": Blocks(256, 210, _fill_q6_k),
}
"""GGML's name of a block type, in lower case -> how to draw it."""


def draw(tensor: Tensor, kind: str, raw: Raw) -> Bytes:
    """The bytes of a matrix (or a stack of matrices) in one of BLOCKS, with a row of blocks as the last axis.

    The row that writes residual lane 0 is zero, as in `RandomMoE.weights`: zero bytes are weights of zero in each type. ValueError
    if a row is no whole number of blocks.
    """
    blocks, row = BLOCKS[kind], tensor.shape[-1]
    if row % blocks.weights:
        raise ValueError(f"{tensor.name}: rows of {row} weights are no whole blocks of {blocks.weights}")
    rows, width = math.prod(tensor.shape[:-1]), row // blocks.weights * blocks.size
    values = raw(tensor.name, rows * width)
    blocks.fill(values.reshape(-1, blocks.size), deviation(tensor))
    values = values.reshape(*tensor.shape[:-1], width)
    if tensor.writes_residual:
        values[..., 0, :] = 0
    return values


def deviation(tensor: Tensor) -> float:
    """Standard deviation of the weights with which outputs have that of the tensor's gain."""
    return (tensor.gain or 1.0) / math.sqrt(tensor.shape[-1])


WIDEST = {"mxfp4": 32, "q4_k_m": 256}
"""Precision -> weights of its widest block."""


def unfit(tensors: Iterable[Tensor], precision: str) -> Tensor | None:
    """A matrix whose rows are no whole number of blocks of this precision (one of WIDEST); None if all are."""
    matrices = (tensor for tensor in tensors if not tensor.full_precision and tensor.name.startswith("blk."))
    return next((tensor for tensor in matrices if tensor.shape[-1] % WIDEST[precision]), None)
