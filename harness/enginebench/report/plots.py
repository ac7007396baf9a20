"""How rows are divided over small multiples: one panel per model and request shape. Knows no figure and no page."""

from __future__ import annotations

from collections.abc import Iterable

from enginebench.analysis.analysis import LOAD_COLUMNS, Analysis, Row
from enginebench.domain import KINDS, Load, field_names
from enginebench.report.columns import heading

_TITLED = field_names("level", "lengths", "extent")
"""Fields that a panel's title does not repeat: they are in its shape or level, or only say how long was measured."""


def panel_groups(analysis: Analysis) -> list[tuple[str, list[Row]]]:
    """(title, rows) of each plot: the same model, and loads that differ only in level. Closed loops come first."""
    names: dict[tuple[str, Load], str] = {}
    rows: dict[tuple[str, Load], list[Row]] = {}
    models, kinds = {row.deployment.model for row in analysis.rows}, {row.load.kind for row in analysis.rows}
    for row in sorted(analysis.rows, key=lambda row: KINDS.index(type(row.load))):
        key = (row.deployment.model, row.load.without_level(*field_names("extent")))
        rows.setdefault(key, []).append(row)
        facts = [row.deployment.model] if len(models) > 1 else []
        facts += [row.load.kind] if len(kinds) > 1 else []
        facts += [f"at most {row.load.limit} in flight"] if row.load.limit else []
        other = [c for c in row.labels if c in LOAD_COLUMNS and c not in _TITLED and row.labels[c]]
        names[key] = " · ".join([*facts, row.load.shape_text, *(f"{heading(c)} {row.labels[c]}" for c in other)])
    return [(names[key], its) for key, its in rows.items()]


def by_deployment(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Name -> its rows by rising level."""
    out: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.load.level):
        out.setdefault(row.name, []).append(row)
    return out
