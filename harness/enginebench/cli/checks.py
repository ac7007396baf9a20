"""`bench checks`: every validity check, what it means and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

import enginebench
from enginebench.cli.shared import AS_JSON, print_json
from enginebench.errors import UserError, did_you_mean


@click.command(epilog="\b\nExamples:\n  bench checks\n  bench checks client_bound --json")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@AS_JSON
def checks(ids: Sequence[str], as_json: bool) -> None:
    """List the validity checks: when each one fires, what that means for the figures, and what to change. ID: only these."""
    known = {check.id: check for check in enginebench.all_checks()}
    for name in ids:
        if name not in known:
            raise UserError(f"unknown check '{name}'", advice=did_you_mean(name, known))
    chosen = [known[name] for name in ids or known]
    if as_json:
        print_json([check.data for check in chosen])
        return
    click.echo("\n\n".join("\n".join(_lines(check)) for check in chosen))


def _lines(check: enginebench.Check) -> Iterator[str]:
    for name, text in ((check.id, check.meaning), *check.when.items(), ("next", check.advice), *_limits(check)):
        indent = "" if name == check.id else "  "
        yield click.wrap_text(f"{indent}{name:<{21 - len(indent)}}{text}", 110, subsequent_indent=" " * 21)


def _limits(check: enginebench.Check) -> Iterator[tuple[str, str]]:
    if check.withholds:
        yield "withholds", f"metrics of {' and '.join(trait.name.lower() for trait in check.withholds)}"
    if check.needs:
        yield "needs", "; ".join(evidence.name for evidence in check.needs)
