"""Why an engine could not be used, or must not be used any more."""

from __future__ import annotations

import traceback

from enginebench.domain import Deployment
from enginebench.errors import UserError
from enginebench.records.samples import Samples
from enginebench.runner.redaction import redacted
from enginebench.runtime import LaunchFailed, telling_line


def why_of(error: Exception, secrets: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Why an engine could not be used, and what of a log is stored with that."""
    if isinstance(error, LaunchFailed):
        log = redacted(error.log_tail, secrets)
        line, reason = telling_line(log), redacted(error.reason, secrets)
        return reason + (f": {line}" if line and line not in reason else ""), tuple(log.splitlines())
    if isinstance(error, UserError):  # its advice comes after a semicolon
        return "; ".join(line.strip() for line in str(error).splitlines()), ()
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror, ()
    return f"enginebench failed: {type(error).__name__}: {error}", tuple("".join(traceback.format_exception(error)).splitlines())


def still_busy(deployment: Deployment, samples: Samples | None) -> str | None:
    """Requests that timed out still run inside the engine and would disturb the next cell, so the engine is restarted."""
    if deployment.runtime in ("process", "docker") and samples is not None and "timeout" in samples.outcome:
        return "requests timed out and may still be running; started again for the next cell"
    return None
