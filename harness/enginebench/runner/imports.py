"""Finds the importer of other tools' files and writes them as a run folder: with raw samples where they have single requests, else with
stated figures.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count, islice
from pathlib import Path

from enginebench import __version__
from enginebench.domain import JSON, Cell, Deployment, fingerprint
from enginebench.domain.formatting import counted
from enginebench.errors import UserError
from enginebench.machine.folders import modules_in
from enginebench.metrics.registry import find
from enginebench.metrics.statistics import samples_needed
from enginebench.records import file_kinds, importers
from enginebench.records.cell import CellRecord, CellTraits, Imported, PromptFacts, Stated
from enginebench.records.dialect import caveats_of, faults_of
from enginebench.records.files import now, sha256
from enginebench.records.importer import ImportedCell, Importer, Source, is_json, read_csv
from enginebench.records.json_stream import paths_in
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run, new_run_path
from enginebench.records.samples import Samples
from enginebench.runner.import_facts import apply, known_hardware, missing

MOST_FILES = 10_000
MOST_CELLS = 20_000
"""Of one file."""
_SUFFIXES = (".json", ".jsonl", ".csv", ".txt", ".sql", ".yaml", ".yml", ".db", ".sqlite")
"""Of files that are looked at in a folder."""
_PROMPTS = PromptFacts(form="text", exact=False)
"""Other tools count the tokens of their prompts themselves, with a tokenizer that need not be the server's."""


@cache
def all_importers() -> tuple[Importer, ...]:
    """Every importer, by module name."""
    return tuple(each for module in modules_in(importers.__name__) for each in vars(module).values() if isinstance(each, Importer))


@dataclass(frozen=True)
class Found:
    """A file and who reads it."""

    importer: Importer
    source: Source


def import_run(given: Sequence[Path], results: Path, facts: Mapping[str, str] | None = None) -> Run:
    """A new run with the cells of these files, and of the files in these folders.

    facts: what the files do not say, such as 'engine' -> 'vllm' (`enginebench.runner.import_facts`). UserError for an unknown format, a
    damaged file, and a folder without any known file.
    """
    found = [each for path in given for each in _found(path)]
    read = [(each, cell) for each in found for cell in cells_of(each)]
    if not read:
        raise UserError("has no results", file=found[0].source.file)
    made = _records(read, facts or {})
    digests = {each.source.file: sha256(each.source.file) for each in found}
    tools = " and ".join(dict.fromkeys(each.importer.tool for each in found))
    files = ", ".join(f"{file.name} (sha256 {digest})" for file, digest in list(digests.items())[:4])
    more = f" and {counted(len(digests) - 4, 'more file')}" if len(digests) > 4 else ""
    about = f"Imported from {files}{more}, written by {tools}."
    first = given[0]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", first.stem if first.is_file() else first.resolve().name).strip("-._") or "imported"
    scenario: dict[str, JSON] = {"title": f"{tools}: {first.name}", "description": about, "file": first.name}
    stated = {text for _, cell in read if (text := cell.facts.get("hardware"))}
    if hardware := (facts or {}).get("hardware") or known_hardware(stated):
        scenario["hardware"] = hardware
    ids = tuple(record.id for record, _ in made)
    contents: list[JSON] = [*sorted(digests.values())]
    plan_id = fingerprint({"cells": list(ids), "files": contents, "facts": dict(facts or {})})
    run = RunRecord(name, now(), scenario, plan_id, ids, {}, __version__)  # {}: the file does not say on what machine
    folder = Run.create(new_run_path(results, name), run, f"# {about}\n")
    del read
    while made:
        record, cell = made.pop(0)  # its requests are in memory no longer than they must be
        folder.add_cell(record, _samples(cell) if record.status == "ok" else None)
        del cell
    return folder


def _samples(cell: ImportedCell) -> Samples | None:
    return None if cell.requests is None else cell.requests.samples(open_loop=cell.load.open_loop)


# -- files ---------------------------------------------------------------------------------------------------------------------


def _found(path: Path) -> list[Found]:
    """The file, or the files of a folder at any depth that a tool wrote; others in a folder are passed over."""
    if not path.is_dir():
        one = recognise(path)
        if one is None:
            raise UserError("unknown format", file=path, advice=_known_tools())
        return [one]
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and file.suffix in _SUFFIXES]
    if len(files) > MOST_FILES:
        raise UserError(f"has more than {MOST_FILES:,} files", file=path)
    found = [one for file in files if (one := _known(file)) is not None and not one.importer.form(one.source.form).aside]
    if not found:
        raise UserError("has no file of a known format", file=path, advice=_known_tools())
    return [each for each in found if not any(_is_part(each, other) for other in found)]


def _known_tools() -> str:
    return f"known are files of {', '.join(each.tool for each in all_importers())} (docs/dialects.md says what each has)"


def _is_part(one: Found, other: Found) -> bool:
    """Whether a file is a part of another one, beside it or in a folder below."""
    owner, folder = one.importer.form(one.source.form).part_of, one.source.file.parent
    return one.importer is other.importer and owner == other.source.form and folder in other.source.file.parents


def _known(file: Path) -> Found | None:
    """As `recognise`; a file in a folder that is no readable JSON or CSV is not one of a tool."""
    try:
        return recognise(file)
    except UserError:
        return None


def recognise(file: Path) -> Found | None:
    """The importer of a file by what its first object has, with the other files of that tool beside it; None if no tool is known that
    writes such files. UserError if it is damaged before that can be told.
    """
    one = _form(file)
    if one is None:
        return None
    found, form = one
    beside: dict[str, tuple[Path, ...]] = {}
    for other in found.beside(file):
        if other != file and (its := _form_or_none(other)) is not None and its[0] is found:
            beside[its[1]] = (*beside.get(its[1], ()), other)
    return Found(found, Source(file, form, beside))


def _form_or_none(file: Path) -> tuple[Importer, str] | None:
    try:
        return _form(file)
    except UserError:
        return None


def _form(file: Path) -> tuple[Importer, str] | None:
    for seen in paths_in(file) if is_json(file) else _keys(file):
        for each in all_importers():
            for form in each.forms:
                if form.found_in(seen, file.name):
                    return each, form.name
    return None


def _keys(file: Path) -> Iterator[frozenset[str]]:
    """The paths of the first object of a file that is no JSON; the columns of a table."""
    if (read := file_kinds.reader(file)) is not None:
        data = next((data for _, data in read(file, frozenset())), None)
    else:
        row = next(read_csv(file), None)
        data = None if row is None else {str(name): value for name, value in row.data.items()}
    if data is None:
        raise UserError("has no records", file=file)
    yield file_kinds.paths_of(data)


def cells_of(one: Found) -> list[ImportedCell]:
    """The cells of a file. UserError if it is damaged, also in a way that its importer does not foresee."""
    file = one.source.file
    try:
        cells = list(islice(one.importer.read(one.source), MOST_CELLS + 1))
    except UserError as error:
        if error.file is None:
            error.file = file
        raise
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        why = (str(error).splitlines() or ["?"])[0][:200]
        raise UserError(f"is damaged, or of a version of {one.importer.tool} that is not known: {why}", file=file) from error
    if len(cells) > MOST_CELLS:
        raise UserError(f"has more than {MOST_CELLS:,} results", file=file, advice="import a part of it")
    return cells


# -- records -------------------------------------------------------------------------------------------------------------------


def _records(read: Sequence[tuple[Found, ImportedCell]], facts: Mapping[str, str]) -> list[tuple[CellRecord, ImportedCell]]:
    """The cells as records. The same deployment and load once more is a repeat."""
    made: dict[str, tuple[CellRecord, ImportedCell]] = {}
    measured_by: dict[str, tuple[str, str | None]] = {}
    for one, its in read:
        deployment = apply(its.deployment, {**its.facts, **facts})
        by = measured_by.setdefault(Cell(deployment, its.load, 0).id, (one.importer.tool, its.version))
        if by != (one.importer.tool, its.version):  # another tool's figures are no repeat
            name = deployment.label or deployment.engine
            deployment = replace(deployment, label=f"{name} by {one.importer.tool} {its.version or ''}".rstrip())
        cell = next(cell for n in count() if (cell := Cell(deployment, its.load, n)).id not in made)
        reason = None if its.completed else "no request succeeded"
        traits = CellTraits(length_control="cap")  # whether lengths were forced is unknown
        source = f"{one.importer.tool}, {one.source.file.name}"
        stated = None if reason else Stated(source, dict(_supported(its, one.source)))
        record = CellRecord.of(cell, "failed" if reason else "ok", reason)
        made[cell.id] = replace(
            record, wall_s=its.wall_s, traits=traits, stated=stated, imported=_origin(one, its, deployment, facts), prompts=_PROMPTS
        ), its  # fmt: skip
    return list(made.values())


def _origin(one: Found, its: ImportedCell, deployment: Deployment, facts: Mapping[str, str]) -> Imported:
    dialect = one.importer.dialect
    streams = its.load.concurrency or None
    most = streams or its.load.requests or None  # more than are sent are never in flight
    told, samples = {**its.facts, **facts}, its.requests is not None
    return Imported(
        one.importer.tool, its.version, one.source.file.name,
        lacks=its.requests.lacks(open_loop=its.load.open_loop) if its.requests is not None else (),
        caveats=(*caveats_of(dialect, most, its.version), *its.caveats), faults=faults_of(dialect, streams, its.version),
        differs=dialect.differs(samples=samples), own=dict(its.own),
        percentiles=dialect.percentiles, told=told, missing=missing(deployment, told),
        rejected=its.rejected,
    )  # fmt: skip


def _supported(cell: ImportedCell, source: Source) -> Iterator[tuple[str, float]]:
    """The figures, without percentiles over requests that need more requests. ValueError for a figure of no known metric; UserError for one
    below 0, which none can be.
    """
    for name, value in cell.figures.items():
        found = find(name)
        if found is None:
            raise ValueError(f"an importer states '{name}', which is not a figure of any metric")
        if value < 0:
            raise source.error(f"the file is damaged: its {name} would be {value:g}, which is below 0")
        metric, percentile = found
        if percentile is None or metric.scope != "request" or cell.completed >= samples_needed(percentile):
            yield name, value
