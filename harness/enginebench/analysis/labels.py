"""Labels of loads for tables and sentences: one line for a load, and what distinguishes several loads."""

from __future__ import annotations

from collections.abc import Sequence

from enginebench.domain import Load, field_names, load_fields


def distinguishing_labels(loads: Sequence[Load]) -> list[str]:
    """For each load what distinguishes it from the others, besides level and lengths: 'requests 64, duration 8 s, prompts text', or ''.

    Omits values that are 0 or not set. Loads with the same lengths and level that are not equal have different texts.
    """
    fields = [declared for name, declared in load_fields().items() if name not in field_names("lengths")]
    varying = [its for its in fields if len({load.value(its.name) for load in loads}) > 1]
    return [
        ", ".join(its.text(value) for its in varying if its.name not in load.level_fields and (value := load.value(its.name)))
        for load in loads
    ]


def load_text(load: Load) -> str:
    """A load in one line: '4 streams x 128 + 64 tokens, 16 requests'."""
    limit = f", at most {load.limit} in flight" if load.limit else ""
    ends = [f"{load.requests:,} requests"] if load.requests else []
    ends += [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    turns = f", conversations of {load.turns}" if load.turns > 1 else ""
    return f"{load.level_text} x {load.shape_text}{turns}{limit}, {' or '.join(ends) or 'every row'}"
