"""`bench audit`: what published numbers, or a stored run's, imply: arithmetic, fit, ceiling, contradictions; and how to test them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enginebench.cli.shared import AS_JSON, price_options, prices_of, print_json, write_text
from enginebench.errors import Exit, UserError

if TYPE_CHECKING:
    from enginebench.audit.claims import Claims
    from enginebench.audit.outcome import Audit
    from enginebench.audit.physics import Physics
    from enginebench.metrics.costs import Cost, Prices


@click.command(
    epilog="\b\nExamples:\n  bench audit scenarios/published/claims.yaml\n  bench audit scenarios/published/claims.yaml --html audit.html\n"
    "  bench audit scenarios/published/claims.yaml --scenarios reproduce/\n"
    "  bench audit results/2026-11-21-quickstart --hardware cpu\n"
    "  bench audit scenarios/published/claims.yaml --price h100.hour=2.50"
)
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--hardware", metavar="HARDWARE", help="Of a run: what it ran on, e.g. 4xh100 or cpu; default: the accelerators it names.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Write the audit as a page that opens offline.")
@click.option(
    "--scenarios", type=click.Path(path_type=Path), metavar="FOLDER", help="Write the scenario that would reproduce each claimed speed."
)
@click.option("--checkpoint", "checkpoints", multiple=True, metavar="MODEL/PRECISION=REF", help="Weights for those scenarios (repeatable).")
@price_options
@click.option("--strict", is_flag=True, help="Exit with 1 if a claim is impossible as stated or inconsistent.")
@AS_JSON
def audit(
    target: Path,
    hardware: str | None,
    html: Path | None,
    scenarios: Path | None,
    checkpoints: Sequence[str],
    prices: Path | None,
    flags: Sequence[str],
    strict: bool,
    as_json: bool,
) -> int:
    """Judge every claim of TARGET, a YAML file of published numbers or the folder of a run."""
    import shutil
    import sys

    from enginebench.audit.outcome import Audit, as_data, render_table
    from enginebench.audit.statements import contradictions, judge_all

    own = _own_checkpoints(checkpoints)
    listed = prices_of(prices, flags)
    claims, physics = _claims(target, hardware)
    findings = judge_all(claims, physics)
    costs = _costs(claims, physics, listed) if listed is not None else {}
    found = Audit(claims, findings, contradictions(claims, physics), costs, listed.currency if listed else "")
    if html is not None:
        from enginebench.audit.page import render_page

        write_text(html, render_page(found))
    if scenarios is not None:
        _write_scenarios(found, scenarios, own)
    if as_json:
        print_json(as_data(found))
    elif html is None and scenarios is None:
        color = sys.stdout.isatty()
        click.echo(render_table(found, width=shutil.get_terminal_size((120, 40)).columns, color=color), nl=False)
    else:
        click.echo(found.sentence)
    wrong = any(finding.verdict in ("impossible as stated", "inconsistent") for finding in findings)
    return Exit.THRESHOLD if strict and wrong else Exit.OK


def _claims(target: Path, hardware: str | None) -> tuple[Claims, Physics]:
    from enginebench.audit.physics import Physics

    if target.is_dir():
        return _run_claims(target, hardware)
    if hardware is not None:
        raise UserError("--hardware is for a run: a claim names its own", advice="write it under `hardware` of the claim")
    from enginebench.audit.claims import read_claims

    return read_claims(target), Physics()


def _run_claims(folder: Path, hardware: str | None) -> tuple[Claims, Physics]:
    """The rows of a run, with the weights of its own checkpoints where they are at hand."""
    from enginebench.analysis.analysis import analyse
    from enginebench.audit.from_run import claims_of
    from enginebench.audit.physics import Physics
    from enginebench.physics.deployment_limits import weights_of
    from enginebench.physics.detect import gpus_of, machine_named
    from enginebench.records.store import open_run

    run = open_run(folder)
    analysis = analyse(run)
    deployments = {(row.deployment.model, row.deployment.precision): row.deployment.checkpoint for row in analysis.rows}
    found = {key: weights_of(*key, checkpoint) for key, checkpoint in deployments.items()}
    own = {key: weights for key, weights in found.items() if weights is not None}
    return claims_of(analysis, hardware or machine_named(gpus_of(run.record.machine))), Physics(own)


def _own_checkpoints(written: Sequence[str]) -> Mapping[tuple[str, str], str]:
    """'llama4-scout/q4_k_m=/models/scout.gguf' as (model, precision) -> reference."""
    own: dict[tuple[str, str], str] = {}
    for item in written:
        name, _, reference = item.partition("=")
        model, slash, precision = name.rpartition("/")
        if not (model and slash and precision and reference):
            raise UserError(
                f"--checkpoint {item}: expected MODEL/PRECISION=REFERENCE", advice="e.g. llama4-scout/q4_k_m=/models/scout.gguf"
            )
        own[model, precision] = reference
    return own


def _costs(claims: Claims, physics: Physics, prices: Prices) -> dict[str, Cost]:
    """What the claimed rates cost where hardware and price are known, by the claim's id."""
    from enginebench.metrics.costs import cost

    found: dict[str, Cost] = {}
    for claim in claims.serving:
        if claim.rates is None or claim.hardware is None:
            continue
        try:
            name, count = physics.device(claim.hardware)
        except UserError:
            continue  # the finding says that nobody knows it
        bandwidth = physics.bandwidth_gb_s(claim.hardware) / count
        priced = cost(claim.rates[1], name, count, prices, bandwidth_gb_s=bandwidth)
        if priced.per_million_tokens is not None or priced.joules_per_token is not None:
            found[claim.id] = priced
    return found


def _write_scenarios(found: Audit, folder: Path, own: Mapping[tuple[str, str], str]) -> None:
    """One file for each claimed speed that can be reproduced; for the others, why not."""
    from enginebench.audit.reproduce import scenario_text
    from enginebench.cli.shared import show

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be made: {error.strerror}", file=folder) from None
    for finding in found.findings:
        if finding.serving is None:
            continue
        try:
            text = scenario_text(finding.serving, finding, found.claims, own)
        except UserError as error:
            show(str(error))
        else:
            write_text(folder / f"{finding.id}.yaml", text)
