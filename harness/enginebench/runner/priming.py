"""What is sent to an engine outside of measurements: its first generation, probes of its tokenizer, and probes until it is idle."""

import itertools
import math
import time
from dataclasses import replace

from enginebench.adapter import Difference, Resolved
from enginebench.domain import JSON, ClosedLoop, Deployment, Length, Load, Sample, plain_object
from enginebench.records.launch import Configuration
from enginebench.runner.engine import Engine
from enginebench.runner.prompts import kind_of_text
from enginebench.runtime import LaunchFailed
from enginebench.workload import Prompt, TextScale

_DEFAULT_INPUT = 64
"""Prompt tokens if the lengths of the load are drawn at random."""
_SCALE_INPUT = 256
"""Most prompt tokens, approximately, of a tokenizer probe."""
_GAUGED, _GAUGE_ATTEMPTS = 4, 2
"""Texts of a tokenizer probe, and probes until one of them predicts another text."""
_GAUGE_PAUSES_S = (0.5, 2.0)
"""Before a request of a tokenizer probe is sent again."""
_PROBE_SLACK, _PROBE_OFF = 8, 0.15
"""How far a prediction may be off, in tokens and as a share: a single short text varies."""
_SCALE_TOLERANCE = 0.02
"""With a known tokenizer and a chat template: how far the server's count may be from one token per token."""
_IDLE_TIMEOUT_S = 30.0
_STABLE_PROBES = 8
"""Consecutive probes without a clear speed-up after which an engine counts as idle."""

_NEUTRAL = (
    "model", "precision", "context", "slots", "prefix_cache", "kv_dtype", "kv_tokens", "chunked_prefill", "batch_tokens", "graphs",
    "stream_interval",
)  # fmt: skip
"""Fields of `Resolved` that an option of the same name sets."""

_AT_LEAST = ("context", "slots", "kv_tokens")
"""Fields that may be larger than asked for."""


def differences(deployment: Deployment, resolved: Resolved, served_name: str | None = None) -> tuple[Difference, ...]:
    """Fields in which the reported configuration differs from what was asked for. Fields that the engine does not report are skipped.
    served_name: the model name in requests; a server that reports another model is the wrong server."""
    asked: dict[str, JSON] = {"precision": deployment.precision, "context": deployment.max_context, "slots": deployment.max_concurrency}
    asked |= {"model": served_name}
    reported: dict[str, JSON] = {**{name: getattr(resolved, name) for name in _NEUTRAL}, **resolved.options}
    found: list[Difference] = []
    for name, want in {**asked, **deployment.options}.items():
        got = reported.get(name)
        if got is None or want in (None, "auto") or (name == "precision" and want in ("none", "unstated")):
            continue
        enough = name in _AT_LEAST and isinstance(got, int) and isinstance(want, int) and got >= want
        if got != want and not enough:
            found.append(Difference(name, want, got))
    return tuple(found)


def short_load(load: Load, *, requests: int, streams: int, output_tokens: int) -> ClosedLoop:
    """A closed loop of single requests like those of the load, each with at most so many output tokens. Never measured."""
    length = load.token_lengths[0] if load.lengths is None else "data"
    return ClosedLoop(
        concurrency=streams, requests=requests, input_tokens=_DEFAULT_INPUT if length == "data" else length,
        output_tokens=min(output_tokens, load.output_length or output_tokens),
        prompts="text" if load.prompts == "text" else "random",  # not the data set's: they would be in the prefix cache when measured
        api=load.api, temperature=load.temperature, seed=load.seed, timeout_s=load.timeout_s, loras=load.loras, tools=load.tools,
        tool_choice=load.tool_choice, response_format=load.response_format, images=load.images, image_size=load.image_size,
    )  # fmt: skip


def fixed(length: Length) -> int:
    """The length if it is a number, otherwise a default."""
    return length if isinstance(length, int) else _DEFAULT_INPUT


def first_generation(engine: Engine, load: Load, *, salt: str) -> None:
    """Generate a few tokens, then read the engine's configuration back. Both go into the launch record. Raises LaunchFailed.
    In this order, because some engines report parts of their configuration only after their first request."""
    deployment, startup = engine.launch.deployment, engine.launch.startup
    short = short_load(load, requests=1, streams=1, output_tokens=8)
    length = min(fixed(short.input_tokens), max(1, deployment.max_context - 8))
    (prompt,) = engine.prompts.make(replace(short, input_tokens=length), 1, salt=salt)
    began = time.monotonic()
    sample = _generate(engine, prompt, short)
    startup.first_generation_s = time.monotonic() - began
    startup.counts_tokens = sample.output_tokens is not None or any(count >= 0 for count in sample.event_tokens)
    try:
        resolved = engine.resolved()
        found = differences(deployment, resolved, engine.served_name)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # an adapter that fails here costs the configuration, not the cells
        resolved, found = (
            Resolved(),
            (Difference("configuration", "reported", f"resolved() failed: {type(error).__name__}: {error}"[:300]),),
        )
    found += tuple(Difference(name, asked, "not sent: the server refuses it") for name, asked in engine.left_out.items())
    engine.launch.configuration = Configuration(plain_object(resolved), found)


def fit_text_scale(engine: Engine, load: Load, *, salt: str) -> None:
    """Measure how the engine counts this load's kind of text, unless that is known.
    With a known tokenizer only the tokens of a chat template are measured; an engine that reports no counts gets the default scale."""
    prompts, kind = engine.prompts, kind_of_text(load)
    known = prompts.vocabulary is not None
    if kind in prompts.scales or (known and not load.templated):
        return
    short = short_load(load, requests=1, streams=1, output_tokens=1)
    short = replace(short, prompts="random" if load.prompts == "random" else "text", images=0)  # their tokens are not those of text
    short = replace(short, response_format=None)  # of one token nothing would be left
    prompts.scales[kind], prompts.doubts[kind] = TextScale(), None
    for attempt in range(_GAUGE_ATTEMPTS):
        try:
            prompts.scales[kind] = _gauge(engine, short, f"{salt}/{kind}/{attempt}", known=known)
        except _Ungauged as error:
            prompts.doubts[kind] = str(error)
        else:
            prompts.doubts[kind] = None
            return


class _Ungauged(Exception):  # noqa: N818  # a finding, not a malfunction
    """Why the way in which a server counts text is unknown."""


def _gauge(engine: Engine, short: ClosedLoop, salt: str, *, known: bool) -> TextScale:
    """How the engine counts text: a text and the same text twice differ by the tokens of one, and what is left is added to every prompt.
    The tokens per word are a mean over several texts, and must predict the count of one more. Raises _Ungauged."""
    length = min(_SCALE_INPUT, max(8, (engine.launch.deployment.max_context - 8) // 2))
    texts = engine.prompts.make(replace(short, input_tokens=length), _GAUGED, salt=salt)
    (probe,) = engine.prompts.make(replace(short, input_tokens=min(length, fixed(short.input_tokens))), 1, salt=f"{salt}/probe")
    if not all(prompt.text for prompt in texts):
        return TextScale()  # they are sent as token ids
    counts = [_counted_tokens(engine, prompt.text or "", short) for prompt in texts]
    if None in counts:
        return TextScale()  # the server reports no counts, and cells say so
    words = [prompt.tokens if known else len((prompt.text or "").split()) for prompt in texts]
    twice = _counted_tokens(engine, f"{texts[0].text} {(texts[0].text or '').lstrip()}", short) or 0
    overhead = max(0, 2 * (counts[0] or 0) - twice)
    slope = sum((count or 0) - overhead for count in counts) / sum(words)
    if known:  # another tokenizer than the checkpoint's is reported by the check of input lengths
        return TextScale(1.0, overhead) if abs(slope - 1) <= _SCALE_TOLERANCE else TextScale()
    if not 0.2 <= slope <= 20:
        raise _Ungauged(f"the server counts {counts[0]:,} tokens for {words[0]:,} words, and {twice:,} for twice as many")
    scale = TextScale(slope, overhead)
    expected, got = scale.tokens(len((probe.text or "").split())), _counted_tokens(engine, probe.text or "", short) or 0
    if abs(got - expected) > max(_PROBE_SLACK, _PROBE_OFF * expected):
        raise _Ungauged(f"the server counts {got:,} tokens where {expected:,} were expected from its other counts")
    return scale


def _counted_tokens(engine: Engine, text: str, load: Load) -> int | None:
    """The server's count of a prompt, asked for until it answers; None if it reports none. Raises _Ungauged."""
    for pause_s in (*_GAUGE_PAUSES_S, None):
        sample = engine.run([Prompt(None, text, len(text.split()), 1)], load).samples[0]
        if sample.outcome == "ok":
            return sample.input_tokens
        if pause_s is not None:
            time.sleep(pause_s)
    raise _Ungauged(f"requests that measure it failed ({sample.outcome}: {sample.error})")


def wait_until_idle(engine: Engine, load: Load, *, salt: str) -> None:
    """After an aborted load: wait until the engine has finished the requests that are left, at most half a minute.
    Sends probes of one token until one takes about as long as the first generation, or until they have not become faster for some time (a
    longer prompt takes longer)."""
    short = replace(short_load(load, requests=1, streams=1, output_tokens=1), timeout_s=min(load.timeout_s, _IDLE_TIMEOUT_S))
    idle_s = 2 * (engine.launch.startup.first_generation_s or 0.0)
    deadline, before_s, stable = time.monotonic() + _IDLE_TIMEOUT_S, math.inf, 0
    for number in itertools.count():
        (prompt,) = engine.prompts.make(short, 1, salt=f"{salt}/{number}")
        began = time.monotonic()
        sample = engine.run([prompt], short).samples[0]
        took_s = time.monotonic() - began
        stable = stable + 1 if took_s > before_s / 2 else 0
        if sample.outcome != "ok" or took_s <= idle_s or stable >= _STABLE_PROBES or time.monotonic() > deadline:
            return
        before_s = took_s


def _generate(engine: Engine, prompt: Prompt, load: Load) -> Sample:
    sample = engine.run([prompt], load).samples[0]
    for pause_s in _GAUGE_PAUSES_S if engine.process is None else ():  # an attached server may fail now and then: that is to be measured
        if sample.outcome == "ok" or (400 <= (sample.status_code or 0) < 500 and sample.status_code != 429):
            break
        time.sleep(pause_s)
        sample = engine.run([prompt], load).samples[0]
    if sample.outcome != "ok":
        detail = f": {sample.error}" if sample.error else ""
        raise LaunchFailed(f"the server is up, but its first generation failed ({sample.outcome}){detail}", "\n".join(engine.log_tail()))
    return sample
