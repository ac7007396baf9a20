"""Measures the quality of one running engine. What it cannot measure is in the record with the reason; nothing ends the run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from enginebench.adapter import Unsupported
from enginebench.dialects.scoring import Question, Scores, Scoring
from enginebench.domain import ClosedLoop, Load
from enginebench.domain.quality import DivergenceCheck, QualityCheck
from enginebench.errors import UserError
from enginebench.records.quality import Continuation, Prediction, QualityRecord, Scored
from enginebench.runner.engine import Engine
from enginebench.runner.quality.background import serving
from enginebench.runner.quality.due import lacking, of_tasks
from enginebench.runner.quality.probe import check_scores
from enginebench.runner.quality.tasks import measure_task
from enginebench.runner.quality.windows import Windows, windows_of
from enginebench.runtime import LaunchFailed
from enginebench.runtime.posting import NotAnswered
from enginebench.workload import Prompt

Say = Callable[[str], None]
PROMPT_TOKENS = 64
"""Of a greedy continuation; less where the window is shorter."""
_FAILURES = (Unsupported, UserError, NotAnswered, LaunchFailed, ValueError, OSError)
"""What costs a part of the record, and no more."""
_ABOVE = 1e-3
"""Above 0 a logarithm is that of no probability; engines round."""


def assess(engine: Engine, check: QualityCheck, load: Load, say: Say, known: QualityRecord | None = None) -> QualityRecord:
    """Everything that the check asks for. load: one that the deployment serves, for the spelling of generations. known: what was measured
    before; what of it the check asks for is kept."""
    found, due = _Found(known or QualityRecord()), lacking(check, known)
    if due.text:
        found = _Found(QualityRecord(tasks=found.record.tasks, missing=of_tasks(found.record)))
        with found.part("perplexity", "under_load", "predictions", "continuations"):
            _measure_text(engine, check, load, say, found)
    for task in due.tasks:
        with found.part(task.name):
            say(f"quality: task {task.name}")
            found.record = replace(found.record, tasks=(*found.record.tasks, *measure_task(engine, task, found.doubt)))
    asked = {"perplexity": True, "under_load": check.under_load, "predictions": check.divergence, "continuations": check.divergence}
    return replace(found.record, missing={part: why for part, why in found.record.missing.items() if asked.get(part, True)})


def _measure_text(engine: Engine, check: QualityCheck, load: Load, say: Say, found: _Found) -> None:
    scoring, windows = _scoring(engine), _windows(engine, check)
    try:
        check_scores(partial(engine.score, scoring), engine.served_name, windows.ids[0])
    except ValueError as error:
        found.doubt = f"its log-probabilities are not believed: {error}"
        raise ValueError(found.doubt) from None
    say(f"quality: perplexity of {windows.rule.windows} windows of '{windows.rule.text}'")
    scored, predictions = _score(engine, scoring, windows, check.divergence)
    scored = replace(scored, wanted=check.perplexity.windows)
    found.record = replace(found.record, perplexity=scored, predictions=predictions)
    if check.divergence is not None and not predictions:
        found.miss("predictions", f"{scoring.how}: the most probable tokens are not returned by id")
    if check.divergence is not None and check.divergence.prompts:
        with found.part("continuations"):
            say("quality: greedy continuations")
            found.record = replace(found.record, continuations=_continued(engine, windows, check.divergence, load))
    if check.under_load:
        with found.part("under_load"):
            say("quality: perplexity under load")
            found.record = replace(found.record, under_load=_under_load(engine, scoring, windows, load))


@dataclass
class _Found:
    """The record so far."""

    record: QualityRecord
    doubt: str = ""
    """Why the engine's log-probabilities are not believed; empty: nothing speaks against them."""

    def miss(self, part: str, why: str) -> None:
        self.record = replace(self.record, missing={**self.record.missing, part: why})

    @contextmanager
    def part(self, *parts: str) -> Iterator[None]:
        """What fails inside costs these parts, if they are not measured yet."""
        try:
            yield
        except _FAILURES as error:
            why = " ".join((error.message if isinstance(error, UserError) else str(error) or type(error).__name__).split())
            for part in parts:
                if not getattr(self.record, part, None) and part not in self.record.missing:
                    self.miss(part, why)


def _scoring(engine: Engine) -> Scoring:
    return engine.adapter.scoring(engine.launch.deployment.inside)


def _windows(engine: Engine, check: QualityCheck) -> Windows:
    if engine.prompts.vocabulary is None:
        raise ValueError("the vocabulary of this checkpoint cannot be read here, so the text has no token ids")
    windows, room = windows_of(check.perplexity, engine.prompts.vocabulary, engine.prompts.base), engine.launch.deployment.max_context
    if windows.rule.window + 1 > room:
        raise ValueError(f"a window of {windows.rule.window} tokens and one more do not fit max_context {room}")
    return windows


def _score(
    engine: Engine, scoring: Scoring, windows: Windows, divergence: DivergenceCheck | None, beside: str = ""
) -> tuple[Scored, tuple[Prediction, ...]]:
    """The windows one after another, so that nothing else is in the engine unless `beside` says what."""
    top, began = divergence.top if divergence is not None else 0, time.monotonic()
    questions = [Question(engine.served_name, ids, windows.first, top) for ids in windows.ids]
    found = [engine.score(scoring, question) for question in questions]
    seconds = round(time.monotonic() - began, 3)
    invalid = sum(not value <= _ABOVE or math.isinf(value) for scores in found for value in scores.logprobs)
    nats = () if invalid else tuple(round(-math.fsum(scores.logprobs), 6) for scores in found)
    scored = Scored(windows.rule, scoring.how, nats, seconds, invalid, beside)
    return scored, tuple(_predictions(windows, found, divergence)) if divergence is not None else ()


def _predictions(windows: Windows, found: Sequence[Scores], divergence: DivergenceCheck) -> Iterator[Prediction]:
    """The most probable tokens in evenly spaced places of each window."""
    step = max(1, windows.rule.scored // divergence.places)
    for number, scores in enumerate(found):
        for at in islice(range(0, len(scores.top), step), divergence.places):
            known = [(token, value) for token, value in scores.top[at].items() if math.isfinite(value)]
            if known:
                ids, values = zip(*known, strict=True)
                yield Prediction(number, windows.first + at, tuple(ids), tuple(round(value, 5) for value in values))


def _continued(engine: Engine, windows: Windows, check: DivergenceCheck, load: Load) -> tuple[Continuation, ...]:
    """Greedy outputs after the beginnings of the first windows, one at a time."""
    vocabulary = engine.prompts.vocabulary
    tokenizer = vocabulary.tokenizer if vocabulary is not None else None
    if tokenizer is None or load.api == "chat":
        raise ValueError("a chat template stands between the text and the model" if tokenizer else "the tokenizer cannot be read here")
    length = min(PROMPT_TOKENS, windows.rule.window // 2)
    outputs = min(check.output_tokens, engine.launch.deployment.max_context - length)
    pieces = windows.ids[: check.prompts]
    texts = [tokenizer.decode(list(ids[len(windows.rule.begins) : length])) for ids in pieces]
    prompts = [Prompt(ids[:length], text, length, outputs) for ids, text in zip(pieces, texts, strict=True)]
    same = ClosedLoop(
        concurrency=1, requests=len(prompts), input_tokens=length, output_tokens=outputs, prompts="text", timeout_s=load.timeout_s
    )
    result = engine.run(prompts, same, keep_text=True)
    bad = next((sample for sample in result.samples if sample.outcome != "ok"), None)
    if bad is not None:
        raise ValueError(f"a continuation ended as {bad.outcome}{f': {bad.error}' if bad.error else ''}")
    if any(sample.text is None for sample in result.samples):
        raise ValueError("this runtime returns no text")
    encoded = [tokenizer.encode((sample.text or "").lstrip(" "), add_special_tokens=False).ids for sample in result.samples]
    return tuple(Continuation(number, tuple(ids)) for number, ids in enumerate(encoded))


def _under_load(engine: Engine, scoring: Scoring, windows: Windows, load: Load) -> Scored:
    """The same windows while the rest of the batch answers other requests."""
    if engine.launch.deployment.runtime == "in-process":
        raise ValueError("an in-process batch gets all its requests at once: nothing can be scored meanwhile")
    if not scoring.batched:
        raise ValueError(f"{scoring.how}: it does not go through the batch, so a load changes nothing")
    with serving(engine, load, engine.launch.deployment.max_concurrency - 1) as beside:
        scored, _ = _score(engine, scoring, windows, None)
    return replace(scored, beside=beside.text)
