"""Describes how an engine ended: exit statuses in words, and the last lines of a log."""

import os
import re
import signal
from pathlib import Path

LIKELY_CAUSE = {signal.SIGKILL: " (out of memory?)", signal.SIGILL: " (built for another CPU?)"}


_MOST = 240
"""Characters of a telling line."""


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


def describe_shell_exit(code: int, *, requested: bool = False) -> str:
    """`describe_exit` for a status as shells and containers state it: 128 + the signal's number."""
    return describe_exit(128 - code if 128 < code <= 192 else code, requested=requested)


_CAUSE = re.compile(
    r"(?i)\b\w*(?:error|exception)\b|\bfatal\b|\bfailed\b|not available|unrecognized|unknown|out of memory"
    r"|cannot|can't|could not|couldn't|unable to|no such|not enough|panicked at|segmentation fault|invalid argument"
)
"""A line of a log that states why a program ended."""
_CONSEQUENCE = re.compile(
    r"(?i)root cause|engine core init\w* failed|failed to load model|leaked|exception ignored|exiting|shutting down|another exception"
    r"|received sig(?:quit|term)|^(?:file |raise |traceback|warning|note: run with)"
)
"""A line that only says that something before it failed, or where."""
_IGNORED = re.compile(r"^.*Exception ignored in.*\n(?:Traceback.*\n(?:[ \t].*\n)*.*(?:\n|$))?", re.MULTILINE)
"""What Python writes of an error while it clears up."""
_PREFIX = re.compile(
    r"^(?:\(\S+ pid=\d+\) |\[?\d{4}-\d\d-\d\d[T ][\d:.,]+Z?\]? |\[rank\d+\]: |(?:ERROR|CRITICAL|FATAL)[ :]+|\d\d-\d\d [\d:]+ "
    r"|\[[\w./]+:\d+\] )+"
)
"""What a logger writes before its messages."""


def telling_line(log: str) -> str:
    """The line of a log that says why a program ended: the last one with an error, else the last one; empty for an empty log."""
    log = _IGNORED.sub("", log)
    lines = [stripped for line in log.splitlines() if (stripped := _PREFIX.sub("", line.strip()).strip())]
    causes = [line for line in lines if _CAUSE.search(line) and not _CONSEQUENCE.search(line)]
    found = next(iter(causes[::-1] or lines[::-1]), "")
    return found if len(found) <= _MOST else f"{found[: _MOST - 1]}\N{HORIZONTAL ELLIPSIS}"


def log_tail(log: Path, lines: int = 60) -> str:
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
