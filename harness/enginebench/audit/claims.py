"""Published claims as data: what a text says, in the harness's words, with where it says so. Reading checks form and never truth.

Models, hardware, engines and precisions carry the names that scenarios and catalogues use, so that a claim can be computed and
reproduced; `says` keeps the text's own words. It knows no physics and no verdict.
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
"""Lowest and highest value."""


class SourceEntry(Strict):
    """Where claims were published."""

    title: str
    author: str | None = None
    date: str | None = None
    url: str | None = Field(None, pattern=r"^https?://\S+$")
    note: str | None = None


class Serving(Strict):
    """A speed that is said to have been measured. Rates are output tokens/s of the whole deployment.

    placement: 'devices', all weights lie on the devices; 'host', some lie in the host's memory; None: not said. device_gb: weights
    that are said to lie on the devices then. copies: whole copies of the weights that the setup needs, 2 for a prefill and a decode
    side. options: the engine's own, for the scenario that reproduces the claim. note: what else is known about it, not from the text.
    """

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
    options: dict[str, JSON] = Field(default_factory=dict)
    placement: Literal["devices", "host"] | None = None
    device_gb: Positive | None = None
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
    perplexity: Positive | None = None
    quality_retained_pct: Positive | None = None
    note: str | None = None

    @property
    def rates(self) -> tuple[float, float] | None:
        """Lowest and highest rate that is claimed, output tokens/s; None: the claim is about something else."""
        if self.output_tok_s_range is not None:
            return self.output_tok_s_range[0], self.output_tok_s_range[1]
        if self.output_tok_s is not None:
            return self.output_tok_s, self.output_tok_s
        if self.ms_per_token is not None:
            rate = 1000 / self.ms_per_token * (self.concurrency or 1)
            return rate, rate
        return None

    @property
    def devices_shared(self) -> str:
        """How the deployment is spread, 'tp=4 ep=4'; empty on one device."""
        degrees = ("tp", "pp", "dp_replicas", "attention_dp", "ep")
        return " ".join(f"{name}={getattr(self, name)}" for name in degrees if getattr(self, name) != 1)


class Ratio(Strict):
    """What a text says follows from two of its numbers: a / b is `stated`, or lies in `stated_range`."""

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
    """Sizes of one model's weights, precision -> GB."""

    source: str
    model: str
    gb: dict[str, Positive] = Field(min_length=1)


class ModelFacts(Strict):
    """What a text says of a model. Parameters in billions; context in tokens."""

    source: str
    model: str
    total_b: Positive | None = None
    active_b: Positive | None = None
    experts: Count | None = None
    top_k: Count | None = None
    context: Count | None = None


class Fits(Strict):
    """A text's word on whether the weights of a model fit a machine."""

    source: str
    says: str
    model: str
    precision: str
    hardware: str
    fits: bool


class HotExperts(Strict):
    """So many experts of a layer are said to get so large a share of the tokens."""

    source: str
    says: str
    model: str
    experts: Span
    share: Span


class Claims(Strict):
    """A file of claims. checkpoints: model -> precision -> where the weights are, as under `models` of a scenario."""

    title: str | None = None
    sources: dict[str, SourceEntry]
    checkpoints: dict[str, dict[str, str | dict[str, str]]] = Field(default_factory=dict)
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
    """Read a file of claims. UserError with line and key for anything that is not of this form, or points at nothing."""
    source = read(file)
    try:
        claims = Claims.model_validate(source.data)
    except ValidationError as error:
        raise as_user_error(error, source, Claims) from None
    for location, word, known in _references(claims):
        if word not in known:
            raise source.error(f"'{word}' is not there", location, advice=did_you_mean(word, known))
    _check_unique(claims, source)
    if not len(claims):
        raise source.error("holds no claim", (), advice=f"write at least one entry under: {', '.join(SECTIONS)}")
    return claims


def _references(claims: Claims) -> Iterator[tuple[Location, str, set[str]]]:
    """Every name that stands for another entry of the file: where, the name, and the names there are."""
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
            raise source.error(f"duplicate id '{claim.id}'", ("serving", i, "id"), advice="an id names one claim")
        seen.add(claim.id)
