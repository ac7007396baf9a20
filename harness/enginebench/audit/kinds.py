"""The kinds of statements besides speeds: ratios, sizes, facts of a model, memory, experts, compute, features. Checks only the form."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from enginebench.inputs.fields import Count, Few, Strict

Positive = Annotated[float, Field(gt=0, le=1e15)]
Span = Annotated[list[Positive], Field(min_length=2, max_length=2)]


def _span(value: object) -> object:
    return [value, value] if isinstance(value, int | float) and not isinstance(value, bool) else value


class Ratio(Strict):
    """A claimed ratio of two rates: a / b is `stated`, or in `stated_range`. a, b: ids of speeds, or rates."""

    source: str
    says: str
    a: str | Positive
    b: str | Positive
    stated: Positive | None = None
    stated_range: Span | None = None
    concurrency: Few | None = None
    """The batch at which the ratio is said to hold."""

    @model_validator(mode="after")
    def _one_value(self) -> Ratio:
        _exactly_one(self, "stated", "stated_range")
        return self

    @property
    def span(self) -> tuple[float, float]:
        low, high = self.stated_range or (self.stated or 0.0, self.stated or 0.0)
        return low, high


class Weights(Strict):
    source: str
    model: str
    gb: dict[str, Positive] = Field(min_length=1)
    """Precision -> GB."""


class ModelFacts(Strict):
    """Claimed figures of a model. Parameters in billions; context in tokens."""

    source: str
    model: str
    total_b: Positive | None = None
    active_b: Positive | None = None
    experts: Count | None = None
    top_k: Count | None = None
    layers: Count | None = None
    context: Count | None = None


class Fits(Strict):
    """A claim about the memory that a model needs: it fits (or not), or it needs so many devices."""

    source: str
    says: str
    model: str
    precision: str | None = None
    hardware: str | None = None
    gb: Positive | None = None
    """The memory in which it is said to run, instead of all that the hardware has."""
    context: Count | None = None
    """Tokens per sequence, if the cache counts as well."""
    concurrency: Few = 1
    kv_dtype: str = "auto"
    fits: bool | None = None
    needs: Few | None = None
    """Devices of `hardware` that are needed at least."""

    @model_validator(mode="after")
    def _complete(self) -> Fits:
        _exactly_one(self, "fits", "needs")
        if self.hardware is None and (self.gb is None or self.needs is not None):
            raise PydanticCustomError("no_memory", "needs `hardware`, or `gb` for a claim that it fits")
        return self


class HotExperts(Strict):
    """A claimed share of the choices that a number of experts of a layer receive. A single number is a span of no width."""

    source: str
    says: str
    model: str
    experts: Annotated[Span, BeforeValidator(_span)]
    of: Count | None = None
    """Experts of a layer, as the source states them."""
    share: Annotated[Span, BeforeValidator(_span)]


class ExpertSize(Strict):
    """A claimed size of one routed expert, of a layer or over all layers."""

    source: str
    says: str
    model: str
    b: Positive | None = None
    """Billions of parameters."""
    precision: str | None = None
    gb: Positive | None = None
    """Size in `precision`."""

    @model_validator(mode="after")
    def _one_size(self) -> ExpertSize:
        _exactly_one(self, "b", "gb")
        if self.gb is not None and self.precision is None:
            raise PydanticCustomError("no_precision", "needs `precision` with `gb`")
        return self


class LessCompute(Strict):
    """'k times less compute per token' than a dense model of the same size, or than the model `than`."""

    source: str
    says: str
    model: str
    times: Positive
    than: str | None = None


class CacheSize(Strict):
    """A claimed size of the KV cache."""

    source: str
    says: str
    model: str
    tokens: Count = 1
    """Per sequence."""
    concurrency: Few = 1
    kv_dtype: str = "auto"
    layers: Few | None = None
    """So many layers; None: all."""
    gb: Positive | None = None
    kb: Positive | None = None

    @model_validator(mode="after")
    def _one_size(self) -> CacheSize:
        _exactly_one(self, "gb", "kb")
        return self


class Features(Strict):
    """What an engine is said to be able to do."""

    source: str
    engine: str
    has: list[str] = Field(min_length=1)


class Unread(Strict):
    """A sentence for which there is no kind of claim."""

    source: str
    says: str


def _exactly_one(entry: Strict, *names: str) -> None:
    if sum(getattr(entry, name) is not None for name in names) != 1:
        either = " or ".join(f"`{name}`" for name in names)
        raise PydanticCustomError("one_value", f"needs either {either}, exactly one of them")
