"""Describes how an engine ended: exit statuses in words, and the last lines of a log."""

import os
import re
import signal
from pathlib import Path

LIKELY_CAUSE = {signal.SIGKILL: " (out of memory?)", signal.SIGILL: " (built for another CPU?)"}


class LaunchFailed(Exception):  # noqa: N818  (named like Unsupported)
    """An engine did not become ready. reason: one sentence. log_tail: the end of its log."""

    def __init__(self, reason: str, log_tail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.log_tail = reason, log_tail


def describe_exit(code: int, *, requested: bool = False) -> str:
    """Describe an exit status of `subprocess` (negative: a signal). requested: the harness stopped the process."""
    if code >= 0:
        words = f"exited with code {code}"
        cause = ""
    else:
        try:
            number = signal.Signals(-code)
            words, cause = f"killed by {number.name}", LIKELY_CAUSE.get(number, "")
        except ValueError:
            words, cause = f"killed by signal {-code}", ""
    return f"stopped by the harness ({words})" if requested else words + cause


def log_tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, without colours and with progress bars reduced to their last state; empty without a log."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 65_536))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).rstrip()
    return "\n".join([line.rstrip("\r").rpartition("\r")[2] for line in plain.split("\n")][-lines:])
