"""Each request of a load before it has text: its length, when it is due, and the parts it shares with others.

A prompt is a sequence of segments. A segment is a number and a length: equal numbers mean equal text, different numbers mean text that
differs from the first token on. Shared prefixes, the blocks of a trace and a prompt's own text are all segments. Does not know tokenizers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from enginebench.domain import DrawnLoad, Load, TraceReplay
from enginebench.workload.arrivals import due_times
from enginebench.workload.lengths import Lengths
from enginebench.workload.traces import BLOCK_TOKENS, Trace, read_trace


@dataclass(frozen=True, slots=True)
class Outline:
    segments: tuple[tuple[int, int], ...]
    """(number, tokens) of each part of the prompt, in order."""
    output_tokens: int
    due_s: float | None = None
    conversation: int = -1
    turn: int = 0


def outlines(load: Load, count: int, base: Path) -> Iterator[Outline]:
    """The first `count` requests of a load without a data set."""
    if isinstance(load, TraceReplay):
        return _replayed(read_trace(load.trace, base), load.time_scale, count)
    return _drawn(load, count)


def _drawn(load: Load, count: int) -> Iterator[Outline]:
    due = due_list(load, count)
    for index, (tokens, output) in enumerate(Lengths.of(load).draw(load.seed, count)):
        assert tokens is not None  # noqa: S101  # `check` refuses 'data' without a data set
        assert output is not None  # noqa: S101
        conversation, turn = divmod(index, load.turns)
        own, shared = load.prefix_groups + index, load.prefix_tokens
        segments: tuple[tuple[int, int], ...] = ((own, tokens),)
        if load.prefix_groups and turn == 0:
            segments = ((conversation % load.prefix_groups, shared), (own, tokens - shared))
        yield Outline(segments, output, due[conversation] if turn == 0 else None, conversation if load.turns > 1 else -1, turn)


def due_list(load: Load, count: int) -> list[float] | list[None]:
    """When each of `count` conversations is due, in s; None for each in a closed loop."""
    return due_times(load, count).tolist() if isinstance(load, DrawnLoad) else [None] * count


def _replayed(trace: Trace, time_scale: float, count: int) -> Iterator[Outline]:
    due, inputs, outputs = trace.due_s.tolist(), trace.input_tokens.tolist(), trace.output_tokens.tolist()
    for row in range(count):
        segments: list[tuple[int, int]] = []
        missing = inputs[row]
        for block in trace.blocks[row]:
            segments.append((block, min(BLOCK_TOKENS, missing)))
            missing -= segments[-1][1]
        if missing:
            segments.append((trace.distinct_blocks + row, missing))
        yield Outline(tuple(segments), outputs[row], due[row] * time_scale)
