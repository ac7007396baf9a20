"""The answer of a run: regimes, capacities, trust and what to run, put together from their modules. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from enginebench.analysis.capacity import capacities
from enginebench.analysis.choice import choice
from enginebench.analysis.conclusion import Conclusion
from enginebench.analysis.headline import headline
from enginebench.analysis.launch_command import launch_command
from enginebench.analysis.regimes import Field
from enginebench.analysis.rows import Row
from enginebench.analysis.scales import groups
from enginebench.analysis.scope import scope_of
from enginebench.analysis.sequential import Looks
from enginebench.analysis.statements import grid
from enginebench.analysis.trust import trust_of
from enginebench.domain import Load
from enginebench.metrics.slo import Slo
from enginebench.records.launch import LaunchRecord
from enginebench.records.run import RunRecord


def conclude(
    rows: Sequence[Row],
    run: RunRecord,
    launches: Mapping[str, LaunchRecord],
    *,
    slo: Slo | None = None,
    equal_within: float | None = None,
    missing: int = 0,
    currency: str = "",
) -> Conclusion:
    """Everything that may be concluded.

    equal_within: the margin below which a difference is equal in practice, as a share; None: that of the metric. missing: cells that were
    not measured yet. currency: of the prices, for the sentences.
    """
    models = tuple(dict.fromkeys(row.deployment.model for row in rows))
    figures = {model: decides(model, rows) for model in models}
    scopes = {model: scope_of([row for row in rows if row.deployment.model == model]) for model in models}
    sorted_rows = list(groups(rows, figures, {model: scope.text for model, scope in scopes.items()}))
    searched = _only_searched(rows, run)
    fields = fields_of(rows, run, figures, slo=slo, equal_within=equal_within)
    grids = tuple(
        its for group in sorted_rows if (kept := group.without(searched)) is not None
        and (its := grid(kept, fields[group.scale.model])) is not None
    )  # fmt: skip
    pooled = groups(rows, figures, {}, apart=False)
    broken = {(row.deployment.model, row.name) for row in rows if row.excluded}
    limits = (
        tuple(its for its in capacities(list(pooled), slo, run) if (its.model, its.deployment) not in broken) if slo is not None else ()
    )
    commands = {f"{row.deployment.model}/{row.name}": command for row in rows if (command := launch_command(row, launches))}
    choices = tuple(found for model in models if (found := choice(model, grids, limits, commands)) is not None)
    by_model = {model: headline(model, grids, limits, scopes[model].text, currency) or _nothing(model, rows) for model in models}
    sentence = " ".join(f"{model}: {text}" if len(models) > 1 else text for model, text in by_model.items())
    again = f"bench run {run.scenario.get('file') or run.name}"
    trust = trust_of(rows, figures, missing, again)
    return Conclusion(sentence or "Nothing could be measured.", by_model, grids, limits, choices, trust, equal_within, commands)


def fields_of(
    rows: Sequence[Row], run: RunRecord, figures: Mapping[str, str], *, slo: Slo | None, equal_within: float | None
) -> dict[str, Field | Looks]:
    """For each model the rules by which its deployments are compared. figures: model -> the figure that decides, see `decides`."""
    out: dict[str, Field | Looks] = {}
    for model, figure in figures.items():
        its = [(i, row) for i, row in enumerate(rows) if row.deployment.model == model]
        scope = scope_of([row for _, row in its])
        field = Field([(i, row) for i, row in its if not scope.refuses(row)], figure, slo if figure == "goodput" else None, equal_within)
        out[model] = field if run.auto_repeats is None else Looks(field, run.auto_repeats)
    return out


def decides(model: str, rows: Sequence[Row]) -> str:
    """The figure that decides for a model: goodput if an SLO gives any of its rows one, else output throughput."""
    its = [row for row in rows if row.deployment.model == model and row.ranked]
    return "goodput" if any(row.figures.get("goodput") for row in its) else "output_throughput"


def _only_searched(rows: Sequence[Row], run: RunRecord) -> set[Load]:
    """The loads that are probes of a single deployment's search: they compare nothing, and their result is a capacity."""
    probes = {probe for its in run.probes.values() for probe in its}
    times = Counter(row.load for row in rows)
    return {row.load for row in rows if times[row.load] == 1 and row.cells and all(cell.record.id in probes for cell in row.cells)}


def _nothing(model: str, rows: Sequence[Row]) -> str:
    its = [row for row in rows if row.deployment.model == model]
    if any(row.sound for row in its) and not any(row.ranked for row in its):
        return "Nothing can be ranked: no deployment that is not invalid keeps the rule for quality."
    if any(row.sound for row in its):
        return "Nothing can be ranked: no row has an output throughput."
    if any(row.verdict == "invalid" for row in its):
        return "Nothing can be ranked: every cell that ran is invalid, for the reasons given."
    return "Nothing could be measured."
