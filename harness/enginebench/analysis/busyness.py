"""How busy the machine was with other work in a run, and whether that differs between two."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median

from enginebench.analysis.analysis import Analysis
from enginebench.domain.formatting import percent

SHARE = 0.05
"""Of the CPUs: a difference that can be seen in figures."""
LOAD = 0.25
"""Of the load average for each core, where the share of other work is not recorded."""


def compare_busyness(base: Analysis, candidate: Analysis) -> str:
    """'machine busier: other work used 34 % of the CPUs, 2 % in the base', 'machine as busy as before', or that it is not recorded."""
    before, after = (_foreign(each) for each in (base, candidate))
    if before is not None and after is not None:
        if abs(after - before) < SHARE:
            return "machine as busy as before"
        word = "busier" if after > before else "quieter"
        return f"machine {word}: other work used {percent(after, 2)} of the CPUs, {percent(before, 2)} in the base"
    loads, cores = [_load(each) for each in (base, candidate)], base.run.machine.get("logical_cores")
    before, after = loads
    if before is None or after is None or not isinstance(cores, int):
        return "other work on the machine is not recorded"
    if abs(after - before) < LOAD * cores:
        return "load average as before"
    return f"machine {'busier' if after > before else 'quieter'}: load average {after:.1f} at the start, {before:.1f} in the base"


def _foreign(analysis: Analysis) -> float | None:
    """The median over the cells of the share of all CPUs that others used."""
    return _median(cell.hardware.foreign for row in analysis.rows for cell in row.cells if cell.ran)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def _load(analysis: Analysis) -> float | None:
    """The load average over a minute when the run began."""
    loads = analysis.run.machine.get("load_average")
    first = loads[0] if isinstance(loads, list) and loads else None
    return float(first) if isinstance(first, int | float) else None
