"""Writes a finished text to a file: all of it or nothing."""

from __future__ import annotations

from pathlib import Path

from enginebench.errors import UserError
from enginebench.records.files import write_atomically


def write_text(file: Path, text: str) -> None:
    """Write the text; a pipe or terminal is written to, a file is replaced whole. UserError when that is not possible."""
    try:
        if file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")
        else:
            write_atomically(file, text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f"cannot be written: {error.strerror}", file=file, advice="the folder must exist and be writable") from None
