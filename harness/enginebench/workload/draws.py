"""Random numbers that do not change between versions of numpy.

numpy guarantees PCG64's raw stream, but not the distributions that it derives from it. So all random numbers of a workload are
derived from raw bits here. Knows nothing of what is drawn.
"""

import hashlib

import numpy as np
import numpy.typing as npt


def stream(seed: int, salt: str) -> np.random.PCG64:
    return np.random.PCG64(int.from_bytes(hashlib.sha256(f"{seed}/{salt}".encode()).digest()))


def uniforms(bits: np.random.PCG64, count: int) -> npt.NDArray[np.float64]:
    """The next `count` numbers of a stream, uniform in (0, 1), never 0 and never 1: the upper 52 bits of each draw."""
    numbers: npt.NDArray[np.float64] = ((bits.random_raw(count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return numbers


def order(count: int, bits: np.random.PCG64) -> npt.NDArray[np.int64]:
    return np.argsort(bits.random_raw(count), kind="stable")


def shuffled(values: npt.NDArray[np.int64], bits: np.random.PCG64) -> list[int]:
    mixed: list[int] = values[order(len(values), bits)].tolist()
    return mixed
