"""Errors that a user can act on, and the exit codes of `bench`.

Every error that bad input can cause is a `UserError`: one sentence, its place (file, line, key), and what to write instead.
The command line prints it without a traceback. Any other exception is a bug in enginebench and keeps its traceback.
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
    """The reader of the output closed the pipe (`bench report | head`): 128 + SIGPIPE, as shells report it."""
    INTERRUPTED = 130
    """Ctrl-C or kill; measured cells are stored and the same command resumes."""


class UserError(Exception):
    """Bad input; exit code 2. `str(error)` has one line with place and message, and one with advice."""

    def __init__(
        self, message: str, *, file: Path | None = None, line: int | None = None, key: str | None = None, advice: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        """What is wrong, in one sentence."""
        self.file = file
        """The file that is wrong, or that holds what is wrong."""
        self.line = line
        """Counted from 1."""
        self.key = key
        """The key or option, such as 'loads[0].rate'."""
        self.advice = advice
        """What to write or do instead."""

    def __str__(self) -> str:
        place = ""
        if self.file is not None:
            place = f"{self.file}:{self.line}: " if self.line else f"{self.file}: "
        key = f"{self.key}: " if self.key else ""
        advice = f"\n  {self.advice}" if self.advice else ""
        return f"{place}{key}{self.message}{advice}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Advice for an unknown word: the nearest known spelling, then all known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    listing = ", ".join(names)
    return f"did you mean '{near[0]}'? (known: {listing})" if near else f"known: {listing}"
