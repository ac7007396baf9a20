"""Lengths of prompts and answers: a number, a distribution, pairs to draw from, or those of the data set.

    64                      always
    uniform(64,256)         every whole number from 64 to 256 equally often
    normal(512,64)          mean and standard deviation; within 1 .. mean + 6 standard deviations
    lognormal(512,0.6)      median, and standard deviation of the logarithm; within 1 .. median * exp(4 * sigma)
    normal(512,64,16..2048) with explicit bounds, for normal and lognormal

Pairs (`lengths` of a load) are IN+OUT*WEIGHT, separated by commas. NAME: in front makes one a class of its own in the report, and IN/SHARED
says that so many of its input tokens are the same in all its requests: 'chat: 220+180*7, agent: 12000/8000+lognormal(250,0.8)*3'.

A distribution is truncated at its bounds, as if values outside were drawn again. Each length comes from one uniform number by the
inverse distribution function. Does not know texts or tokenizers.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from enginebench.domain import Length, Load
from enginebench.errors import UserError
from enginebench.workload.draws import stream, uniforms

MAX_TOKENS = 10_000_000
_FORMS = "write a number, 'uniform(64,256)', 'normal(512,64)', 'lognormal(512,0.6)' or 'normal(512,64,16..2048)'"
_CALL = re.compile(r"(uniform|normal|lognormal)\(\s*([\d.]+)\s*,\s*([\d.]+)\s*(?:,\s*(\d+)\s*\.\.\s*(\d+)\s*)?\)")
_NUMBER = re.compile(r"\d+(\.\d+)?")
_LENGTH = r"\d+|\w+\([^()]*\)"
_PAIR = re.compile(
    rf"(?:(?P<name>[\w.-]+)\s*:\s*)?(?P<entered>{_LENGTH})\s*(?:/\s*(?P<shared>\d+)\s*)?\+\s*(?P<made>{_LENGTH})\s*"
    r"(?:\*\s*(?P<weight>\d+(?:\.\d+)?))?"
)
_BETWEEN_PAIRS = re.compile(r",(?![^()]*\))")
_PAIR_ADVICE = (
    "write pairs of input+output tokens, each with a weight if it is not 1: '128+64*3, 2048+256'; with classes: 'chat: 220+180*7'"
)
_LEAST_MASS = 1e-6
_NORMAL = NormalDist()
_NORMAL_REACH, _LOGNORMAL_REACH = 6, 4
_MEAN_STEPS = 4096


@dataclass(frozen=True)
class Distribution:
    """A distribution of whole numbers from low to high, both included; low equals high if the length is a number."""

    kind: Literal["uniform", "normal", "lognormal"]
    low: int
    high: int
    centre: float = 0.0
    """Mean of a normal, median of a lognormal distribution; 0 for uniform."""
    spread: float = 0.0
    """Standard deviation of a normal, sigma of a lognormal distribution; 0 for uniform."""
    own_bounds: bool = False

    def quantile(self, u: float) -> int:
        if self.kind == "uniform":
            return self.low + int(u * (self.high - self.low + 1))
        below, above = self.mass
        score = _NORMAL.inv_cdf(min(max(below + u * (above - below), 2.0**-52), 1 - 2.0**-52))
        value = self.centre + self.spread * score if self.kind == "normal" else self.centre * math.exp(self.spread * score)
        return min(max(math.floor(value + 0.5), self.low), self.high)

    @cached_property
    def mean(self) -> float:
        if self.low == self.high:
            return float(self.low)
        return sum(self.quantile((step + 0.5) / _MEAN_STEPS) for step in range(_MEAN_STEPS)) / _MEAN_STEPS

    @cached_property
    def mass(self) -> tuple[float, float]:
        """The distribution function of the unbounded distribution at the two bounds, each widened by half for rounding."""
        edges = (self.low - 0.5, self.high + 0.5)
        if self.kind == "uniform":
            return 0.0, 1.0
        if self.kind == "normal":
            below, above = ((edge - self.centre) / self.spread for edge in edges)
        else:
            below, above = (math.log(edge / self.centre) / self.spread for edge in edges)
        return _NORMAL.cdf(below), _NORMAL.cdf(above)

    def __str__(self) -> str:
        """The canonical text, which is the same for equal lengths only."""
        if self.low == self.high:
            return str(self.low)
        if self.kind == "uniform":
            return f"uniform({self.low},{self.high})"
        bounds = f",{self.low}..{self.high}" if self.own_bounds else ""
        return f"{self.kind}({_plain(self.centre)},{_plain(self.spread)}{bounds})"


def parse(length: Length, key: str = "input_tokens") -> Distribution | None:
    """A length as a distribution; None for 'data'. UserError, with `key`, for anything else."""
    if length == "data":
        return None
    text = str(length).strip()
    if text.lstrip("-").isdecimal():
        return _checked(Distribution("uniform", int(text), int(text)), text, key)
    call = _CALL.fullmatch(text)
    if call is None or not all(_NUMBER.fullmatch(number) for number in call.groups()[1:3]):
        raise UserError(f"invalid length '{length}'", key=key, advice=_FORMS)
    kind, first, second, low, high = call.groups()
    if kind == "uniform":
        if low or not (first.isdecimal() and second.isdecimal()):
            raise UserError(f"'{length}': uniform takes the shortest and the longest length", key=key, advice="write 'uniform(64,256)'")
        return _checked(Distribution("uniform", int(first), int(second)), length, key)
    centre, spread = float(first), float(second)
    if not (0 < centre <= MAX_TOKENS and 0 < spread <= MAX_TOKENS):
        raise UserError(f"'{length}' needs two positive numbers", key=key, advice=_FORMS)
    reach = centre + _NORMAL_REACH * spread if kind == "normal" else centre * math.exp(min(_LOGNORMAL_REACH * spread, 600))
    bounds = (int(low), int(high)) if low else (1, math.floor(reach))
    return _checked(Distribution(kind, *bounds, centre, spread, bool(low)), length, key)  # type: ignore[arg-type]  # kind is matched


def _checked(found: Distribution, length: Length, key: str) -> Distribution:
    if found.low < 1:
        raise UserError(f"'{length}': a length is at least 1 token", key=key, advice=_FORMS)
    if found.high > MAX_TOKENS:
        raise UserError(f"'{length}' reaches beyond {MAX_TOKENS:,} tokens", key=key, advice="give it bounds: 'lognormal(512,0.6,16..8192)'")
    if found.low > found.high:
        raise UserError(f"'{length}': the lower bound is above the upper one", key=key, advice=_FORMS)
    below, above = found.mass
    if above - below < _LEAST_MASS:
        raise UserError(f"'{length}': almost nothing lies within these bounds", key=key, advice="widen them")
    return found


@dataclass(frozen=True)
class Lengths:
    """The lengths of a load's requests: pairs of input and output with their weights. None: from the data set or trace."""

    pairs: tuple[tuple[Distribution | None, Distribution | None], ...]
    weights: tuple[float, ...] = (1.0,)
    names: tuple[str, ...] = ("",)
    """The class of each pair; '': none."""
    shared: tuple[int, ...] = (0,)
    """Input tokens that all requests of a pair share."""

    @classmethod
    def of(cls, load: Load) -> Lengths:
        if load.lengths is None:
            entered, made = load.token_lengths
            return cls(((parse(entered), parse(made, "output_tokens")),))
        return _of_pairs(load.lengths)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; empty for a load that has none."""
        return tuple(dict.fromkeys(filter(None, self.names)))

    def choose(self, seed: int, count: int) -> list[int]:
        """The pair of each of `count` requests, as `draw` has it."""
        ends = list(accumulate(self.weights))
        drawn = uniforms(stream(seed, "lengths"), 3 * count).reshape(count, 3)[:, 0].tolist()
        return [min(bisect_right(ends, which * ends[-1]), len(ends) - 1) for which in drawn]

    def draw(self, seed: int, count: int) -> list[tuple[int | None, int | None]]:
        """Input and output tokens of `count` requests. Those of request i depend on (seed, i) alone.

        So every engine, every repeat and every later run sends the same lengths.
        """
        drawn = uniforms(stream(seed, "lengths"), 3 * count).reshape(count, 3).tolist()
        chosen = (self.pairs[place] for place in self.choose(seed, count))
        return [(a.quantile(u) if a else None, b.quantile(v) if b else None) for (a, b), (_, u, v) in zip(chosen, drawn, strict=True)]

    @property
    def largest(self) -> int | None:
        """Most input and output tokens of one request; None if they come from the data set or trace."""
        sums = [a.high + b.high if a and b else None for a, b in self.pairs]
        return None if None in sums else max(total for total in sums if total is not None)

    @property
    def mean(self) -> tuple[float, float] | None:
        total, entered, made = sum(self.weights), 0.0, 0.0
        for (a, b), weight in zip(self.pairs, self.weights, strict=True):
            if a is None or b is None:
                return None
            entered, made = entered + a.mean * weight / total, made + b.mean * weight / total
        return entered, made

    @property
    def shortest_input(self) -> int | None:
        """Fewest input tokens of one request; None if they come from the data set or trace."""
        lows = [a.low if a else None for a, _ in self.pairs]
        return None if None in lows else min(low for low in lows if low is not None)


def classes_of(load: Load, index: Sequence[int] | npt.NDArray[np.int64]) -> list[str]:
    """The class of each request by its index in the load; empty for a load without classes, and for lengths that cannot be read."""
    if load.lengths is None or ":" not in load.lengths or not len(index):
        return []
    try:
        lengths = Lengths.of(load)
    except UserError:  # of another tool's file
        return []
    chosen = lengths.choose(load.seed, int(max(index)) + 1)
    return [lengths.names[chosen[place]] for place in index] if lengths.classes else []


@lru_cache(maxsize=64)
def _of_pairs(text: str) -> Lengths:
    found = [_PAIR.fullmatch(part.strip()) for part in _BETWEEN_PAIRS.split(text)]
    parts = [match.groupdict() for match in found if match]
    if len(parts) < len(found) or not all(float(part["weight"] or 1) for part in parts):
        raise UserError(f"invalid lengths '{text}'", key="lengths", advice=_PAIR_ADVICE)
    named = [bool(part["name"]) for part in parts]
    if any(named) and not all(named):
        raise UserError(f"'{text}': either every pair has a name or none has", key="lengths", advice=_PAIR_ADVICE)
    pairs = tuple((parse(part["entered"], "lengths"), parse(part["made"], "lengths")) for part in parts)
    shared = tuple(int(part["shared"] or 0) for part in parts)
    for (entered, _), tokens in zip(pairs, shared, strict=True):
        if entered is not None and tokens >= entered.low:
            message = f"{tokens} shared tokens leave nothing of a prompt of {entered.low}"
            raise UserError(message, key="lengths", advice="they are counted within the input: 12000/8000+250 has 4,000 of its own")
    return Lengths(pairs, tuple(float(part["weight"] or 1) for part in parts), tuple(part["name"] or "" for part in parts), shared)


def _plain(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)
