"""How loads are called in tables and sentences: one line each, and in what several of them differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from enginebench.domain import Load

_SHAPE = ("input_tokens", "output_tokens", "lengths")
"""What `Load.shape_text` says already."""


def without_level(load: Load, over: str, follows: Sequence[str]) -> Load:
    """What the probes of a search have in common: their load without its level and the fields that follow it."""
    unsaid: dict[str, Any] = {over: 0 if over == "concurrency" else None, **dict.fromkeys(follows, 0)}
    return replace(load, **unsaid)


def distinguishing_labels(loads: Sequence[Load]) -> list[str]:
    """For each load in what it differs from the others beside its shape: 'requests 64, duration 8 s, prompts text', or ''.

    What is 0 or not set is left out. Loads of the same shape that are not equal never have the same text.
    """
    names = [f.name for f in fields(Load) if f.name not in _SHAPE and len({getattr(load, f.name) for load in loads}) > 1]
    return [", ".join(_said(name, value) for name in names if (value := getattr(load, name))) for load in loads]


def _said(name: str, value: float | str) -> str:
    words, shown = name.removesuffix("_s").replace("_", " "), value if isinstance(value, str) else f"{value:g}"
    return f"{words} {shown} s" if name.endswith("_s") else f"{words} {shown}"


def load_text(load: Load) -> str:
    """A load in one line: '4 streams x 128 + 64 tokens, 16 requests'."""
    limit = f", at most {load.concurrency} in flight" if load.open_loop and load.concurrency else ""
    ends = [f"{load.requests:,} requests"] if load.requests else []
    ends += [f"{load.duration_s:g} s"] if load.duration_s is not None else []
    turns = f", conversations of {load.turns}" if load.turns > 1 else ""
    return f"{load.level_text} x {load.shape_text}{turns}{limit}, {' or '.join(ends) or 'every row'}"
