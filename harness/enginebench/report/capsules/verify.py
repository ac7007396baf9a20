"""`bench verify`: every file of a capsule against its hash, and every figure computed again from the raw samples."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from enginebench.analysis.analysis import analyse
from enginebench.domain import JSON, plain_object
from enginebench.errors import UserError
from enginebench.metrics.registry import unit_of
from enginebench.records.capsule import Capsule
from enginebench.records.remote.local import local
from enginebench.records.run_folder import Run
from enginebench.report.capsules.contents import FIGURES, VERSION, derived_files, numbers_of

_APART = 1e-9
"""Relative difference of a figure that two builds of numpy may make."""


@dataclass(frozen=True)
class Discrepancy:
    """One file or figure that is not as it should be."""

    kind: Literal["file", "figure"]
    where: str
    """'run/samples/1a2b.parquet', or 'cell 1a2b: ttft_p50'."""
    why: str

    def __str__(self) -> str:
        return f"{self.where} {self.why}"


@dataclass(frozen=True)
class Verification:
    """What `verify` found."""

    files: int
    """Files whose hash was checked."""
    figures: int
    """Figures that were computed again."""
    discrepancies: tuple[Discrepancy, ...]
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether everything is as it was packed."""
        return not self.discrepancies

    def to_dict(self) -> dict[str, JSON]:
        return {"holds": self.holds, **plain_object(self)}


def verify(capsule: str | Path) -> Verification:
    """Check every hash of a capsule and compute every figure again from its raw samples.

    It proves that the capsule is consistent, not who made it. UserError when the file is not a capsule, is unsafe to unpack, or has a newer
    schema.
    """
    opened = Capsule(local(capsule))
    with tempfile.TemporaryDirectory(prefix="enginebench-verify-") as name:
        folder = Path(name)
        found = [Discrepancy("file", file, why) for file, why in opened.unpack(folder).items()]
        found += [Discrepancy("file", file, why) for file, why in _not_derived(folder)]
        differing, figures, notes = _figures(folder)
    return Verification(len(opened.manifest.files), figures, (*dict.fromkeys(found), *differing), notes)


def _run(folder: Path) -> Run:
    """The run of an unpacked capsule. UserError when it cannot be read."""
    return Run(folder / "run")


def _not_derived(folder: Path) -> Iterator[tuple[str, str]]:
    """Files that are stored wrongly, or that do not follow from the records."""
    try:
        run = _run(folder)
    except UserError as error:
        yield "run/run.json", error.message
        return
    for cell, why in run.damage().items():
        yield f"run/cells/{cell}.json", f"is damaged: {why}"
    expected = derived_files(run)
    for name in sorted({*expected, *(f"locks/{file.name}" for file in (folder / "locks").glob("*"))}):
        file = folder / name
        if file.is_file() and file.read_bytes() != expected.get(name):
            yield name, "does not follow from the records of the run"


def _figures(folder: Path) -> tuple[list[Discrepancy], int, tuple[str, ...]]:
    """Figures that differ, how many were computed again, and what to know about that."""
    try:
        stored = _stored(folder / FIGURES)
        analysis = analyse(_run(folder))
    except UserError as error:
        return [Discrepancy("figure", "all figures", f"cannot be computed again: {error.message}")], 0, ()
    now = numbers_of(analysis)
    found = list(_differences(stored["numbers"], now))
    if stored.get("answer") != analysis.sentence:
        found.append(Discrepancy("figure", "answer", f"was {stored.get('answer')!r}, computed again {analysis.sentence!r}"))
    writer = stored.get("enginebench")
    notes = () if writer == VERSION else (f"the figures were computed by enginebench {writer}, and again by {VERSION}",)
    return found, sum(len(figures) for figures in now.values()), notes


def _stored(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_bytes())
        if all(isinstance(figures, dict) for figures in data["numbers"].values()):
            return dict(data)
    except (OSError, ValueError, RecursionError, KeyError, TypeError, AttributeError):
        pass
    raise UserError(f"{FIGURES} is missing or damaged")


def _differences(stored: Mapping[str, Mapping[str, JSON]], now: Mapping[str, Mapping[str, JSON]]) -> Iterator[Discrepancy]:
    for name in {**stored, **now}:
        before, after = stored.get(name), now.get(name)
        if before is None or after is None:
            yield Discrepancy(
                "figure", name, "is not among the stored figures" if before is None else "cannot be computed: it is not in the run"
            )
            continue
        for figure in {**before, **after}:
            was, is_now = before.get(figure), after.get(figure)
            if not _same(was, is_now):
                unit = unit_of(figure.partition(" ")[0])
                yield Discrepancy("figure", f"{name}: {figure}", f"was {_text(was, unit)}, computed again {_text(is_now, unit)}")


def _same(one: JSON, other: JSON) -> bool:
    numbers = [value for value in (one, other) if isinstance(value, int | float) and not isinstance(value, bool)]
    return math.isclose(numbers[0], numbers[1], rel_tol=_APART, abs_tol=1e-15) if len(numbers) == 2 else one == other


def _text(value: JSON, unit: str) -> str:
    return "undefined" if value is None else f"{value:.9g} {unit}".rstrip() if isinstance(value, int | float) else str(value)
