"""What the home page, the list of runs and the trends say about one run: its answer, its trust, its main figures. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from enginebench.analysis.analysis import Analysis, Row
from enginebench.analysis.comparison import pair_keys
from enginebench.analysis.labels import load_text
from enginebench.analysis.machine_text import machine_text
from enginebench.domain import JSON, plain_object
from enginebench.domain.formatting import counted, printable
from enginebench.metrics.registry import unit_of
from enginebench.records.run import RunRecord
from enginebench.report.answer import answer
from enginebench.report.run import Run
from enginebench.report.run_facts import cells_text, size_text


@dataclass(frozen=True)
class Point:
    """The main figure of one deployment under one load: output tokens/s, or with an SLO the requests/s that meet it."""

    pair: str
    """Equal for the same deployment and load in any run."""
    deployment: str
    engine: str
    load: str
    """With the model, where the run has several."""
    figure: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None
    suspect: bool = False


@dataclass(frozen=True)
class Entry:
    id: str
    """The run's name in addresses."""
    name: str
    """Of its scenario."""
    title: str
    created_at: str
    machine: str
    size: str
    cells: str
    finished: bool
    trust: str
    trust_text: str
    answer: str
    """What to run and why, a line for each model; the whole is on its page."""
    models: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    points: tuple[Point, ...] = field(default=(), repr=False)

    @property
    def date(self) -> str:
        """'2026-11-22 11:51'"""
        return self.created_at[:16].replace("T", " ")


def entry_data(entry: Entry) -> dict[str, JSON]:
    return plain_object(entry)


def read_entry(data: dict[str, Any]) -> Entry:
    """The inverse of `entry_data`. LookupError or TypeError for anything else."""
    lists = {name: tuple(data[name]) for name in ("models", "engines", "versions")}
    return Entry(**{**data, **lists, "points": tuple(Point(**point) for point in data["points"])})


def unread_entry(slug: str, run: RunRecord, *, stored: int) -> Entry:
    """Of a run whose samples have not been read: without an answer. stored: number of its cells."""
    cells = f"{stored} of {counted(len(run.cells), 'cell')} stored"
    texts = (run.name, str(run.scenario.get("title") or ""), run.created_at, machine_text(run.machine), "", cells)
    name, title, created_at, machine, size, cells = map(printable, texts)
    return Entry(slug, name, title, created_at, machine, size, cells, finished=stored == len(run.cells), trust="", trust_text="", answer="")


def entry_of(slug: str, run: Run) -> Entry:
    """UserError when its samples are damaged."""
    analysis, record = run.analysis, run.folder.record
    trust, rows = analysis.conclusion.trust, analysis.rows
    versions = sorted({f"{its.deployment.engine} {its.version}" for its in analysis.launches.values() if its.version})
    texts = {
        "name": record.name, "title": str(record.scenario.get("title") or ""), "created_at": record.created_at,
        "machine": machine_text(record.machine), "size": size_text(analysis), "cells": cells_text(analysis), "trust": trust.level,
        "trust_text": trust.text, "answer": "\n".join(f"{model}: {text}" if model else text for model, text in answer(analysis).headings),
    }  # fmt: skip
    return Entry(
        id=slug, finished=run.folder.finished,
        models=tuple(dict.fromkeys(row.deployment.model for row in rows)),
        engines=tuple(dict.fromkeys(row.deployment.engine for row in rows)),
        versions=tuple(versions), points=tuple(_points(analysis)),
        **{name: printable(text) for name, text in texts.items()},
    )  # fmt: skip


def _points(analysis: Analysis) -> list[Point]:
    figure = "goodput" if analysis.slo is not None else "output_throughput"
    several = len({row.deployment.model for row in analysis.rows}) > 1
    return [point for row in analysis.rows if (point := _point(row, figure, several=several)) is not None]


def _point(row: Row, figure: str, *, several: bool) -> Point | None:
    found = row.figures.get(figure)
    if found is None or not row.sound:
        return None
    load = f"{row.deployment.model} · {load_text(row.load)}" if several else load_text(row.load)
    return Point(
        pair_keys(row)[0], row.name, row.deployment.engine, load, figure, unit_of(figure), found.value, found.low, found.high,
        row.verdict == "suspect",
    )  # fmt: skip
