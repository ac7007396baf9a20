"""Errors that a person can act on, and the exit codes of `bench`.

Every error that bad input can cause is a `UserError`: one sentence, where it is (file, line, key) and what to write instead.
The command line prints it without a traceback. Anything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum
from pathlib import Path


class Exit(IntEnum):
    """Exit codes of `bench`; scripts and CI may rely on them."""

    OK = 0
    THRESHOLD = 1
    """A threshold or a regression check failed."""
    USAGE = 2
    """Bad command line or bad scenario; nothing was launched."""
    CELLS_FAILED = 3
    """The sweep ended, but cells failed or are missing, or every one was skipped."""
    PIPE_CLOSED = 141
    """Whoever read the output has gone (`bench report | head`); what the shell says of any program that a pipe ends."""
    INTERRUPTED = 130
    """Ctrl-C; what was measured is stored and the same command resumes."""


class UserError(Exception):
    """Bad input: one message with file, line, key and advice; becomes exit code 2."""

    def __init__(
        self, message: str, *, file: Path | None = None, line: int | None = None, key: str | None = None, advice: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.file, self.line, self.key, self.advice = message, file, line, key, advice

    def __str__(self) -> str:
        place = ""
        if self.file is not None:
            place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        key = f"{self.key}: " if self.key else ""
        advice = f"\n  {self.advice}" if self.advice else ""
        return f"{place}{key}{self.message}{advice}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The advice for an unknown word: the nearest known spelling, then what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    listing = ", ".join(names)
    return f"did you mean '{near[0]}'? (known: {listing})" if near else f"known: {listing}"
