"""The scenario file that would test a claim: its deployment, and the loads at which it is possible or was said to be measured.

Writes YAML text that `bench plan` accepts where the engine has an adapter, or says what is missing for it. It knows no engine.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

import yaml

from enginebench.audit.claims import Claims, Serving
from enginebench.audit.judge import Finding
from enginebench.domain import JSON
from enginebench.errors import UserError

INPUT_TOKENS, OUTPUT_TOKENS = 1024, 256
"""Lengths where a claim states none."""
LARGEST = 1024
"""Streams that are tried at most."""


def scenario_text(claim: Serving, finding: Finding, claims: Claims, own: Mapping[tuple[str, str], str]) -> str:
    """The scenario of one claim as YAML. own: (model, precision) -> a checkpoint of the reader's.

    UserError when the claim does not say enough, or where its weights are is not known.
    """
    if claim.engine is None or claim.precision is None or claim.rates is None:
        missing = [word for word in ("engine", "precision") if getattr(claim, word) is None] or ["rate"]
        raise UserError(f"{claim.id} cannot be reproduced: its {missing[0]} is not stated")
    checkpoint = _checkpoint(claim, claim.precision, claims, own)
    source = claims.sources[claim.source]
    quoted = f" ({claim.says})" if claim.says else ""
    about = f"{source.title}{f' ({source.url})' if source.url else ''} says: {finding.claim}{quoted}. The audit says: {finding.text}."
    data: dict[str, JSON] = {
        "name": claim.id,
        "title": f"Does it hold? {finding.claim}"[:200],
        "models": {claim.model: {"checkpoints": {claim.precision: checkpoint}}},
        "deployments": [_deployment(claim, claim.precision)],
        "loads": [_load(claim, finding)],
        "repeats": 3,
    }
    wrapped = textwrap.wrap(f"Written by `bench audit`. {about}", 118, break_on_hyphens=False, break_long_words=False)
    head = "\n".join(f"# {line}" for line in wrapped)
    return f"{head}\n{yaml.safe_dump(data, sort_keys=False, width=120, allow_unicode=True)}"


def _checkpoint(claim: Serving, precision: str, claims: Claims, own: Mapping[tuple[str, str], str]) -> str:
    """Where the weights are: what the reader says, else what the file of claims says for this engine."""
    if (mine := own.get((claim.model, precision))) is not None:
        return mine
    known = claims.checkpoints.get(claim.model, {}).get(precision)
    reference = known.get(claim.engine or "") if isinstance(known, dict) else known
    if reference is None:
        raise UserError(
            f"{claim.id} cannot be reproduced: no checkpoint of {claim.model} in {precision} is known for {claim.engine}",
            advice=f"say where it is: --checkpoint {claim.model}/{precision}=REFERENCE",
        )
    return reference


def _deployment(claim: Serving, precision: str) -> dict[str, JSON]:
    degrees = {name: getattr(claim, name) for name in ("tp", "pp", "dp_replicas", "attention_dp", "ep")}
    spread: dict[str, JSON] = {name: degree for name, degree in degrees.items() if degree != 1}
    named: dict[str, JSON] = {"engine": claim.engine, "model": claim.model, "precision": precision}
    return named | spread | ({"options": dict(claim.options)} if claim.options else {})


def _load(claim: Serving, finding: Finding) -> dict[str, JSON]:
    """The stated concurrency; else one stream, the smallest batch that could do it, and twice and four times that (16 where none could)."""
    least = finding.least or 16
    streams = [claim.concurrency] if claim.concurrency else sorted({min(n, LARGEST) for n in (1, least, 2 * least, 4 * least)})
    return {
        "concurrency": list(streams) if len(streams) > 1 else streams[0],
        "input_tokens": claim.isl or INPUT_TOKENS,
        "output_tokens": claim.osl or OUTPUT_TOKENS,
    }
