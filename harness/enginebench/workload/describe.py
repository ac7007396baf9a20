"""What a workload is, in figures: lengths, rate, burstiness, sessions, reuse of prefixes, and what of a recording is not replayed.

Of a trace or a data set in a file, or of a load. Does not know engines; without a tokenizer the tokens of texts are estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from enginebench.domain import Load, TraceReplay
from enginebench.errors import UserError
from enginebench.workload.datasets import read_records
from enginebench.workload.outline_reuse import theoretical_reuse
from enginebench.workload.outlines import outlines, replayed
from enginebench.workload.prompts import TextScale
from enginebench.workload.trace_file import ADVICE
from enginebench.workload.traces import Trace, read_trace

QUANTILES = (10, 50, 90, 99)
_DRAWN = 2_000
_PEAK_S = 10.0


@dataclass(frozen=True)
class Lengths:
    """Tokens over the requests."""

    least: int
    mean: float
    quantiles: Mapping[int, int]
    """Percentile -> tokens, by nearest rank."""
    most: int


@dataclass(frozen=True)
class Description:
    """A workload in figures. None: it does not say."""

    what: str
    """'a Mooncake trace', 'a data set'."""
    requests: int
    input: Lengths
    output: Lengths | None
    duration_s: float | None = None
    """From the first arrival to the last."""
    rate: float | None = None
    """Arrivals (of sessions) per second."""
    burstiness: float | None = None
    """Coefficient of variation of the gaps between arrivals: 0 if constant, 1 if Poisson, above 1 in bursts."""
    peak_rate: float | None = None
    """Most arrivals in 10 s, per second."""
    sessions: int | None = None
    """Sessions with more than one request."""
    turns: float | None = None
    """Mean requests of such a session."""
    branches: int | None = None
    """Requests that run beside another one of their session."""
    think_s: float | None = None
    """Median pause before a request of a session."""
    hit_rate: float | None = None
    """Share of the prompt tokens that a prefix cache which forgets nothing could give."""
    notes: Sequence[str] = field(default_factory=tuple)
    """How the file was read."""
    lost: Sequence[str] = field(default_factory=tuple)
    """What of it is not sent."""


def describe_file(name: str, base: Path, time_unit: str | None = None) -> Description:
    """A trace, or a data set ('sharegpt:FILE', 'jsonl:FILE', or a file that is one). UserError for anything else."""
    if name.partition(":")[0] in ("sharegpt", "jsonl", "hf"):
        return _of_records(name, base)
    try:
        return _of_trace(read_trace(name, base, time_unit))
    except UserError as error:
        if "unknown trace format" not in error.message:
            raise
        for kind in ("jsonl", "sharegpt"):
            try:
                return _of_records(f"{kind}:{name}", base)
            except UserError:
                continue
        advice = f"a data set has prompts or messages (docs/workloads.md); {ADVICE}"
        raise UserError("neither a trace nor a data set", file=error.file, line=error.line, advice=advice) from None


def describe_load(load: Load, base: Path, what: str = "a load") -> Description:
    """The requests of a load, drawn as a run draws them."""
    if isinstance(load, TraceReplay):
        return _of_trace(read_trace(load.trace, base, load.time_unit))
    count = load.turns * max(1, _DRAWN // load.turns)
    drawn = list(outlines(load, count, base))
    contexts: dict[int, int] = {}
    entered = []
    for each in drawn:
        own = sum(tokens for _, tokens in each.segments)
        context = contexts.get(each.conversation, 0) if each.turn else load.system_tokens
        entered.append(context + own)
        contexts[each.conversation] = context + own + each.output_tokens
    return Description(
        what, count, _lengths(np.array(entered)), _lengths(np.array([each.output_tokens for each in drawn])),
        sessions=count // load.turns if load.turns > 1 else None, turns=float(load.turns) if load.turns > 1 else None,
        think_s=load.think_s if load.turns > 1 else None, hit_rate=theoretical_reuse(drawn, load.system_tokens).hit_rate,
        notes=(f"drawn: {count:,} requests with seed {load.seed}",),
    )  # fmt: skip


def _of_trace(trace: Trace) -> Description:
    made = replayed(trace, 1.0, len(trace))
    starts = np.unique(trace.sessions, return_index=True)[1]
    arrivals, sizes = trace.due_s[starts], np.bincount(trace.sessions)
    several = sizes[sizes > 1]
    pauses = [wait.delay_s for wait in trace.waits.values() if wait.delay_s is not None]
    parents = [row for wait in trace.waits.values() for row in wait.rows]
    return Description(
        f"a trace: {trace.format.title}", len(trace), _lengths(trace.input_tokens), _lengths(trace.output_tokens), **_arrivals(arrivals),
        sessions=len(several), turns=float(several.mean()) if len(several) else None, branches=len(parents) - len(set(parents)),
        think_s=float(np.median(pauses)) if pauses else None, hit_rate=theoretical_reuse(made).hit_rate, notes=tuple(trace.notes),
        lost=(trace.format.lost,) if trace.format.lost else (),
    )  # fmt: skip


def _of_records(name: str, base: Path) -> Description:
    records, scale = read_records(name, base), TextScale()
    turns = [turn for record in records for turn in record]
    entered = np.array([scale.tokens(len(f"{turn.system or ''} {turn.text}".split())) for turn in turns])
    made = [
        tokens for turn in turns
        if (tokens := turn.answer_tokens if turn.answer_tokens is not None else turn.answer and scale.tokens(len(turn.answer.split())))
    ]  # fmt: skip
    several = [len(record) for record in records if len(record) > 1]
    return Description(
        "a data set", len(turns), _lengths(entered), _lengths(np.array(made)) if made else None, sessions=len(several),
        turns=float(np.mean(several)) if several else None,
        notes=(f"{len(records):,} records; tokens are estimated, 4 for 3 words; a turn holds its own text, without those before it",),
        lost=tuple(f"{count:,} {kind}" for kind, count in records.left_out.items()),
    )  # fmt: skip


def _arrivals(at_s: npt.NDArray[np.float64]) -> dict[str, float | None]:
    """Of arrivals in order of time."""
    span, gaps = float(at_s[-1] - at_s[0]), np.diff(at_s)
    if not span:
        return {"duration_s": 0.0, "rate": None, "burstiness": None, "peak_rate": None}
    within = np.arange(len(at_s)) - np.searchsorted(at_s, at_s - _PEAK_S, side="right") + 1
    peak = float(within.max()) / min(_PEAK_S, span)
    return {"duration_s": span, "rate": len(gaps) / span, "burstiness": float(gaps.std() / gaps.mean()), "peak_rate": peak}


def _lengths(tokens: npt.NDArray[np.int64]) -> Lengths:
    ordered = np.sort(tokens)
    ranks = {q: int(ordered[max(0, int(np.ceil(q / 100 * len(ordered))) - 1)]) for q in QUANTILES}
    return Lengths(int(ordered[0]), float(ordered.mean()), ranks, int(ordered[-1]))
