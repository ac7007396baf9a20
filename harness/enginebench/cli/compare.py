"""`bench compare`: two stored runs, figure by figure, and thresholds that fail a nightly job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FILE, price_options, print_json
from enginebench.errors import Exit

_EPILOG = """\b
Examples:
  bench compare results/2026-11-21-nightly results/2026-11-22-nightly
  bench compare BASE CANDIDATE --fail-if 'ttft.p99 > +5%' --fail-if 'output_throughput < -3%'
\b
Exit code 1: a threshold is broken. The whole 95 % interval of the change lies beyond it, which takes four restarts
(--repeats 4) in either run; with fewer the threshold is inconclusive, which only fails with --strict.
"""


@click.command(epilog=_EPILOG)
@click.argument("base", type=FILE)
@click.argument("candidate", type=FILE)
@click.option(
    "--fail-if",
    "thresholds",
    multiple=True,
    metavar="'FIGURE > +N%'",
    help="Exit with 1 if a figure has significantly changed by more: 'ttft.p99 > +5%', 'output_throughput < -3%' (repeatable).",
)
@click.option("--strict", is_flag=True, help="Also exit with 1 if a threshold is inconclusive.")
@click.option("--md", "as_markdown", is_flag=True, help="Print Markdown on stdout.")
@price_options
@AS_JSON
def compare(
    base: Path,
    candidate: Path,
    thresholds: Sequence[str],
    strict: bool,
    as_markdown: bool,
    prices: enginebench.Prices | None,
    as_json: bool,
) -> int:
    """Compare two runs: what changed around them, and which figures are better, worse, or cannot be told apart."""
    found = enginebench.compare(base, candidate, fail_if=thresholds, prices=prices)
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo(found.to_markdown() if as_markdown else found.to_text(), nl=False)
    return Exit.THRESHOLD if found.failed(strict=strict) else Exit.OK
