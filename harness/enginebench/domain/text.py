"""Makes text from outside safe to show: labels, error messages and server output may contain anything. Imports nothing."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text with control characters escaped, so that it cannot control the terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
