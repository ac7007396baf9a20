"""Removes secrets from what a server or an engine says, before it is stored or shown.

Secrets are the key of an attached server, `container.secrets`, and tokens in the environment, which engines inherit.
"""

import contextlib
import mmap
from collections.abc import Iterable
from pathlib import Path

from enginebench.adapter import Get, Reply
from enginebench.domain import Deployment, Sample
from enginebench.machine.secrets import secret_variables, written_forms

STARS = "***"
_CUT = 6
"""Characters from which the beginning of a secret is removed at the end of a text, where an excerpt was cut off."""


def secrets_of(deployment: Deployment) -> tuple[str, ...]:
    """The secrets that a deployment's server may know, longest first."""
    named = [name for name in (deployment.api_key_env, *deployment.container.secrets) if name]
    return tuple(sorted(set(secret_variables(named).values()), key=len, reverse=True))


def redacted(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets: as they are, as JSON, in a URL, in base64, or cut off at its end."""
    for secret in secrets:
        for form in written_forms(secret):
            text = text.replace(form, STARS)
            body = text.rstrip(" .…\"'")
            cut = next((n for n in range(min(len(form) - 1, len(body)), _CUT - 1, -1) if body.endswith(form[:n])), 0)
            text = body[: len(body) - cut] + STARS if cut else text
    return text


def mask(file: Path, secrets: Iterable[str]) -> None:
    """Overwrite the secrets in a log by as many asterisks. In place, as a process may have it open; a missing file is no error."""
    with contextlib.suppress(FileNotFoundError), file.open("r+b") as log:
        if not file.stat().st_size:  # an empty file cannot be mapped
            return
        with mmap.mmap(log.fileno(), 0) as content:
            for form in (form.encode(errors="surrogateescape") for secret in secrets for form in written_forms(secret)):
                at = -1
                while (at := content.find(form, at + 1)) >= 0:
                    content[at : at + len(form)] = b"*" * len(form)


def redacted_get(get: Get, secrets: tuple[str, ...]) -> Get:
    """A `Get` whose replies do not contain the secrets."""

    def clean(path: str) -> Reply:
        reply = get(path)
        text = redacted(reply.body.decode(errors="surrogateescape"), secrets)
        return Reply(reply.status, text.encode(errors="surrogateescape"))

    return clean if secrets else get


def redact(samples: Iterable[Sample], secrets: tuple[str, ...]) -> None:
    """Redact all texts of the server, in place."""
    for sample in samples if secrets else ():
        sample.error = sample.error and redacted(sample.error, secrets)
        sample.finish_reason = sample.finish_reason and redacted(sample.finish_reason, secrets)
        sample.text = sample.text and redacted(sample.text, secrets)
        sample.end_marks = frozenset(redacted(mark, secrets) for mark in sample.end_marks)
        if sample.server_timings:
            sample.server_timings = {redacted(name, secrets): value for name, value in sample.server_timings.items()}
