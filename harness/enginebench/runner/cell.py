"""Measures one cell on a running engine. Everything slow (making prompts, encoding bodies) happens before the load starts."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from enginebench.adapter import Adapter
from enginebench.checkpoints import RandomMoE
from enginebench.domain import JSON, Cell, Deployment, Load, PrefixRule, Sample, canonical, fingerprint
from enginebench.loadgen import Acks, LoadResult, Progress
from enginebench.loadgen.sharing import ClientLost
from enginebench.records.cell import CellRecord, CellTraits, Delivery, EngineCounters, PromptFacts
from enginebench.records.files import now
from enginebench.records.samples import Samples
from enginebench.runner.clients.facts import client_facts
from enginebench.runner.engine import Engine
from enginebench.runner.engine_counters import CounterWatch
from enginebench.runner.events import CellProgress, OnEvent
from enginebench.runner.instruments import Instruments
from enginebench.runner.priming import short_load
from enginebench.runner.prompts import kind_of_text
from enginebench.workload import Prompt, natural_count, reusable, shared_by

WARMUP_OUTPUT_TOKENS = 16
"""Warm-up requests have the cell's prompt length and at most this many output tokens."""

MOST_REQUESTS = 200_000
"""Most requests prepared for a closed loop over a duration; a load that uses them up ends early."""

_SHORTEST_REQUEST_S = 0.02
"""Assumed duration of a request if there was no warm-up."""

_MARGIN = 1.5
"""Factor on the number of requests that the fastest ones would use up."""

EXIT_PATIENCE_S = 1.0
"""A process that exits closes its sockets before its exit status is known: after broken connections, wait this long for it."""


def measure(
    cell: Cell, engine: Engine, adapter: Adapter, on_event: OnEvent, instruments: Instruments, *, session_id: str
) -> tuple[CellRecord, Samples | None]:
    """Run one cell. Whatever happens is in the record, except for KeyboardInterrupt."""
    try:
        return _measure(cell, engine, adapter, on_event, instruments, session_id)
    except ClientLost as lost:  # the engine is not to blame: it serves the next cell when it is idle again
        record = replace(CellRecord.of(cell, "failed", f"{lost} during the cell"), launch_id=engine.launch.id)
        return replace(record, delivery=Delivery(stopped=str(lost))), None


def _measure(
    cell: Cell, engine: Engine, adapter: Adapter, on_event: OnEvent, instruments: Instruments, session_id: str
) -> tuple[CellRecord, Samples | None]:
    began, started_at = time.monotonic(), now()
    load, startup = cell.load, engine.launch.startup
    salt = f"{fingerprint(canonical(load))}/{cell.repeat}/{session_id}"
    instruments.prepare(engine)
    # Prompts are made before the warm-up, so that the warm engine is not left idle, unless only the warm-up shows how many are needed.
    natural = natural_count(load, engine.prompts.base)
    planned = load.requests if natural is None else natural
    ahead = load.prefix_groups if load.prefix_cache == "warm" else 0  # prompts that are sent before, one of each group
    prompts = engine.prompts.make(load, planned + ahead, salt=salt) if planned else []
    warm_up = _warm_up(engine, load, salt)
    failure = _failure(warm_up, engine) if warm_up is not None else None
    form = "ids" if load.api == "completions" and adapter.traits(cell.deployment).takes_ids else "text"
    record = replace(
        CellRecord.of(cell, "ok"), launch_id=engine.launch.id, started_at=started_at, identity=startup.identity,
        traits=_traits(cell.deployment, adapter, load),
        prompts=PromptFacts(form, session_id=session_id, doubt=engine.prompts.doubts.get(kind_of_text(load))),
    )  # fmt: skip
    if failure:  # the load would fail too, after all of its timeouts
        return replace(record, status="failed", reason=f"warm-up: {failure}", log_tail=engine.log_tail()), None
    token_check = _check_counts(engine, warm_up.samples) if warm_up is not None else {}
    prompts = prompts or engine.prompts.make(load, _enough(load, warm_up) + ahead, salt=salt)
    notes, exact = getattr(prompts, "notes", ()), prompts[0].ids is not None
    prompts, filling = prompts[: len(prompts) - ahead], prompts[len(prompts) - ahead :]
    if failure := _fill(engine, load, filling):
        return replace(record, status="failed", reason=f"warming the prefix cache: {failure}", log_tail=engine.log_tail()), None
    uncounted = not startup.counts_tokens if warm_up is None else not any(map(_counted, warm_up.samples))
    with CounterWatch(engine, adapter) as watch:
        instruments.begin()
        acks: Acks = "delayed" if warm_up is not None and warm_up.server_nodelay else "usual"
        tell = partial(_tell, on_event, cell)
        result = engine.run(prompts, load, on_progress=tell, keep_text=uncounted, acks=acks, measured=True)
    telemetry, facts = instruments.collect(), replace(record.prompts, exact=exact, notes=notes)
    failure = _failure(result, engine)
    if uncounted:
        _count_locally(engine, result.samples)
    record = replace(
        record, status="failed" if failure else "ok", reason=failure, wall_s=round(time.monotonic() - began, 3),
        prompts=_with_reuse(facts, engine, load, prompts, filling, result.samples), delivery=_delivery(result),
        client=client_facts(result),
        counters=EngineCounters({} if failure else watch.totals(), watch.series(), token_check, watch.problem),
        telemetry=telemetry, log_tail=engine.log_tail() if failure else (),
    )  # fmt: skip
    return record, Samples.collect(result.samples) if result.samples else None


def _tell(on_event: OnEvent, cell: Cell, progress: Progress) -> None:
    on_event(CellProgress(cell, progress))


def _traits(deployment: Deployment, adapter: Adapter, load: Load) -> CellTraits:
    traits, synthetic = adapter.traits(deployment), is_synthetic(deployment)
    return CellTraits(
        length_control="exact" if traits.forces_length and load.response_format is None else "cap",
        random_weights=synthetic or traits.random_weights,
        dense=synthetic and RandomMoE.from_reference(deployment.checkpoint).experts == 1,
        forced_routing=traits.forces_routing,
        uneven_routing=traits.uneven_routing,
        gpus=None if deployment.runtime == "attach" else traits.gpus,
    )


def is_synthetic(deployment: Deployment) -> bool:
    """Whether the checkpoint is made by enginebench from a seed."""
    return deployment.checkpoint.startswith("random:")


def _delivery(result: LoadResult) -> Delivery:
    window_ns = result.window_start_ns, result.window_end_ns
    return Delivery(window_ns, result.stopped, result.unsent, saturated=result.stopped if result.saturated else None)


def parity_outputs(engine: Engine, load: Load) -> tuple[Mapping[str, JSON], ...]:
    """Greedy outputs of the engine for `load.requests` fixed prompts, one at a time; empty if it does not return text."""
    prompts = engine.prompts.make(load, load.requests, salt="parity")
    result = engine.run(prompts, load, keep_text=True)
    if any(s.outcome == "ok" and s.text is None for s in result.samples):
        return ()
    return tuple(
        {"prompt": prompt.text or list(prompt.ids or ()), "output": sample.text or "", "outcome": sample.outcome}
        for prompt, sample in zip(prompts, result.samples, strict=False)
    )


def _fill(engine: Engine, load: Load, prompts: Sequence[Prompt]) -> str | None:
    """Send the prompts, one after another, so that the prefix cache holds what theirs and the measured ones share. Why it failed."""
    if not prompts:
        return None
    short = replace(short_load(load, requests=len(prompts), streams=1, output_tokens=1), prefix_cache="allowed")
    return _failure(engine.run([replace(each, output_tokens=1, due_s=None) for each in prompts], short), engine)


def _with_reuse(
    facts: PromptFacts, engine: Engine, load: Load, prompts: Sequence[Prompt], filling: Sequence[Prompt], samples: Sequence[Sample]
) -> PromptFacts:
    """Add the tokens of the prompts, those that a cache could reuse, and those that the engine's has by its own rule. Nothing is counted
    for a cold load, which must not reuse any, and for a template, which adds its own."""
    if load.prefix_cache == "cold" or load.api != "completions":
        return facts
    deployment, rule = engine.launch.deployment, PrefixRule.of(engine.launch.configuration.resolved.get("prefix_rule"))
    used = deployment.runtime == "attach" or deployment.options.get("prefix_cache")
    by_rule = shared_by(rule, prompts, samples, filling) if rule is not None and used else None
    return replace(facts, tokens=sum(each.tokens for each in prompts), reusable_tokens=reusable(prompts, filling), rule_tokens=by_rule)


def _warm_up(engine: Engine, load: Load, salt: str) -> LoadResult | None:
    """Send the warm-up requests, at most as many at a time as the load has streams; None if there are none."""
    if not load.warmup_requests:
        return None
    streams = min(load.concurrency or load.warmup_requests, load.warmup_requests)
    short = short_load(load, requests=load.warmup_requests, streams=streams, output_tokens=WARMUP_OUTPUT_TOKENS)
    prompts = engine.prompts.make(short, short.requests, salt=f"{salt}/warm-up")
    return engine.run(prompts, short, keep_text=True, acks="probe")


def _enough(load: Load, warm_up: LoadResult | None) -> int:
    """More requests than a closed loop can complete in its duration.
    Assumes that no request is faster than the warm-up's fastest first token and fastest pace would make it."""
    outputs = load.output_tokens if isinstance(load.output_tokens, int) else WARMUP_OUTPUT_TOKENS
    seen = [sample for sample in warm_up.samples if sample.outcome == "ok"] if warm_up is not None else []
    first_s = min(((s.event_ns[0] - s.sent_ns) / 1e9 for s in seen), default=_SHORTEST_REQUEST_S)
    paces = [(s.event_ns[-1] - s.event_ns[0]) / 1e9 / (tokens - 1) for s in seen if (tokens := s.output_tokens or len(s.event_ns)) > 1]
    request_s = max(1e-3, first_s + min(paces, default=0.0) * (outputs - 1))
    rounds = math.ceil(_MARGIN * (load.duration_s or 0.0) / (request_s + load.think_s))
    return min(MOST_REQUESTS, load.concurrency * (rounds + 2 * load.turns))


def _counted(sample: Sample) -> bool:
    """Whether the server reported how many tokens it generated."""
    return sample.output_tokens is not None or any(count >= 0 for count in sample.event_tokens)


def _check_counts(engine: Engine, samples: Sequence[Sample]) -> Mapping[str, int]:
    """Output tokens according to the server and to the checkpoint's own tokenizer; empty if one of the counts is unknown."""
    _count_locally(engine, samples)
    both = [s for s in samples if s.outcome == "ok" and s.output_tokens is not None and s.local_tokens is not None]
    totals = sum(s.output_tokens or 0 for s in both), sum(s.local_tokens or 0 for s in both)
    return {"server": totals[0], "tokenizer": totals[1], "requests": len(both)} if both else {}


def _count_locally(engine: Engine, samples: Sequence[Sample]) -> None:
    """Count output tokens with the checkpoint's own tokenizer, if it can be read, and drop the texts."""
    vocabulary = engine.prompts.vocabulary
    tokenizer = vocabulary.tokenizer if vocabulary is not None else None
    for sample in samples:
        if tokenizer is not None and sample.text:
            sample.local_tokens = len(tokenizer.encode(sample.text, add_special_tokens=False).ids)
        sample.text = None


def _failure(result: LoadResult, engine: Engine) -> str | None:
    """Why a load does not count as run; None if at least one request succeeded and the engine is still up."""
    bad = [sample for sample in result.samples if sample.outcome not in ("ok", "aborted")]
    disconnected = any(sample.outcome in ("cut", "connect") or sample.status_code == 502 for sample in bad)  # 502: a proxy lost a member
    ending = engine.ending(EXIT_PATIENCE_S if disconnected else 0.0)
    if ending:
        return f"the engine {ending} during the cell"
    if len(bad) < len(result.samples):
        return None
    return _most_common(bad) if bad else f"nothing was sent ({result.stopped})"


def _most_common(bad: Sequence[Sample]) -> str:
    outcome, count = Counter(sample.outcome for sample in bad).most_common(1)[0]
    example = next((sample.error for sample in bad if sample.outcome == outcome and sample.error), None)
    return f"no request succeeded: {count} of {len(bad)} ended with '{outcome}'{f' ({example})' if example else ''}"
