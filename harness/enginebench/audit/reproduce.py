"""Writes a scenario that tests a claim: its deployment, at the stated load or at loads at which the claim is possible."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping

import yaml

from enginebench.audit.claims import Claims, Serving
from enginebench.audit.finding import Finding
from enginebench.audit.outcome import Audit
from enginebench.domain import JSON
from enginebench.errors import UserError

INPUT_TOKENS, OUTPUT_TOKENS = 1024, 256
"""Lengths for a claim without lengths."""
MAX_STREAMS = 1024


def audit_scenarios(audit: Audit, checkpoints: Mapping[tuple[str, str], str] | None = None) -> Iterator[tuple[str, str | UserError]]:
    """The scenarios that would reproduce the claimed speeds: (id of the claim, YAML text), or why there is none for it.

    checkpoints: (model, precision) -> weights to use, as a scenario writes them; otherwise those that the file of claims names.
    """
    for finding in audit.findings:
        if finding.serving is not None:
            try:
                yield finding.id, scenario_text(finding.serving, finding, audit.claims, checkpoints or {})
            except UserError as error:
                yield finding.id, error


def scenario_text(claim: Serving, finding: Finding, claims: Claims, own: Mapping[tuple[str, str], str]) -> str:
    """The scenario of one claim as YAML, with the user's `own` checkpoints. UserError if it states too little or names no checkpoint."""
    if claim.engine is None or claim.precision is None or claim.rates is None:
        missing = [name for name in ("engine", "precision") if getattr(claim, name) is None] or ["rate"]
        raise UserError(f"cannot reproduce {claim.id}: its {missing[0]} is not stated")
    checkpoint = _checkpoint(claim, claim.precision, claims, own)
    source = claims.sources[claim.source]
    quoted = f" ({claim.says})" if claim.says else ""
    about = f"Claim of {source.title}{f' ({source.url})' if source.url else ''}: {finding.claim}{quoted}. Audit: {finding.text}."
    file_type = claim.precision.removeprefix("ud-")  # what the header of one of Unsloth's dynamic files says
    data: dict[str, JSON] = {
        "name": claim.id,
        "title": f"Claim: {finding.claim}"[:200],
        "models": {claim.model: {"checkpoints": {file_type: checkpoint}}},
        "deployments": [_deployment(claim, file_type)],
        "loads": [_load(claim, finding)],
        "repeats": 3,
    }
    wrapped = textwrap.wrap(f"Written by `bench audit`. {about}", 118, break_on_hyphens=False, break_long_words=False)
    head = "\n".join(f"# {line}" for line in wrapped)
    return f"{head}\n{yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True)}"


def _checkpoint(claim: Serving, precision: str, claims: Claims, own: Mapping[tuple[str, str], str]) -> str:
    """The checkpoint: the user's, else that in the file of claims for this engine."""
    if (user_checkpoint := own.get((claim.model, precision))) is not None:
        return user_checkpoint
    known = claims.checkpoints.get(claim.model, {}).get(precision)
    reference = known.get(claim.engine or "") if isinstance(known, dict) else known
    if reference is None:
        raise UserError(
            f"cannot reproduce {claim.id}: no checkpoint of {claim.model} in {precision} is known for {claim.engine}",
            advice=f"pass --checkpoint {claim.model}/{precision}=REFERENCE",
        )
    return reference


def _deployment(claim: Serving, precision: str) -> dict[str, JSON]:
    degrees = {name: getattr(claim, name) for name in ("tp", "pp", "dp_replicas", "attention_dp", "ep")}
    parallelism: dict[str, JSON] = {name: degree for name, degree in degrees.items() if degree != 1}
    deployment: dict[str, JSON] = {"engine": claim.engine, "model": claim.model, "precision": precision}
    return deployment | parallelism | ({"options": dict(claim.options)} if claim.options else {})


def _load(claim: Serving, finding: Finding) -> dict[str, JSON]:
    """The stated concurrency; else one stream, and one, two and four times the smallest possible batch (16 if there is none)."""
    least = finding.least or 16
    streams = [claim.streams] if claim.streams else sorted({min(n, MAX_STREAMS) for n in (1, least, 2 * least, 4 * least)})
    return {
        "concurrency": list(streams) if len(streams) > 1 else streams[0],
        "input_tokens": claim.isl or INPUT_TOKENS,
        "output_tokens": claim.osl or OUTPUT_TOKENS,
    }
