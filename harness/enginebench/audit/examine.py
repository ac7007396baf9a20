"""Audits a file of published claims, or a stored run: reads it, judges every claim, prices what has a price."""

from __future__ import annotations

from pathlib import Path

from enginebench.analysis.analysis import analyse
from enginebench.audit.claims import Claims, read_claims
from enginebench.audit.from_run import claims_of
from enginebench.audit.outcome import Audit
from enginebench.audit.physics import Physics
from enginebench.audit.statements import contradictions, judge_all
from enginebench.errors import UserError
from enginebench.metrics.costs import Cost, Prices, cost
from enginebench.physics.deployment_limits import weights_of
from enginebench.physics.detect import gpus_of, machine_named
from enginebench.records.run_folder import open_run


def audit_claims(target: str | Path, *, hardware: str | None = None, prices: Prices | None = None) -> Audit:
    """Judge every claim of a YAML file of published numbers, or every row of a run folder.

    hardware: of a run, what it ran on ('4xh100', 'cpu'); None: the accelerators that it recorded. prices: also what the rates cost.
    UserError for a file with mistakes (file, line and key), a run without throughput, and `hardware` with a file of claims.
    """
    path = Path(target)
    claims, physics = _of_run(path, hardware) if path.is_dir() else _of_file(path, hardware)
    costs = _costs(claims, physics, prices) if prices is not None else {}
    return Audit(claims, judge_all(claims, physics), contradictions(claims, physics), costs, prices.currency if prices else "")


def _of_file(file: Path, hardware: str | None) -> tuple[Claims, Physics]:
    if hardware is not None:
        raise UserError("--hardware is for a run: a claim names its own", advice="write it under `hardware` of the claim")
    return read_claims(file), Physics()


def _of_run(folder: Path, hardware: str | None) -> tuple[Claims, Physics]:
    """The rows of a run, with the weights of its own checkpoints where these are at hand."""
    run = open_run(folder)
    analysis = analyse(run)
    deployments = {(row.deployment.model, row.deployment.precision): row.deployment.checkpoint for row in analysis.rows}
    found = {key: weights_of(*key, checkpoint) for key, checkpoint in deployments.items()}
    own = {key: weights for key, weights in found.items() if weights is not None}
    return claims_of(analysis, hardware or machine_named(gpus_of(run.record.machine))), Physics(own)


def _costs(claims: Claims, physics: Physics, prices: Prices) -> dict[str, Cost]:
    """What the claimed rates cost, by id of the claim; only claims with known hardware and price."""
    found: dict[str, Cost] = {}
    for claim in claims.serving:
        if claim.rates is None or claim.hardware is None:
            continue
        try:
            name, count = physics.device(claim.hardware)
        except UserError:
            continue  # the finding says that the hardware is unknown
        bandwidth = physics.bandwidth_gb_s(claim.hardware) / count
        priced = cost(claim.rates[1], name, count, prices, bandwidth_gb_s=bandwidth)
        if priced.per_million_tokens is not None or priced.joules_per_token is not None:
            found[claim.id] = priced
    return found
