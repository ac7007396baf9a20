"""`bench compare`: two stored runs, figure by figure, and thresholds that fail a nightly job."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

import enginebench
from enginebench.cli.shared import AS_JSON, FACTS, FILE, price_options, print_json
from enginebench.errors import Exit

_EPILOG = """\b
Examples:
  bench compare results/2026-11-21-nightly results/2026-11-22-nightly
  bench compare vllm.json sglang.jsonl --set hardware=4xh100 --set precision=fp8
  bench compare BASE CANDIDATE --fail-if 'ttft.p99 > +5%' --fail-if 'output_throughput < -3%'
\b
Exit code 1: a threshold is broken; without --fail-if, output tokens/s, TTFT p50 or TPOT p50 is worse by more than --limit.
Broken: the whole 95 % interval of the change lies beyond it, which takes four restarts (--repeats 4) in either run.
With fewer: the change is beyond three times the threshold and at least 10 %, and no restart disagrees (each of the
candidate is worse than every one of the base). Else it is inconclusive, which only fails with --strict.
"""


class Percent(click.ParamType[float]):
    """'5', '5%' or 'off', as a share."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:  # type: ignore[override]  # 'off'
        if value == "off":
            return None
        try:
            share = float(str(value).strip().removesuffix("%")) / 100
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            self.fail(f"'{value}' is no percentage above 0 and below 100; write e.g. 5%, or off", param, ctx)
        return share


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
@click.option("--limit", type=Percent(), default=5.0, help="Without --fail-if: percent that counts as worse; off: never exit with 1.")
@click.option("--all", "everything", is_flag=True, help="Every figure of every pair, not only what changed.")
@click.option("--strict", is_flag=True, help="Also exit with 1 if a threshold is inconclusive.")
@click.option("--anyway", is_flag=True, help="Also compare files of other tools that are not alike; the reason is shown first.")
@FACTS
@click.option("--md", "as_markdown", is_flag=True, help="Print Markdown on stdout.")
@price_options
@AS_JSON
def compare(
    base: Path,
    candidate: Path,
    thresholds: Sequence[str],
    limit: float | None,
    everything: bool,
    strict: bool,
    anyway: bool,
    facts: Sequence[str],
    as_markdown: bool,
    prices: enginebench.Prices | None,
    as_json: bool,
) -> int:
    """Compare two runs: the deployments and loads that are better or worse, how surely, and what changed around them.

    BASE and CANDIDATE are run folders, capsules, or result files of other tools (`bench import`). Such files are only compared where what
    was served, the load and the definitions are alike; the error says what would make it possible.
    """
    found = enginebench.compare(base, candidate, fail_if=thresholds, limit=limit, prices=prices, facts=facts, anyway=anyway)
    if as_json:
        print_json(found.to_dict())
    elif as_markdown or everything:
        click.echo(found.to_markdown() if as_markdown else found.to_text(), nl=False)
    else:
        click.echo(found.to_summary((str(base), str(candidate))), nl=False)
    return Exit.THRESHOLD if found.failed(strict=strict) else Exit.OK
