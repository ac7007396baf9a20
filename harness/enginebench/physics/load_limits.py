"""What a load says about its own limits: requests in flight, lengths, duration, and the ceiling of a `Setting` under it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from enginebench.domain import Load
from enginebench.physics.memory_need import UnknownLimit
from enginebench.physics.roofline import decode, prefill
from enginebench.physics.setting import Setting
from enginebench.physics.sharding import devices_of
from enginebench.physics.weights import Weights
from enginebench.workload.lengths import Lengths


def seconds_of(load: Load, rate: Callable[[tuple[float, float]], float]) -> float:
    """The duration of a load: stated, by its rate of requests, or at the output tokens/s for (input, output) tokens."""
    if load.duration_s is not None and not load.requests:
        return load.duration_s
    tokens = Lengths.of(load).mean
    if load.mean_rate is not None:
        seconds = load.requests / load.mean_rate
    elif tokens is None:
        raise UnknownLimit("request lengths come from a data set or a trace")
    else:
        seconds = load.requests * tokens[1] / rate(tokens)
    return seconds if load.duration_s is None or math.isnan(seconds) else min(seconds, load.duration_s)


def shared_tokens(load: Load, inputs: float) -> float:
    """Prompt tokens that all requests may have in common: a stated prefix, or with a data set perhaps the whole prompt."""
    if load.prefix_cache == "cold":
        return 0.0
    unique = load.prompts in ("random", "text")
    return float(load.prefix_tokens if load.prefix_groups else 0) if unique else inputs


def drafting(drafter: Weights | None, setting: Setting) -> Setting | None:
    """The drafter on the one device of a deployment; on several it may be divided in ways that are not known, and takes no time."""
    if drafter is None or devices_of(setting.parallelism) > 1:
        return None
    return Setting(drafter, replace(setting.machine, count=1), kv_bits=setting.kv_bits, bound=True)


def ceiling_of(setting: Setting, tokens: tuple[float, float], streams: float, shared: float, *, no_prompt: bool) -> float:
    inputs, outputs = tokens
    context, yielded = inputs + outputs / 2, setting.speculation.tokens_per_step if setting.speculation else 1.0
    steps = max(0.0, outputs - 1) / yielded
    batch = decode(setting, math.ceil(streams), context, spread=outputs / 2, shared=shared)
    busy = {name: seconds * steps / batch.batch for name, seconds in batch.seconds.items()}
    latency = steps * decode(setting, 1, context, spread=outputs / 2).time_s
    if not no_prompt:
        parallelism, prompt = setting.parallelism, max(1, round(inputs))
        replicas = parallelism.dp_replicas * parallelism.attention_dp
        seconds = prefill(setting, prompt, replicas).seconds
        busy = {name: busy[name] + seconds[name] / (replicas * parallelism.pp) * (name != "memory") for name in busy}
        latency += prefill(setting, prompt).time_s
    return outputs / max(*busy.values(), latency / streams)


def certain_streams(load: Load) -> int:
    """Requests that certainly run concurrently. Requests with a shared prefix may share its KV cache, so they count as one."""
    if load.streams is None or load.prefix_cache != "cold":
        return 1
    return min(load.streams, load.requests) if load.requests else load.streams


def mean_context(load: Load) -> int | None:
    """Mean tokens of a request at its end; None if unknown, or if a conversation grows."""
    tokens = Lengths.of(load).mean if load.turns == 1 else None
    return None if tokens is None else math.ceil(sum(tokens))
