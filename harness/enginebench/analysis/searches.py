"""What a run remembers of its searches: which cells are the probes of each, whether one met the SLO, and what tells searches apart.

A run lists the cells it is going to have, so that what is missing can be counted; a search adds its next probe to that list when
it knows it. Nothing of a search's outcome is stored: it follows from its probes whenever a run is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from enginebench.analysis.rows import CellResult
from enginebench.domain import plain
from enginebench.errors import UserError
from enginebench.metrics.slo import Slo
from enginebench.records.store import RunRecord


@dataclass(frozen=True)
class SearchRecord:
    """One search on one deployment in one repeat. over: 'rate' or 'concurrency'; probes: cell id -> level, by rising level.

    follows: the other fields of its load that go with the level, because the scenario does not say them.
    """

    over: str
    start: float
    stop: float
    precision: float
    probes: Mapping[str, float]
    follows: tuple[str, ...] = ()


_SEARCHES = TypeAdapter(tuple[SearchRecord, ...])


def searches_of(record: RunRecord) -> tuple[SearchRecord, ...]:
    """The searches of a run, in plan order; none in runs from before there were any. UserError when they cannot be read."""
    try:
        return _SEARCHES.validate_python(record.scenario.get("searches") or [])
    except ValidationError as error:
        raise UserError(f"the searches of the run '{record.name}' cannot be read: {str(error).splitlines()[0]}") from None


def with_searches(record: RunRecord, searches: tuple[SearchRecord, ...]) -> RunRecord:
    """The run with these searches."""
    return replace(record, scenario={**record.scenario, "searches": plain(list(searches))})


def with_probe(record: RunRecord, first: str, probe: str, level: float) -> RunRecord:
    """The run with one more probe in the search that began with the cell `first`, beside its neighbours in the list of cells."""
    searches: list[SearchRecord] = []
    cells = record.cells
    for search in searches_of(record):
        probes = search.probes
        if probes.get(first) == search.start and probe not in probes:  # the first of one search may be a later probe of another
            probes = dict(sorted([*probes.items(), (probe, level)], key=lambda item: item[1]))
            if probe not in cells:
                lower = list(probes)[list(probes).index(probe) - 1]  # there is one: a search goes up from its first probe
                at = cells.index(lower) + 1
                cells = (*cells[:at], probe, *cells[at:])
        searches.append(replace(search, probes=probes))
    return replace(with_searches(record, tuple(searches)), cells=cells)


def meets(cell: CellResult, slo: Slo) -> bool | None:
    """Whether a cell met the SLO: it ran to its end, and enough of the requests in its steady window kept every limit.

    None when that cannot be told: a limit on TPOT where nobody counted the tokens, or latencies that mean nothing in this cell.
    """
    if cell.record.status != "ok" or cell.record.stopped:
        return False
    attained = cell.figures.get("slo_attainment")
    return None if attained is None else attained >= slo.share
