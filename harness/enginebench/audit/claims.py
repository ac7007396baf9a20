"""What a file of published claims may hold: its sources, speeds, and the other `kinds` of statements. Checks the form, not the truth.

Models, hardware, engines and precisions have the names of scenarios and catalogues, so that a claim can be computed and reproduced. `says`
has the original words. Does not know: files, physics, verdicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from enginebench.audit.kinds import (
    CacheSize,
    ExpertSize,
    Features,
    Fits,
    HotExperts,
    LessCompute,
    ModelFacts,
    Positive,
    Ratio,
    Span,
    Unread,
    Weights,
)
from enginebench.domain import JSON
from enginebench.inputs.fields import Count, Few, Name, Strict

Percent = Annotated[float, Field(gt=0, le=100)]


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
    redundant_experts: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Copies of experts in a layer besides the model's."""
    shared_prefix: Count | None = None
    """Tokens of the prompt that all sequences have in common, of `isl`."""
    copies: Few = 1
    """Copies of the weights that the setup needs: 2 for separate prefill and decode servers."""
    options: dict[str, JSON] = Field(default_factory=dict)
    """Engine options, for the scenario that reproduces the claim."""
    placement: Literal["devices", "host"] | None = None
    """'devices': all weights are on the devices; 'host': some are in host memory; None: not stated."""
    device_gb: Positive | None = None
    """Weights on the devices, if placement is 'host'."""
    host_gb_s: Positive | None = None
    """Bandwidth of host memory, if the source states it."""
    concurrency: Few | None = None
    """Requests in flight."""
    batch: Few | None = None
    """Sequences in one step, if the source states them apart from the requests in flight."""
    isl: Count | None = None
    osl: Count | None = None
    output_tok_s: Positive | None = None
    output_tok_s_range: Span | None = None
    comparison: Literal["at_least"] | None = None
    ms_per_token: Positive | None = None
    ttft_ms: Positive | None = None
    prefill_tok_s: Positive | None = None
    weights_gb: Positive | None = None
    device_memory_gb: Positive | None = None
    predicted_tok_s: Positive | None = None
    bandwidth_gb_s: Positive | None = None
    """Memory bandwidth of one device, as the source states it; of a device that the catalogue lacks, all that is known of it."""
    bandwidth_used_pct: Percent | None = None
    price_per_hour: Positive | None = None
    """Rent of one device."""
    price_per_million: Positive | None = None
    """Price of a million output tokens. With `price_per_hour` it implies a rate."""
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
            rate = 1000 / self.ms_per_token * (self.batch or self.concurrency or 1)
            return rate, rate
        return None

    @property
    def streams(self) -> int | None:
        """Sequences in one step at most: the larger of what is stated, which favours the claim."""
        stated = [number for number in (self.batch, self.concurrency) if number is not None]
        return max(stated) if stated else None

    @property
    def parallelism_text(self) -> str:
        """'tp=4 ep=4'; empty on one device."""
        degrees = ("tp", "pp", "dp_replicas", "attention_dp", "ep")
        return " ".join(f"{name}={getattr(self, name)}" for name in degrees if getattr(self, name) != 1)


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
    expert_sizes: list[ExpertSize] = Field(default_factory=list)
    compute: list[LessCompute] = Field(default_factory=list)
    kv_cache: list[CacheSize] = Field(default_factory=list)
    features: list[Features] = Field(default_factory=list)
    unread: list[Unread] = Field(default_factory=list)

    def __len__(self) -> int:
        return sum(len(getattr(self, section)) for section in SECTIONS)


SECTIONS: Mapping[str, type[Strict]] = {
    "serving": Serving, "ratios": Ratio, "weights": Weights, "models": ModelFacts, "fits": Fits, "hot_experts": HotExperts,
    "expert_sizes": ExpertSize, "compute": LessCompute, "kv_cache": CacheSize, "features": Features, "unread": Unread,
}  # fmt: skip
"""Section of a file -> the class of its entries."""
