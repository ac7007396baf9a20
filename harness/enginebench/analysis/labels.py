"""Labels of loads for tables and sentences: one line for a load, and what distinguishes several loads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enginebench.domain import Load, field_names, load_fields
from enginebench.domain.load_field import LoadField, Role

SELDOM_SHOWN: tuple[Role, ...] = ("extent", "client")
"""Fields that tables and progress lines show only where loads would look the same without them: they mostly follow from the level."""


def distinguishing_labels(loads: Sequence[Load], *, hidden: tuple[Role, ...] = ()) -> list[str]:
    """For each load what distinguishes it from the others, besides level and lengths: 'requests 64, duration 8 s, prompts text', or ''.

    Omits values that are 0, not set or without effect. hidden: fields that are left out unless loads that differ would look the same.
    """
    fields = [declared for name, declared in load_fields().items() if name not in field_names("lengths")]
    varying = [its for its in fields if len({load.value(its.name) for load in loads}) > 1]
    labels: list[str] = []
    for roles, everything in ((hidden, False), ((), False), ((), True)):
        shown = [its for its in varying if its.role not in roles]
        labels = [_values(load, shown, everything=everything) for load in loads]
        if len({(load.level_text, load.shape_text, text) for load, text in zip(loads, labels, strict=True)}) == len(set(loads)):
            break
    return labels


def _values(load: Load, fields: Sequence[LoadField], *, everything: bool) -> str:
    """everything: also fields that set the level, and those without an effect on this load."""
    shown = [its for its in fields if everything or (its.name not in load.level_fields and load.uses(its.name))]
    return ", ".join(its.text(value) for its in shown if (value := load.value(its.name)))


def load_names(loads: Iterable[Load]) -> dict[Load, str]:
    """'4 streams 128 + 64 tokens, prompts text': level, lengths and what else distinguishes each load of a run."""
    each = list(dict.fromkeys(loads))
    labels = distinguishing_labels(each, hidden=SELDOM_SHOWN)
    return {load: ", ".join(filter(None, (f"{load.level_text} {load.shape_text}", text))) for load, text in zip(each, labels, strict=True)}


def load_text(load: Load) -> str:
    """A load in one line: '4 streams x 128 + 64 tokens, 16 requests'."""
    limit = f", at most {load.limit} in flight" if load.limit else ""
    ends = [f"{load.requests:,} requests"] if load.requests else []
    ends += [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    turns = f", conversations of {load.turns}" if load.turns > 1 else ""
    return f"{load.level_text} x {load.shape_text}{turns}{limit}, {' or '.join(ends) or 'every row'}"
