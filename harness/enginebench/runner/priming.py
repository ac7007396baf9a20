"""The last step of readiness: one real generation, and the engine's own word on its configuration held against what was asked.

Knows engines only through the `Engine` protocol, and no process and no socket.
"""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import replace

from enginebench.adapter import Difference, Resolved
from enginebench.domain import JSON, ClosedLoop, Deployment, Length, Load, Sample
from enginebench.runner.engine import Engine, kind_of_text
from enginebench.runtime import LaunchFailed
from enginebench.workload import Prompt, TextScale

_USUAL_INPUT = 64
"""Prompt tokens where the load draws its lengths."""
_GAUGED = 256
"""Prompt tokens, about: the longer, the truer for prompts that are longer still."""
_ALIKE = 0.02
"""By how much a server may count more or less than a token a token of a known tokenizer, where the text meets the template."""
_PATIENCE_S = 30.0
_CALM = 8

_NEUTRAL = (
    "model", "precision", "context", "slots", "prefix_cache", "kv_dtype", "kv_tokens", "chunked_prefill", "batch_tokens", "graphs",
    "stream_interval",
)  # fmt: skip
"""Fields of `Resolved` that an option of the same name asks for."""

_AT_LEAST = ("context", "slots", "kv_tokens")
"""More of these than was asked for is no shortfall."""


def differences(deployment: Deployment, resolved: Resolved, served_name: str | None = None) -> tuple[Difference, ...]:
    """Where the engine's own word differs from what was asked. Fields the engine does not tell are no difference.

    served_name: the model's name in requests; a server that says it has another model is not the one that was meant.
    """
    asked: dict[str, JSON] = {"precision": deployment.precision, "context": deployment.max_context, "slots": deployment.max_concurrency}
    asked |= {"model": served_name}
    told: dict[str, JSON] = {**{name: getattr(resolved, name) for name in _NEUTRAL}, **resolved.options}
    found: list[Difference] = []
    for name, want in {**asked, **deployment.options}.items():
        got = told.get(name)
        if got is None or want in (None, "auto") or (name == "precision" and want in ("none", "unstated")):
            continue
        enough = name in _AT_LEAST and isinstance(got, int) and isinstance(want, int) and got >= want
        if got != want and not enough:
            found.append(Difference(name, want, got))
    return tuple(found)


def rehearsal(load: Load, *, requests: int, streams: int, output_tokens: int) -> ClosedLoop:
    """A closed loop of single requests like those of the load, with at most so many output tokens: to warm up, not to measure."""
    entered = load.token_lengths[0] if load.lengths is None else "data"
    return ClosedLoop(
        concurrency=streams,
        requests=requests,
        input_tokens=_USUAL_INPUT if entered == "data" else entered,
        output_tokens=min(output_tokens, load.output_length or output_tokens),
        prompts="text" if load.prompts == "text" else "random",  # never a data set's: they would be known when their turn comes
        api=load.api,
        temperature=load.temperature,
        seed=load.seed,
        timeout_s=load.timeout_s,
    )


def fixed(length: Length) -> int:
    """The length, where it is a number."""
    return length if isinstance(length, int) else _USUAL_INPUT


def prime(engine: Engine, deployment: Deployment, load: Load, *, salt: str) -> None:
    """One real, short generation, then the engine's own word on its configuration: the last step of readiness.

    In this order, because some engines only know what they run once they have run. Raises LaunchFailed when nothing comes of it.
    """
    short = rehearsal(load, requests=1, streams=1, output_tokens=8)
    length = min(fixed(short.input_tokens), max(1, deployment.max_context - 8))
    opening = engine.opening
    (prompt,) = opening.prompts(replace(short, input_tokens=length), 1, salt=salt)
    began = time.monotonic()
    sample = _generate(engine, prompt, short)
    opening.first_s = time.monotonic() - began
    opening.counts = sample.output_tokens is not None or any(count >= 0 for count in sample.event_tokens)
    opening.resolved = engine.resolved()
    opening.differences = differences(deployment, opening.resolved, engine.served_name)


def gauge(engine: Engine, deployment: Deployment, load: Load, *, salt: str) -> None:
    """See how the engine counts text of this load's kind, where its tokenizer does not tell and this has not been seen: two generations.

    Half the length tells its way of counting text from what it adds to every prompt. An engine that does not say is taken for usual. Of a
    known tokenizer only a chat template's tokens have to be found.
    """
    opening, kind = engine.opening, kind_of_text(load)
    known = opening.vocabulary is not None
    if kind in opening.scales or (known and load.api != "chat"):
        return
    short = replace(rehearsal(load, requests=1, streams=1, output_tokens=1), prompts="random" if load.prompts == "random" else "text")
    length = min(_GAUGED, max(8, deployment.max_context - 8))
    counted: list[tuple[int, int]] = []
    for tokens in (length // 2, length):
        (prompt,) = opening.prompts(replace(short, input_tokens=tokens), 1, salt=f"{salt}/{kind}/{tokens}")
        sample = engine.run([prompt], short).samples[0]
        if prompt.text and sample.outcome == "ok" and sample.input_tokens:
            counted.append((prompt.tokens if known else len(prompt.text.split()), sample.input_tokens))
    scale = TextScale.fit(counted[0], counted[1]) if len(counted) == 2 else TextScale()
    other = known and abs(scale.tokens_per_word - 1) > _ALIKE  # tokenizer than we know; the verdict on lengths says so
    opening.scales[kind] = TextScale() if other else scale


def recover(engine: Engine, load: Load, *, salt: str) -> None:
    """After a load that was broken off: wait until the engine has worked off what was left of it, half a minute at most.

    One token at a time is asked for, until that takes about as long as the first generation took, or has not become quicker for some time:
    a longer prompt takes longer.
    """
    short = replace(rehearsal(load, requests=1, streams=1, output_tokens=1), timeout_s=min(load.timeout_s, _PATIENCE_S))
    deadline, before_s, calm = time.monotonic() + _PATIENCE_S, math.inf, 0
    for number in itertools.count():
        (prompt,) = engine.opening.prompts(short, 1, salt=f"{salt}/{number}")
        began = time.monotonic()
        sample = engine.run([prompt], short).samples[0]
        took_s = time.monotonic() - began
        calm = calm + 1 if took_s > before_s / 2 else 0
        if sample.outcome != "ok" or took_s <= 2 * engine.opening.first_s or calm >= _CALM or time.monotonic() > deadline:
            return
        before_s = took_s


def _generate(engine: Engine, prompt: Prompt, load: Load) -> Sample:
    sample = engine.run([prompt], load).samples[0]
    if sample.outcome != "ok":
        detail = f": {sample.error}" if sample.error else ""
        raise LaunchFailed(f"it is up, but its first generation failed ({sample.outcome}){detail}", "\n".join(engine.log_tail()))
    return sample
