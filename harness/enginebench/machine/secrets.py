"""What a secret looks like: values of environment variables that hold one, the ways a value may be written, and well-known token forms.

Does not know files or engines. Other rooms remove secrets from what they store (`enginebench.runner.redaction`) or refuse to publish a
file that holds one (`enginebench.report.capsules.scan`).
"""

from __future__ import annotations

import base64
import json
import mmap
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""A shorter key, such as 'x', is a placeholder; replacing it would only garble what is stored."""
_NAMES = re.compile(
    r"(?:^|_)(?:TOKENS?|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|PAT|API_?KEYS?|ACCESS_KEY|SECRET_KEY|PRIVATE_KEY|AUTH_KEY)$",
    re.IGNORECASE,
)
_PLACEHOLDERS = frozenset(("none", "null", "true", "false", "dummy", "empty", "test", "changeme", "token", "secret", "password"))
"""Values that stand where a secret would, and words of any log: no secrets unless a scenario names their variable."""

TOKEN_FORMS: Mapping[str, re.Pattern[bytes]] = {
    "a Hugging Face token": re.compile(rb"(?<![A-Za-z0-9_])hf_[A-Za-z0-9]{30,}"),
    "an API key (sk-...)": re.compile(rb"(?<![A-Za-z0-9_-])sk-(?:[a-z]+-)*[A-Za-z0-9_-]{32,}"),
    "a GitHub token": re.compile(rb"(?<![A-Za-z0-9_])(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{40,})"),
    "a GitLab token": re.compile(rb"(?<![A-Za-z0-9_-])glpat-[A-Za-z0-9_-]{20,}"),
    "an AWS access key": re.compile(rb"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "a Google API key": re.compile(rb"(?<![A-Za-z0-9_-])AIza[A-Za-z0-9_-]{35}"),
    "an NVIDIA API key": re.compile(rb"(?<![A-Za-z0-9_-])nvapi-[A-Za-z0-9_-]{40,}"),
    "a Slack token": re.compile(rb"(?<![A-Za-z0-9])xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    "a package registry token": re.compile(rb"(?<![A-Za-z0-9_])(?:npm_[A-Za-z0-9]{36}|pypi-AgE[A-Za-z0-9_-]{40,})"),
    "a JSON web token": re.compile(rb"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"),
    "a private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a bearer token": re.compile(rb"(?i)bearer[ \t]+(?!\*)[A-Za-z0-9._~+/-]{16,}"),
    "a password in a URL": re.compile(rb"[a-z][a-z0-9+.-]{1,15}://[^\s/:@\"'<>\\]+:(?!\*)[^\s/@\"'<>\\]{4,}@"),
}
"""What a string is -> its form, in bytes."""


def secret_variables(named: Iterable[str] = ()) -> dict[str, str]:
    """Environment variables of this process that hold a secret: by their names, and those in `named`, which are known to. Name -> value."""
    known = set(named)
    found = {name: os.environ.get(name, "") for name in sorted({*known, *filter(_NAMES.search, os.environ)})}
    return {
        name: value for name, value in found.items() if len(value) >= SHORTEST and (name in known or value.lower() not in _PLACEHOLDERS)
    }


@lru_cache(maxsize=64)
def written_forms(secret: str) -> tuple[str, ...]:
    """A secret as it is, as JSON, in a URL, and in base64."""
    encoded = base64.b64encode(secret.encode(errors="surrogateescape")).decode()
    return tuple(dict.fromkeys((secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote_plus(secret), encoded)))


def found_in(data: bytes | mmap.mmap, variables: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """(what it is, position) of each kind of secret in the data, the first of its kind. variables: as `secret_variables`."""
    for name, value in variables.items():
        places = [place for form in _search_forms(value) if (place := data.find(form)) >= 0]
        if places:
            yield f"the value of {name}", min(places)
    for what, form in TOKEN_FORMS.items():
        if (match := form.search(data)) is not None:
            yield what, match.start()


@lru_cache(maxsize=64)
def _search_forms(secret: str) -> tuple[bytes, ...]:
    """The written forms as bytes, and what every base64 text that holds the secret has in common: 'user:SECRET' of basic authentication."""
    plain = secret.encode(errors="surrogateescape")
    inside = (base64.b64encode(b"\0" * skip + plain)[-(-8 * skip // 6) : (8 * (skip + len(plain))) // 6] for skip in range(3))
    longest = [part for part in inside if len(part) >= 2 * SHORTEST]
    return tuple(dict.fromkeys((*(form.encode(errors="surrogateescape") for form in written_forms(secret)), *longest)))
