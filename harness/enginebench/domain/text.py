"""Text from outside, made safe to show: labels, error messages and server output may hold anything. Imports nothing."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with control characters made visible: a label must not be able to steer the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
