"""Reads published claims from a YAML file. Checks the form, not the truth.

Models, hardware, engines and precisions have the names of scenarios and catalogues, so that a claim can be computed and reproduced. `says`
has the original words. Does not know: physics, verdicts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from enginebench.domain import JSON
from enginebench.errors import did_you_mean
from enginebench.inputs.fields import Count, Few, Name, Strict
from enginebench.inputs.source import Location, Source, read
from enginebench.inputs.validation_errors import as_user_error

Positive = Annotated[float, Field(gt=0, le=1e15)]
Span = Annotated[list[Positive], Field(min_length=2, max_length=2)]


class SourceEntry(Strict):
    title: str
    author: str | None = None
    date: str | None = None
    url: str | None = Field(None, pattern=r"^https?://\S+$")
    note: str | None = None


class Serving(Strict):
    """A claimed performance measurement. Rates are output tokens/s of the whole deployment."""

    id: Name
    source: str
    says: str | None = None
    engine: str | None = None
    engine_version: str | None = None
    model: str
    precision: str | None = None
    hardware: str | None = None
    tp: Few = 1
    pp: Few = 1
    dp_replicas: Few = 1
    attention_dp: Few = 1
    ep: Few = 1
    copies: Few = 1
    """Copies of the weights that the setup needs: 2 for separate prefill and decode servers."""
    options: dict[str, JSON] = Field(default_factory=dict)
    """Engine options, for the scenario that reproduces the claim."""
    placement: Literal["devices", "host"] | None = None
    """'devices': all weights are on the devices; 'host': some are in host memory; None: not stated."""
    device_gb: Positive | None = None
    """Weights on the devices, if placement is 'host'."""
    concurrency: Few | None = None
    isl: Count | None = None
    osl: Count | None = None
    output_tok_s: Positive | None = None
    output_tok_s_range: Span | None = None
    comparison: Literal["at_least"] | None = None
    ms_per_token: Positive | None = None
    ttft_ms: Positive | None = None
    weights_gb: Positive | None = None
    device_memory_gb: Positive | None = None
    predicted_tok_s: Positive | None = None
    bandwidth_gb_s: Positive | None = None
    """Memory bandwidth of one device, as the source states it."""
    projected: bool = False
    """The source computed the rate, and did not measure it."""
    perplexity: Positive | None = None
    quality_retained_pct: Positive | None = None
    note: str | None = None
    """Additional knowledge that is not in the text."""

    @property
    def rates(self) -> tuple[float, float] | None:
        """Lowest and highest claimed rate, output tokens/s; None if the claim states no rate."""
        if self.output_tok_s_range is not None:
            return self.output_tok_s_range[0], self.output_tok_s_range[1]
        if self.output_tok_s is not None:
            return self.output_tok_s, self.output_tok_s
        if self.ms_per_token is not None:
            rate = 1000 / self.ms_per_token * (self.concurrency or 1)
            return rate, rate
        return None

    @property
    def paced(self) -> float | None:
        """Output tokens/s that the stated streams and time per token allow; None if one of them is not stated."""
        return self.concurrency * 1000 / self.ms_per_token if self.concurrency and self.ms_per_token else None

    @property
    def parallelism_text(self) -> str:
        """'tp=4 ep=4'; empty on one device."""
        degrees = ("tp", "pp", "dp_replicas", "attention_dp", "ep")
        return " ".join(f"{name}={getattr(self, name)}" for name in degrees if getattr(self, name) != 1)


class Ratio(Strict):
    """A claimed ratio of two rates: a / b is `stated`, or in `stated_range`."""

    source: str
    says: str
    a: str
    b: str
    stated: Positive | None = None
    stated_range: Span | None = None
    concurrency: Few | None = None

    @model_validator(mode="after")
    def _one_value(self) -> Ratio:
        if (self.stated is None) == (self.stated_range is None):
            raise PydanticCustomError("one_value", "needs either `stated` or `stated_range`, exactly one of them")
        return self


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
    context: Count | None = None


class Fits(Strict):
    """A claim about whether the weights of a model fit a machine."""

    source: str
    says: str
    model: str
    precision: str
    hardware: str
    fits: bool


class HotExperts(Strict):
    """A claimed share of tokens that a number of experts of a layer receive."""

    source: str
    says: str
    model: str
    experts: Span
    share: Span


class Claims(Strict):
    title: str | None = None
    sources: dict[str, SourceEntry]
    checkpoints: dict[str, dict[str, str | dict[str, str]]] = Field(default_factory=dict)
    """Model -> precision -> location of the weights, as under `models` of a scenario."""
    serving: list[Serving] = Field(default_factory=list)
    ratios: list[Ratio] = Field(default_factory=list)
    weights: list[Weights] = Field(default_factory=list)
    models: list[ModelFacts] = Field(default_factory=list)
    fits: list[Fits] = Field(default_factory=list)
    hot_experts: list[HotExperts] = Field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(getattr(self, section)) for section in SECTIONS)


SECTIONS = ("serving", "ratios", "weights", "models", "fits", "hot_experts")


def read_claims(file: Path) -> Claims:
    """Read a file of claims. UserError with line and key for an invalid entry or a reference to a missing one."""
    source = read(file)
    try:
        claims = Claims.model_validate(source.data)
    except ValidationError as error:
        raise as_user_error(error, source, Claims) from None
    for location, name, known in _references(claims):
        if name not in known:
            raise source.error(f"unknown entry '{name}'", location, advice=did_you_mean(name, known))
    _check_unique(claims, source)
    if not len(claims):
        raise source.error("contains no claim", (), advice=f"write at least one entry under: {', '.join(SECTIONS)}")
    return claims


def _references(claims: Claims) -> Iterator[tuple[Location, str, set[str]]]:
    """Every reference to another entry of the file: its location, the name, and the valid names."""
    ids = {claim.id for claim in claims.serving if claim.rates is not None}
    for section in SECTIONS:
        for i, entry in enumerate(getattr(claims, section)):
            yield (section, i, "source"), entry.source, set(claims.sources)
    for i, ratio in enumerate(claims.ratios):
        yield ("ratios", i, "a"), ratio.a, ids
        yield ("ratios", i, "b"), ratio.b, ids


def _check_unique(claims: Claims, source: Source) -> None:
    seen: set[str] = set()
    for i, claim in enumerate(claims.serving):
        if claim.id in seen:
            raise source.error(f"duplicate id '{claim.id}'", ("serving", i, "id"), advice="ids must be unique")
        seen.add(claim.id)
