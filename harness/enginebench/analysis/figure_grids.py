"""Who is best in any figure, not only in the one that decides: the same rules, tests and sentences, for the headings of a report. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from enginebench.analysis.conclusion import Grid
from enginebench.analysis.regimes import Field
from enginebench.analysis.rows import Row
from enginebench.analysis.scales import groups
from enginebench.analysis.scope import scope_of
from enginebench.analysis.statements import grid


def figure_grids(rows: Sequence[Row], figure: str, equal_within: float | None = None) -> tuple[Grid, ...]:
    """A grid for each model, kind of load and setting where the figure is known. No SLO leaves anything out."""
    models = tuple(dict.fromkeys(row.deployment.model for row in rows))
    scopes = {model: scope_of([row for row in rows if row.deployment.model == model]) for model in models}
    fields = {
        model: Field(
            [(i, row) for i, row in enumerate(rows) if row.deployment.model == model and not scopes[model].refuses(row)],
            figure, margin=equal_within,
        )
        for model in models
    }  # fmt: skip
    found = (grid(group, fields[group.scale.model]) for group in groups(rows, dict.fromkeys(models, figure), {}))
    return tuple(its for its in found if its is not None)
