"""`bench compare`: two stored runs, figure by figure, and thresholds that fail a nightly job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from enginebench.cli.shared import AS_JSON, print_json
from enginebench.errors import Exit

_EPILOG = """\b
Examples:
  bench compare results/2026-11-21-nightly results/2026-11-22-nightly
  bench compare BASE CANDIDATE --fail-if 'ttft.p99 > +5%' --fail-if 'output_throughput < -3%'
\b
Exit code 1: a threshold is broken. The whole 95 % interval of the change lies beyond it, which takes four restarts
(--repeats 4) in either run; with fewer it cannot be told, which only fails with --strict.
"""


@click.command(epilog=_EPILOG)
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("candidate", type=click.Path(path_type=Path))
@click.option(
    "--fail-if",
    "thresholds",
    multiple=True,
    metavar="'FIGURE > +N%'",
    help="Exit with 1 if a figure has surely changed by more: 'ttft.p99 > +5%', 'output_throughput < -3%' (repeatable).",
)
@click.option("--strict", is_flag=True, help="Also exit with 1 where a threshold cannot be judged.")
@click.option("--md", "as_markdown", is_flag=True, help="Print Markdown on stdout.")
@AS_JSON
def compare(base: Path, candidate: Path, thresholds: Sequence[str], strict: bool, as_markdown: bool, as_json: bool) -> int:
    """Compare two runs: what changed around them, and which figures are better, worse, or cannot be told apart."""
    from enginebench.analysis.analysis import analyse
    from enginebench.analysis.comparison import compare_runs
    from enginebench.analysis.thresholds import judge, parse_rule
    from enginebench.records.store import open_run
    from enginebench.report.comparison import to_data, to_markdown, to_text

    rules = [parse_rule(text) for text in thresholds]
    comparison = compare_runs(analyse(open_run(base)), analyse(open_run(candidate)))
    findings = [finding for rule in rules for finding in judge(comparison, rule)]
    if as_json:
        print_json(to_data(comparison, findings))
    else:
        click.echo((to_markdown if as_markdown else to_text)(comparison, findings), nl=False)
    failing = ("broken", "inconclusive") if strict else ("broken",)
    return Exit.THRESHOLD if any(finding.state in failing for finding in findings) else Exit.OK
