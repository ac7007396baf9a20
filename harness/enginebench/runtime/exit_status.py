"""How an engine's end is told to people: exit statuses in words, and the last lines of a log. Starts and ends nothing."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

LIKELY_CAUSE = {signal.SIGKILL: " (out of memory?)", signal.SIGILL: " (built for another CPU?)"}


class LaunchFailed(Exception):  # noqa: N818  (like Unsupported: it names what happened)
    """An engine that did not become ready: one sentence why, and the end of its log."""

    def __init__(self, reason: str, log_tail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.log_tail = reason, log_tail


def ending_in_words(code: int, *, asked: bool = False) -> str:
    """An exit status as subprocess gives it (negative: a signal) for people. asked: the harness had asked for the end."""
    if code >= 0:
        words = f"exited with code {code}"
        cause = ""
    else:
        try:
            number = signal.Signals(-code)
            words, cause = f"killed by {number.name}", LIKELY_CAUSE.get(number, "")
        except ValueError:
            words, cause = f"killed by signal {-code}", ""
    return f"stopped by the harness ({words})" if asked else words + cause


def log_tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, without colours and with progress bars reduced to their last state; empty when there is none."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 65_536))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).rstrip()
    return "\n".join([line.rstrip("\r").rpartition("\r")[2] for line in plain.split("\n")][-lines:])
