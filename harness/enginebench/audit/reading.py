"""Reads a YAML file of claims, with `sources` (docs/audit.md) or as a plain list (`plain`). Does not know physics or verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from enginebench.audit.claims import SECTIONS, Claims
from enginebench.audit.plain import as_claims, is_plain
from enginebench.errors import did_you_mean
from enginebench.inputs.source import Location, Source, read
from enginebench.inputs.validation_errors import as_user_error


def read_claims(file: Path) -> Claims:
    """Read a file of claims. UserError with line and key for an invalid entry or a reference to a missing one."""
    source = read(file)
    if is_plain(source.data):
        source = as_claims(source)
    try:
        claims = Claims.model_validate(source.data)
    except ValidationError as error:
        raise as_user_error(error, source, Claims) from None
    for location, name, known in _references(claims):
        if name not in known:
            raise source.error(f"unknown entry '{name}'", location, advice=did_you_mean(name, known))
    _check_unique(claims, source)
    if not len(claims):
        raise source.error("contains no claim", (), advice=f"write at least one entry under: {', '.join(SECTIONS)}")
    return claims


def _references(claims: Claims) -> Iterator[tuple[Location, str, set[str]]]:
    """Every reference to another entry of the file: its location, the name, and the valid names."""
    ids = {claim.id for claim in claims.serving if claim.rates is not None}
    for section in SECTIONS:
        for i, entry in enumerate(getattr(claims, section)):
            yield (section, i, "source"), entry.source, set(claims.sources)
    for i, ratio in enumerate(claims.ratios):
        for side in ("a", "b"):
            if isinstance(name := getattr(ratio, side), str):
                yield ("ratios", i, side), name, ids


def _check_unique(claims: Claims, source: Source) -> None:
    seen: set[str] = set()
    for i, claim in enumerate(claims.serving):
        if claim.id in seen:
            raise source.error(f"duplicate id '{claim.id}'", ("serving", i, "id"), advice="ids must be unique")
        seen.add(claim.id)
