"""Measures one cell on an engine that is up: prompts, warm-up, counters, load, verdict on whether it counts as run.

Knows no plan and no file. Everything that could cost time - making prompts, encoding bodies - happens before the window opens.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from enginebench.adapter import Adapter
from enginebench.loadgen import LoadResult
from enginebench.nouns import JSON, Cell, Load, Sample, Status, canonical, fingerprint, plain_object
from enginebench.runner.engine import Engine
from enginebench.runner.reporter import Reporter
from enginebench.samples import Samples
from enginebench.store import CellRecord, now

WARMUP_OUTPUT_TOKENS = 16
"""Warm-up requests have the cell's prompt length and at most this many output tokens."""

DEATH_PATIENCE_S = 1.0
"""A dying process closes its sockets before its parent hears of its end; broken connections are worth this wait."""


def measure(cell: Cell, engine: Engine, adapter: Adapter, reporter: Reporter, *, nonce: str) -> tuple[CellRecord, Samples | None]:
    """Run one cell. Raises KeyboardInterrupt when the user stops it; everything else that happens is in the record."""
    began, started_at = time.monotonic(), now()
    load = cell.load
    salt = f"{fingerprint(canonical(load))}/{cell.repeat}/{nonce}"
    prompts = engine.opening.prompts(load, load.requests, salt=salt)
    reporter.measuring(cell, None)
    known: dict[str, object] = {
        "started_at": started_at,
        "length_control": "exact" if adapter.forces_length(cell.deployment) else "cap",
        "exact_prompts": prompts[0].ids is not None,
        "identity": engine.opening.identity,
        "nonce": nonce,
    }
    failure = _warm_up(engine, load, salt)
    if failure:  # the load itself would only cost its time-outs once more
        return record_of(cell, "failed", f"warm-up: {failure}", log_tail=engine.log_tail(), **known), None
    before = engine.counters()
    result = engine.run(prompts, load, on_progress=lambda progress: reporter.measuring(cell, progress))
    failure = _failure(result, engine)
    after = {} if failure else engine.counters()
    record = record_of(
        cell,
        "failed" if failure else "ok",
        failure,
        wall_s=round(time.monotonic() - began, 3),
        window_ns=(result.window_start_ns, result.window_end_ns),
        client=plain_object(result.client),
        counters={name: after[name] - before[name] for name in after if name in before},
        stopped=result.stopped,
        unsent=result.unsent,
        log_tail=engine.log_tail() if failure else (),
        **known,
    )
    return record, Samples.collect(result.samples) if result.samples else None


def record_of(cell: Cell, status: Status, reason: str | None = None, **known: object) -> CellRecord:
    """The record of a cell; `known` are fields of CellRecord."""
    base = CellRecord(
        cell.id, cell.launch_id, cell.deployment, cell.load, cell.repeat, status, reason,
        random_weights=cell.deployment.checkpoint.startswith("random:"),
    )  # fmt: skip
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


def _warm_up(engine: Engine, load: Load, salt: str) -> str | None:
    """Send the warm-up requests; why the engine cannot serve this load, if not one of them succeeded."""
    if not load.warmup_requests:
        return None
    short = replace(load, output_tokens=min(WARMUP_OUTPUT_TOKENS, load.output_tokens), requests=load.warmup_requests)
    result = engine.run(engine.opening.prompts(short, short.requests, salt=f"{salt}/warm-up"), short)
    return _failure(result, engine)


def _failure(result: LoadResult, engine: Engine) -> str | None:
    """Why a load does not count as run; None when at least one request ended well and the engine is still there."""
    bad = [sample for sample in result.samples if sample.outcome != "ok"]
    broken_off = any(sample.outcome in ("cut", "connect") for sample in bad)
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
