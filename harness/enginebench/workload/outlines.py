"""Each request of a load before it has text: its length, when it is due, and the parts it shares with others.

A prompt is a sequence of segments. A segment is a number and a length: equal numbers mean equal text, different numbers mean text that
differs from the first token on. Shared prefixes, the blocks of a trace and a prompt's own text are all segments. Does not know tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enginebench.domain import DrawnLoad, Load, TraceReplay
from enginebench.workload.arrivals import due_times
from enginebench.workload.lengths import Lengths
from enginebench.workload.traces import Trace, Wait, read_trace


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a request of a recorded session waits for."""

    rows: tuple[int, ...]
    """Earlier requests of the load that must have ended."""
    delay_s: float
    """From the end of the last of them."""


@dataclass(frozen=True, slots=True)
class Outline:
    segments: tuple[tuple[int, int], ...]
    """(number, tokens) of each part of the prompt, in order."""
    output_tokens: int
    due_s: float | None = None
    conversation: int = -1
    turn: int = 0
    waiting: Waiting | None = None
    """None: the request is sent when it is due, or after the turn before it."""
    whole: bool = True
    """The prompt is all that is sent; False: a later turn, which is sent after the turns and answers before it."""


def outlines(load: Load, count: int, base: Path) -> Iterator[Outline]:
    """The first `count` requests of a load without a data set."""
    if isinstance(load, TraceReplay):
        return replayed(read_trace(load.trace, base, load.time_unit), load.time_scale, count)
    return _drawn(load, count)


def _drawn(load: Load, count: int) -> Iterator[Outline]:
    due, lengths = due_list(load, count), Lengths.of(load)
    common = lengths.shared if any(lengths.shared) else ()
    chosen = lengths.choose(load.seed, count) if common else []
    for index, (entered, output) in enumerate(lengths.draw(load.seed, count)):
        assert entered is not None  # noqa: S101  # `check` refuses 'data' without a data set
        assert output is not None  # noqa: S101
        conversation, turn = divmod(index, load.turns)
        own, shared = len(common) + load.prefix_groups + index, load.prefix_tokens
        tokens = entered - (load.system_tokens if turn == 0 else 0)  # which is a message of its own
        segments: tuple[tuple[int, int], ...] = ((own, tokens),)
        if load.prefix_groups and turn == 0:
            segments = ((conversation % load.prefix_groups, shared), (own, tokens - shared))
        if common and turn == 0 and (of_class := common[chosen[index]]):
            segments = ((chosen[index], of_class), (own, tokens - of_class))
        when, group = due[conversation] if turn == 0 else None, conversation if load.turns > 1 else -1
        yield Outline(segments, output, when, group, turn, whole=turn == 0)


def due_list(load: Load, count: int) -> list[float] | list[None]:
    """When each of `count` conversations is due, in s; None for each in a closed loop."""
    return due_times(load, count).tolist() if isinstance(load, DrawnLoad) else [None] * count


def replayed(trace: Trace, time_scale: float, count: int) -> Iterator[Outline]:
    """The first `count` requests of a trace."""
    own, outputs, sessions = trace.own_s.tolist(), trace.output_tokens.tolist(), trace.sessions.tolist()
    alone = [True] * count
    for row in range(1, count):
        if sessions[row] == sessions[row - 1]:
            alone[row] = alone[row - 1] = False
    known: dict[int, tuple[tuple[int, int], ...]] = {}
    contexts = {wait.context for wait in trace.waits.values()}
    turn = 0
    for row in range(count):
        turn = turn + 1 if row and sessions[row] == sessions[row - 1] else 0
        wait = trace.waits.get(row)
        segments = _segments(trace, row, wait, known)
        if row in contexts:
            known[row] = segments
        due, waiting = _when(own[row], wait, time_scale)
        yield Outline(segments, outputs[row], due, -1 if alone[row] else sessions[row], turn, waiting)


def _when(own_s: float, wait: Wait | None, time_scale: float) -> tuple[float | None, Waiting | None]:
    if wait is None:
        return own_s * time_scale, None
    delay_s = 0.0 if wait.delay_s is None else wait.delay_s * time_scale
    return own_s * time_scale if wait.delay_s is None else None, Waiting(wait.rows, delay_s)


def _segments(trace: Trace, row: int, wait: Wait | None, known: dict[int, tuple[tuple[int, int], ...]]) -> tuple[tuple[int, int], ...]:
    """The blocks of the prompt, or the prompt and the answer that it repeats, and then its own text. An answer is text of its length."""
    segments: list[tuple[int, int]] = []
    missing = int(trace.input_tokens[row])
    if wait is not None and wait.context >= 0:
        answer = trace.distinct_blocks + len(trace) + wait.context, int(trace.output_tokens[wait.context])
        segments = [*known[wait.context], answer]
        missing -= sum(tokens for _, tokens in segments)
    for block in trace.blocks[row]:
        segments.append((block, min(trace.block_tokens, missing)))
        missing -= segments[-1][1]
    if missing:
        segments.append((trace.distinct_blocks + row, missing))
    return tuple(segments)
