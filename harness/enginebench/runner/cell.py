"""Measures one cell on an engine that is up: prompts, warm-up, counters, telemetry, load, verdict on whether it counts as run.

Knows no plan and no file. Everything that could cost time - making prompts, encoding bodies - happens before the window opens.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from enginebench.adapter import Adapter
from enginebench.checkpoints import RandomMoE
from enginebench.domain import JSON, Cell, Deployment, Load, Sample, Status, canonical, fingerprint, plain_object
from enginebench.loadgen import LoadResult
from enginebench.records.samples import Samples
from enginebench.records.store import CellRecord, now
from enginebench.runner.calibration import client_limit
from enginebench.runner.engine import Engine
from enginebench.runner.engine_counters import Watch
from enginebench.runner.events import CellProgress, OnEvent
from enginebench.runner.instruments import Instruments
from enginebench.runner.priming import rehearsal
from enginebench.workload import natural_count

WARMUP_OUTPUT_TOKENS = 16
"""Warm-up requests have the cell's prompt length and at most this many output tokens."""

MOST_REQUESTS = 200_000
"""That a closed loop over a duration prepares, at most; one that gets through all of them ends early."""

_UNSEEN_S = 0.02
"""How long a request takes at least, where no warm-up has shown it."""

_MARGIN = 1.5
"""Prepared beyond what the quickest requests could use up."""

DEATH_PATIENCE_S = 1.0
"""A dying process closes its sockets before its parent hears of its end; broken connections are worth this wait."""


def measure(
    cell: Cell, engine: Engine, adapter: Adapter, on_event: OnEvent, instruments: Instruments, *, nonce: str
) -> tuple[CellRecord, Samples | None]:
    """Run one cell. Raises KeyboardInterrupt when the user stops it; everything else that happens is in the record."""
    began, started_at = time.monotonic(), now()
    load = cell.load
    salt = f"{fingerprint(canonical(load))}/{cell.repeat}/{nonce}"
    known: dict[str, object] = {
        "started_at": started_at,
        **_adapter_traits(cell, adapter),
        "identity": engine.opening.identity,
        "nonce": nonce,
    }
    instruments.prepare(engine)
    # Prompts come first, so that an engine that is warm does not cool down again, unless only the warm-up tells how many.
    natural = natural_count(load, engine.opening.base)
    planned = load.requests if natural is None else natural
    prompts = engine.opening.prompts(load, planned, salt=salt) if planned else []
    warm_up = _warm_up(engine, load, salt)
    failure = _failure(warm_up, engine) if warm_up is not None else None
    if failure:  # the load itself would only cost its time-outs once more
        return record_of(cell, "failed", f"warm-up: {failure}", log_tail=engine.log_tail(), **known), None
    token_check = _check_counts(engine, warm_up.samples) if warm_up is not None else {}
    prompts = prompts or engine.opening.prompts(load, _enough(load, warm_up), salt=salt)
    uncounted = not engine.opening.counts if warm_up is None else not any(map(_counted, warm_up.samples))
    with Watch(engine, adapter) as watch:
        instruments.begin()
        result = engine.run(
            prompts,
            load,
            on_progress=lambda progress: on_event(CellProgress(cell, progress)),
            keep_text=uncounted,
            acks="delayed" if warm_up is not None and warm_up.server_nodelay else "usual",
        )
    telemetry = instruments.collect()
    failure = _failure(result, engine)
    if uncounted:
        _count_locally(engine, result.samples)
    record = record_of(
        cell,
        "failed" if failure else "ok",
        failure,
        wall_s=round(time.monotonic() - began, 3),
        window_ns=(result.window_start_ns, result.window_end_ns),
        client=plain_object(result.client),
        client_limit=client_limit(result.client.processes, result.client.stamps),
        token_check=token_check,
        counters={} if failure else watch.totals(),
        series=watch.series(),
        telemetry=telemetry,
        exact_prompts=prompts[0].ids is not None,
        stopped=result.stopped,
        saturated=result.stopped if result.saturated else None,
        unsent=result.unsent,
        log_tail=engine.log_tail() if failure else (),
        **known,
    )
    return record, Samples.collect(result.samples) if result.samples else None


def _adapter_traits(cell: Cell, adapter: Adapter) -> Mapping[str, object]:
    """How the adapter treats this cell, as far as a reader of its figures must know."""
    deployment, load = cell.deployment, cell.load
    traits = adapter.traits(deployment)
    return {
        "length_control": "exact" if traits.forces_length else "cap",
        "prompt_form": "ids" if load.api == "completions" and traits.takes_ids else "text",
        "random_weights": _is_synthetic(deployment) or traits.random_weights,
        "dense": _is_synthetic(deployment) and RandomMoE.from_reference(deployment.checkpoint).experts == 1,
        "forced_routing": traits.forces_routing,
        "gpus": None if deployment.runtime == "attach" else traits.gpus,
    }


def _is_synthetic(deployment: Deployment) -> bool:
    """Whether the checkpoint is one of ours, made from a seed."""
    return deployment.checkpoint.startswith("random:")


def record_of(cell: Cell, status: Status, reason: str | None = None, **known: object) -> CellRecord:
    """The record of a cell; `known` are fields of CellRecord."""
    base = CellRecord(
        cell.id, cell.launch_id, cell.deployment, cell.load, cell.repeat, status, reason, random_weights=_is_synthetic(cell.deployment)
    )
    return replace(base, **known)  # type: ignore[arg-type]  # names are checked by replace()


def parity_outputs(engine: Engine, load: Load) -> tuple[Mapping[str, JSON], ...]:
    """Greedy output of the engine for `load.requests` fixed prompts, one at a time; empty when it does not return text."""
    prompts = engine.opening.prompts(load, load.requests, salt="parity")
    result = engine.run(prompts, load, keep_text=True)
    if any(s.outcome == "ok" and s.text is None for s in result.samples):
        return ()
    return tuple(
        {"prompt": prompt.text or list(prompt.ids or ()), "output": sample.text or "", "outcome": sample.outcome}
        for prompt, sample in zip(prompts, result.samples, strict=False)
    )


def _warm_up(engine: Engine, load: Load, salt: str) -> LoadResult | None:
    """Send the warm-up requests, all at once or on as many streams as the load has; None if there are to be none."""
    if not load.warmup_requests:
        return None
    streams = min(load.concurrency or load.warmup_requests, load.warmup_requests)
    short = rehearsal(load, requests=load.warmup_requests, streams=streams, output_tokens=WARMUP_OUTPUT_TOKENS)
    prompts = engine.opening.prompts(short, short.requests, salt=f"{salt}/warm-up")
    return engine.run(prompts, short, keep_text=True, acks="probe")


def _enough(load: Load, warm_up: LoadResult | None) -> int:
    """More requests than a closed loop can get through in its duration.

    No request of the load is likely to be quicker than the warm-up's quickest first token and quickest pace would make it.
    """
    outputs = load.output_tokens if isinstance(load.output_tokens, int) else WARMUP_OUTPUT_TOKENS
    seen = [sample for sample in warm_up.samples if sample.outcome == "ok"] if warm_up is not None else []
    first_s = min(((s.event_ns[0] - s.sent_ns) / 1e9 for s in seen), default=_UNSEEN_S)
    paces = [(s.event_ns[-1] - s.event_ns[0]) / 1e9 / (tokens - 1) for s in seen if (tokens := s.output_tokens or len(s.event_ns)) > 1]
    request_s = max(1e-3, first_s + min(paces, default=0.0) * (outputs - 1))
    rounds = math.ceil(_MARGIN * (load.duration_s or 0.0) / (request_s + load.think_s))
    return min(MOST_REQUESTS, load.concurrency * (rounds + 2 * load.turns))


def _counted(sample: Sample) -> bool:
    """Whether the server said how many tokens it has generated."""
    return sample.output_tokens is not None or any(count >= 0 for count in sample.event_tokens)


def _check_counts(engine: Engine, samples: Sequence[Sample]) -> Mapping[str, int]:
    """Output tokens of the warm-up as the server and as the checkpoint's own tokenizer count them; empty where one of them cannot."""
    _count_locally(engine, samples)
    both = [s for s in samples if s.outcome == "ok" and s.output_tokens is not None and s.local_tokens is not None]
    totals = sum(s.output_tokens or 0 for s in both), sum(s.local_tokens or 0 for s in both)
    return {"server": totals[0], "tokenizer": totals[1], "requests": len(both)} if both else {}


def _count_locally(engine: Engine, samples: Sequence[Sample]) -> None:
    """Count output tokens with the checkpoint's own tokenizer, where it is at hand. The texts are dropped."""
    vocabulary = engine.opening.vocabulary
    tokenizer = vocabulary.tokenizer if vocabulary is not None else None
    for sample in samples:
        if tokenizer is not None and sample.text:
            sample.local_tokens = len(tokenizer.encode(sample.text, add_special_tokens=False).ids)
        sample.text = None


def _failure(result: LoadResult, engine: Engine) -> str | None:
    """Why a load does not count as run; None when at least one request ended well and the engine is still there."""
    bad = [sample for sample in result.samples if sample.outcome != "ok"]
    broken_off = any(sample.outcome in ("cut", "connect") or sample.status_code == 502 for sample in bad)  # 502: a proxy lost a member
    ending = engine.ending(DEATH_PATIENCE_S if broken_off else 0.0)
    if ending:
        return f"the engine {ending} during the cell"
    if len(bad) < len(result.samples):
        return None
    return _what_happened(bad) if bad else f"nothing was sent ({result.stopped})"


def _what_happened(bad: list[Sample]) -> str:
    outcome, count = Counter(sample.outcome for sample in bad).most_common(1)[0]
    example = next((sample.error for sample in bad if sample.outcome == outcome and sample.error), None)
    return f"no request succeeded: {count} of {len(bad)} ended with '{outcome}'{f' ({example})' if example else ''}"
