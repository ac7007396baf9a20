"""How far the figures of a run can be relied on: one line with the commonest cause and its fix, and the details by cause."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from enginebench.analysis.conclusion import Cause, Trust, TrustLevel
from enginebench.analysis.restarts import outliers, too_few
from enginebench.analysis.rows import CellResult, Row
from enginebench.domain.formatting import counted
from enginebench.metrics.statistics import repeats_needed
from enginebench.records.cell import has_samples
from enginebench.validity import Reason, merged

_HALF = 0.5
"""With doubts in more than this share of the cells the figures are only indicative."""
_DOUBTS = ("suspect", "invalid")


def trust_of(rows: Sequence[Row], figures: Mapping[str, str], missing: int, again: str) -> Trust:
    """The trust line. figures: model -> the figure that decides. missing: cells that were not measured yet. again: the command that
    makes the run again."""
    cells = list({cell.record.id: cell for row in rows for cell in row.cells}.values())
    ran = [cell for cell in cells if cell.ran]
    every = len(cells) + missing
    causes = [*_checks(ran), *_unmeasured(cells, missing, every, again), *_restarts(rows, ran, again)]
    causes += [*_outliers(rows, figures, len(ran), again), *_short(rows, ran), *_stated(ran)]
    causes.sort(key=lambda cause: -cause.cells)
    level = _level(rows, ran, causes)
    if not ran:
        return Trust(level, tuple(causes), f"{level}: nothing was measured")
    return Trust(level, tuple(causes), f"{level}: {causes[0].text}. Fix: {causes[0].fix}" if causes else _good(ran))


def _good(ran: Sequence[CellResult]) -> str:
    return f"good: no check failed in {counted(len(ran), 'cell')}"


def _level(rows: Sequence[Row], ran: Sequence[CellResult], causes: Sequence[Cause]) -> TrustLevel:
    measured = [row for row in rows if row.status == "ok"]
    doubted = sum(cell.verdict in _DOUBTS for cell in ran)
    single = sum(_restarts_of(row) == 1 for row in measured)
    stated = any(not has_samples(cell.record) for cell in ran)
    if not ran or doubted > _HALF * len(ran) or single > _HALF * len(measured) or stated:
        return "indicative only"
    return "partly" if causes else "good"


def _checks(ran: Sequence[CellResult]) -> Iterator[Cause]:
    """One cause for each check that made a cell suspect or invalid."""
    found: dict[str, list[tuple[CellResult, Reason]]] = {}
    for cell in ran:
        for reason in cell.reasons:
            if reason.severity in _DOUBTS:
                found.setdefault(reason.check.id, []).append((cell, reason))
    for check, its in found.items():
        reasons = [reason for _, reason in its]
        cells = len({cell.record.id for cell, _ in its})
        worst = max(reasons, key=lambda reason: reason.excess)
        yield Cause(
            check, f"{worst.check.meaning} in {cells} of {counted(len(ran), 'cell')}", worst.advice or worst.check.advice, cells, len(ran),
            (merged(reasons),),
        )  # fmt: skip


def _unmeasured(cells: Sequence[CellResult], missing: int, every: int, again: str) -> Iterator[Cause]:
    """Cells that failed, one cause for each reason; cells that were not tried. Skipped cells were never asked for on this machine."""
    failed: dict[str, list[str]] = {}
    for cell in cells:
        if cell.record.status == "failed":
            reason = cell.record.reason or "no reason was recorded"
            failed.setdefault(re.sub(r"[\d.,]+", "", reason), []).append(reason)
    for reasons in failed.values():
        text = f"{len(reasons)} of {counted(every, 'cell')} failed: {reasons[0]}"
        yield Cause("failed", text, f"remove the cause, then {again} --retry-failed", len(reasons), every, (reasons[0],))
    if missing:
        yield Cause("missing", f"{missing} of {counted(every, 'cell')} are not measured yet", again, missing, every)


def _restarts(rows: Sequence[Row], ran: Sequence[CellResult], again: str) -> Iterator[Cause]:
    needed = repeats_needed()
    few = [row for row in rows if row.status == "ok" and _restarts_of(row) < needed and not _lost(row, needed)]
    if few:
        fewest = min(map(_restarts_of, few))
        cells = sum(len([cell for cell in row.cells if cell.ran]) or 1 for row in few)
        yield Cause("restarts", too_few(fewest), f"{again} --fresh --repeats {repeats_needed()}", cells, max(len(ran), cells))


def _lost(row: Row, needed: int) -> bool:
    """Whether there would be enough if none had failed, which is a cause of its own with another fix."""
    return sum(cell.ran or cell.record.status == "failed" for cell in row.cells) >= needed > sum(cell.ran for cell in row.cells)


def _restarts_of(row: Row) -> int:
    return max((found.n for found in row.figures.values() if found), default=0)


def _outliers(rows: Sequence[Row], figures: Mapping[str, str], ran: int, again: str) -> Iterator[Cause]:
    found = [each for model, figure in figures.items() for each in outliers([r for r in rows if r.deployment.model == model], figure)]
    if found:
        worst = max(found, key=lambda each: abs(each.off))
        details = tuple(f"{each.text} at {each.row.load.level_text} of {each.row.load.shape_text}" for each in found)
        yield Cause("outlier", worst.text, f"{again} --fresh", len(found), max(ran, len(found)), details)


def _short(rows: Sequence[Row], ran: Sequence[CellResult]) -> Iterator[Cause]:
    """Short cells are no cause with enough restarts, over which all figures and intervals are taken; a caveat still names them, because a
    change that every restart repeats would not be seen.
    """
    if all(_restarts_of(row) >= repeats_needed() for row in rows if row.status == "ok"):
        return
    short = sum(cell.window is not None and cell.window.state == "too short to tell" for cell in ran)
    if short:
        text = f"{short} of {counted(len(ran), 'cell')} are too short to tell whether the server was steady"
        yield Cause("short", text, "raise `requests` or set `duration_s` in the loads", short, len(ran))


def _stated(ran: Sequence[CellResult]) -> Iterator[Cause]:
    stated = [cell.record.stated for cell in ran if cell.record.stated is not None and not has_samples(cell.record)]
    if stated:
        text = f"{len(stated)} of {counted(len(ran), 'cell')} have figures that {stated[0].source} states, without raw samples"
        yield Cause("stated", text, "measure it with `bench run`", len(stated), len(ran))
