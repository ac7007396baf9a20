"""One entry of `loads` as it may be written. `rules` checks what goes with what, `defaults` fills in what is not written."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from enginebench.inputs.fields import (
    Expression,
    Factor,
    Limit,
    ListOf,
    Rate,
    Seconds,
    Seed,
    Strict,
    Tokens,
    Turns,
    UpTo,
    Wait,
    sweep_field,
    sweep_or,
)


class Find(Strict):
    """Search for the highest level of a load at which `slo.share` of the requests still meet the SLO.

    It starts at `from`, doubles while the SLO is met, then halves the gap (geometrically). Every probe is an ordinary stored cell.
    """

    goal: Literal["max_goodput"] = Field("max_goodput", description="max_goodput: the most requests/s within the SLO.")
    over: Literal["rate", "concurrency"] = Field(description="What is raised: `rate` in requests/s, or `concurrency` in streams.")
    start: Rate = Field(1.0, alias="from", description="Where the search begins.")
    to: Rate = Field(256.0, description="Where it ends at the latest.")
    precision: Annotated[float, Field(ge=0.01, le=1, strict=True)] = Field(
        0.1, description="It ends when the level that fails is at most this much above the one that passes."
    )


class Loads(Strict):
    """One entry of `loads`: every combination of its listed values is sent to every deployment, or to those that `only` names."""

    only: dict[Literal["engine", "model", "precision", "runtime", "label"], Annotated[list[str], ListOf]] = Field(
        default_factory=dict,
        examples=["{model: scout}"],
        description="Send these loads only to the deployments with these values, e.g. `only: {model: scout}`.",
    )
    find: Find | None = Field(
        None,
        description="Search for the heaviest of these loads that meets the `slo`, instead of a sweep over its level.",
        examples=["{goal: max_goodput, over: rate, from: 1, to: 64}"],
    )

    concurrency: Annotated[list[Limit], ListOf] | None = sweep_or(
        "Requests kept in flight (closed loop, default 1). With `rate` or `trace`: the most that may be in flight; default 0, no limit."
    )
    rate: Annotated[list[Rate], ListOf] | None = sweep_or(
        "Open loop: requests (or conversations) per second, sent when due, whatever the server does."
    )
    rate_to: Annotated[list[Rate], ListOf] | None = sweep_or("The rate rises or falls linearly from `rate` to this over the load.")
    arrivals: Annotated[list[Literal["poisson", "gamma", "constant"]], ListOf] = sweep_field(
        "poisson", "Gaps of an open loop: poisson (exponential), gamma (with `burstiness`) or constant."
    )
    burstiness: Annotated[list[Factor], ListOf] = sweep_field(
        1.0, "arrivals: gamma: its shape; 1 is Poisson, below 1 requests come in bursts."
    )
    ramp_s: Annotated[list[Wait], ListOf] = sweep_field(0.0, "Closed loop: seconds over which the streams start, one after another.")
    trace: Annotated[list[Annotated[Expression, Field(examples=["requests.jsonl"])]], ListOf] | None = sweep_or(
        "Open loop: recorded arrivals and lengths to replay (Mooncake JSONL, Azure LLM inference CSV, BurstGPT CSV); relative to this file."
    )
    time_scale: Annotated[list[Factor], ListOf] = sweep_field(1.0, "Factor on a trace's times: 0.5 replays it twice as fast.")
    input_tokens: Annotated[list[Tokens], ListOf] | None = sweep_or(
        "Prompt length in tokens, as the server counts it, a chat template included: a number, a distribution such as uniform(64,256), or "
        "data; default 128, data with a data set."
    )
    output_tokens: Annotated[list[Tokens], ListOf] | None = sweep_or(
        "Tokens to generate per request: as `input_tokens`; default 64, data with a data set."
    )
    lengths: Annotated[list[Annotated[Expression, Field(examples=["'128+64*3, 2048+256'"])]], ListOf] | None = sweep_or(
        "Pairs to draw from, 'IN+OUT[*WEIGHT], ...', e.g. '128+64*3, 2048+256'; instead of input_tokens and output_tokens."
    )
    requests: Annotated[list[UpTo], ListOf] | None = sweep_or(
        "Measured requests per cell; default: 4 per stream, at least 16 (closed loop); a minute's worth, at least 64 (rate); times "
        "`turns`; for `find` at least as many as `slo.share` needs to be judged. With duration_s the most that may be sent, with a trace "
        "its first rows, and not more than it has; default then 0, as many as there are."
    )
    duration_s: Annotated[list[Seconds], ListOf] | None = sweep_or(
        "Seconds after which nothing new falls due; what an open loop's `concurrency` made wait still goes out."
    )
    warmup_requests: Annotated[list[UpTo], ListOf] | None = sweep_or(
        "Requests sent before the window opens; default: one per stream, 4 in an open loop."
    )
    prompts: Annotated[list[Annotated[Expression, Field(examples=["sharegpt:chats.json"])]], ListOf] = sweep_field(
        "random",
        "random: uniformly drawn ordinary tokens. text: English words. Or a data set: sharegpt:FILE, jsonl:FILE[#COLUMN], "
        "hf:ORG/NAME[:CONFIG][/SPLIT][#COLUMN]; files relative to this one. Random and text prompts are unique.",
    )
    prefix_groups: Annotated[list[UpTo], ListOf] = sweep_field(0, "Groups of prompts that share their first `prefix_tokens`; 0: none do.")
    prefix_tokens: Annotated[list[UpTo], ListOf] = sweep_field(0, "Tokens of `input_tokens` that the prompts of a group share.")
    turns: Annotated[list[Turns], ListOf] = sweep_field(1, "Requests of one conversation; each holds the turns and answers before it.")
    think_s: Annotated[list[Wait], ListOf] = sweep_field(0.0, "Seconds between an answer and the next turn.")
    api: Annotated[list[Literal["completions", "chat"]], ListOf] = sweep_field("completions", "Route: raw completions or chat.")
    prefix_cache: Annotated[list[Literal["cold", "allowed"]], ListOf] = sweep_field(
        "cold", "cold: a cached prompt token makes the cell invalid. allowed: caching is part of what is measured."
    )
    temperature: Annotated[list[Annotated[float, Field(ge=0, le=10, strict=True)]], ListOf] = sweep_field(
        0.0, "Sampling temperature; 0 is greedy."
    )
    seed: Annotated[list[Seed], ListOf] = sweep_field(0, "Seed of arrivals, lengths, prompts and sampling.")
    timeout_s: Annotated[list[Seconds], ListOf] = sweep_field(600.0, "A request that takes longer has failed; looked at every 50 ms.")
