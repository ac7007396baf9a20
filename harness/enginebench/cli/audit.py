"""`bench audit`: what published numbers, or those of a stored run, imply: arithmetic, fit, ceiling, contradictions; how to test them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FACTS, FILE, price_options, print_json, show, write
from enginebench.errors import Exit, UserError


@click.command(
    epilog="\b\nExamples:\n  bench audit scenarios/published/claims.yaml\n  bench audit scenarios/published/claims.yaml --html audit.html\n"
    "  bench audit scenarios/published/claims.yaml --scenarios reproduce/\n"
    "  bench audit results/2026-11-21-quickstart --hardware cpu\n"
    "  bench audit scenarios/published/claims.yaml --price h100.hour=2.50\n"
    "\b\nExit code 1: with --strict, if a claim is impossible as stated or inconsistent."
)
@click.argument("target", type=FILE)
@click.option("--hardware", metavar="HARDWARE", help="Of a run: what it ran on, e.g. 4xh100 or cpu; default: the accelerators it names.")
@click.option("--routing", default="even", help="even, zipf:EXPONENT, captured[:INPUT] (by bench routing), or a file of counts.")
@click.option("--html", type=FILE, metavar="FILE", help="Write the audit as a page that opens offline.")
@click.option("--scenarios", type=FILE, metavar="FOLDER", help="Write the scenario that would reproduce each claimed speed.")
@click.option("--checkpoint", "checkpoints", multiple=True, metavar="MODEL/PRECISION=REF", help="Weights for those scenarios (repeatable).")
@FACTS
@click.option("-v", "--why", "verbose", is_flag=True, help="Every claim with its figures and all its reasons, as always of a run.")
@price_options
@click.option("--strict", is_flag=True, help="Exit with 1 if a claim is impossible as stated or inconsistent.")
@AS_JSON
def audit(
    target: Path,
    html: Path | None,
    scenarios: Path | None,
    checkpoints: Sequence[str],
    verbose: bool,
    strict: bool,
    as_json: bool,
    **how: Any,
) -> int:
    """Judge every claim of TARGET: a YAML file of published numbers, the folder of a run, or a result file of another tool."""
    own = _own_checkpoints(checkpoints)
    found = enginebench.audit_claims(target, **how)
    if html is not None:
        write(html, enginebench.audit_to_html(found))
    if scenarios is not None:
        _write_scenarios(found, scenarios, own)
    if as_json:
        print_json(found.to_dict())
    elif html is None and scenarios is None:
        width = shutil.get_terminal_size((120, 40)).columns
        click.echo(
            found.to_text(width=width, color=sys.stdout.isatty(), verbose=verbose or target.suffix not in (".yaml", ".yml")), nl=False
        )
    else:
        click.echo(found.sentence)
    return Exit.THRESHOLD if strict and found.failed else Exit.OK


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


def _write_scenarios(found: enginebench.Audit, folder: Path, own: Mapping[tuple[str, str], str]) -> None:
    """One file per claimed speed that can be reproduced; for the others, why not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be created: {error.strerror}", file=folder) from None
    for claim, scenario in enginebench.audit_scenarios(found, own):
        if isinstance(scenario, UserError):
            show(str(scenario))
        else:
            write(folder / f"{claim}.yaml", scenario)
