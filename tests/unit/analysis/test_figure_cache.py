"""Figures of cells are computed once, and never those of other content."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import enginebench as eb
import pytest
from enginebench.analysis import figure_cache, rows
from enginebench.analysis.cell_result import CellResult
from enginebench.records.cell import CellRecord
from enginebench.records.run_folder import Run
from enginebench.records.window import Window
from enginebench.report.export import to_json

Computed = Callable[[], int]


@pytest.fixture
def run(synthetic_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Some cells of it, with a cache of its own that is empty."""
    monkeypatch.setattr(figure_cache, "folder", lambda: tmp_path / "home" / "figures")
    found = Run(Path(shutil.copytree(synthetic_run.path, tmp_path / "run")))
    found.update(replace(found.record, cells=(*found.record.cells[:3], *found.record.cells[9:12])))
    return found


@pytest.fixture
def computed(run: Run, monkeypatch: pytest.MonkeyPatch) -> Computed:
    """computed() analyses the run and says how many cells were computed for it."""
    calls: list[str] = []
    compute = rows.result_in

    def counted(window: Window, record: CellRecord, *rest: Any) -> CellResult:
        calls.append(record.id)
        return compute(window, record, *rest)

    monkeypatch.setattr(rows, "result_in", counted)

    def analyse() -> int:
        calls.clear()
        assert eb.open_run(run.path).analysis.rows
        return len(calls)

    return analyse


def measured(run: Run) -> int:
    return sum(cell.status == "ok" for cell in run.cells())


def test_a_cached_report_is_the_same_to_the_last_digit(run: Run) -> None:
    first = to_json(eb.open_run(run.path).analysis)
    assert any(figure_cache.folder().iterdir())
    assert to_json(eb.open_run(run.path).analysis) == first
    assert first.count('"figures"') > 6


def test_nothing_is_computed_twice(run: Run, computed: Computed) -> None:
    assert [computed() for _ in range(3)] == [measured(run), 0, 0]


def test_it_may_be_deleted(run: Run, computed: Computed) -> None:
    computed()
    shutil.rmtree(figure_cache.folder())
    assert computed() == measured(run)


def test_a_new_cell_is_computed_alone(run: Run, computed: Computed) -> None:
    cell = next(cell for cell in run.cells() if cell.status == "ok")
    samples = run.samples(cell.id)
    run.drop(cell.id)
    computed()
    run.add_cell(cell, samples)
    assert computed() == 1


def test_another_record_of_a_cell_is_computed_anew(run: Run, computed: Computed) -> None:
    computed()
    cell = next(cell for cell in run.cells() if cell.status == "ok")
    run.add_cell(replace(cell, client=replace(cell.client, health={**cell.client.health, "cpu_fraction": 0.99})), run.samples(cell.id))
    assert computed() == 1


def test_another_server_start_changes_its_cells(run: Run, computed: Computed) -> None:
    computed()
    launch = next(iter(run.launches().values()))
    run.add_launch(replace(launch, ended="killed"))
    assert computed() == sum(cell.status == "ok" and cell.launch_id == launch.id for cell in run.cells())


def test_samples_of_before_their_hash_was_stored_are_hashed(run: Run, computed: Computed) -> None:
    one, other = [cell for cell in run.cells() if cell.status == "ok"][:2]
    for cell in (one, other):
        record = run.path / "cells" / f"{cell.id}.json"
        data = {name: value for name, value in json.loads(record.read_text()).items() if name not in ("samples_sha256", "checksum")}
        record.write_text(json.dumps(data))
    computed()
    files = [run.path / "samples" / f"{cell.id}.parquet" for cell in (one, other)]
    stat = files[0].stat()
    shutil.copy(files[1], files[0])
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert computed() == 1


def test_damaged_samples_are_found_although_figures_are_known(run: Run, computed: Computed) -> None:
    computed()
    cell = next(cell for cell in run.cells() if cell.status == "ok")
    file = run.path / "samples" / f"{cell.id}.parquet"
    stat = file.stat()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    failed = [each for row in eb.open_run(run.path).analysis.rows for each in row.cells if each.record.id == cell.id]
    assert "damaged" in (failed[0].record.reason or "")


def test_an_slo_or_prices_are_another_context(run: Run) -> None:
    opened = eb.open_run(run.path)
    plain = opened.analysis
    with_slo = opened.judged_by(slo="ttft_ms=30,tpot_ms=5").analysis
    assert any(row.figures.get("goodput") for row in with_slo.rows)
    assert not any(row.figures.get("goodput") for row in plain.rows)
    again = opened.judged_by(slo="ttft_ms=60,tpot_ms=50").analysis
    assert [row.figures.get("slo_attainment") for row in again.rows] != [row.figures.get("slo_attainment") for row in with_slo.rows]


def test_other_code_computes_anew(run: Run, computed: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    computed()
    monkeypatch.setattr("enginebench.analysis.dependencies.code_hash", lambda: "another")
    assert computed() == measured(run)


def test_a_metric_from_elsewhere_turns_it_off(run: Run, computed: Computed, monkeypatch: pytest.MonkeyPatch) -> None:
    from enginebench.metrics import registry

    foreign = replace(registry.metrics()["ttft"], name="mine", compute=lambda _: registry.one(1.0))
    monkeypatch.setitem(registry._declared, "mine", foreign)
    assert [computed() for _ in range(2)] == [measured(run)] * 2


@pytest.mark.parametrize("content", [b"", b"{}", b"\0\xff", b"0" * 64 + b'\n{"x": 1}', b"[1]"])
def test_a_damaged_cache_is_ignored(run: Run, computed: Computed, content: bytes) -> None:
    computed()
    for file in figure_cache.folder().iterdir():
        file.write_bytes(content)
    assert [computed() for _ in range(2)] == [measured(run), 0]


def test_a_cache_that_cannot_be_written_is_none(run: Run, computed: Computed, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file where the folder should be")
    assert [computed() for _ in range(2)] == [measured(run)] * 2


def test_the_oldest_files_go_when_they_take_too_much(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = eb.open_run(run.path)
    assert opened.analysis.rows
    (old,) = figure_cache.folder().iterdir()
    os.utime(old, (0, 0))
    monkeypatch.setattr(figure_cache, "_MOST_BYTES", 1.2 * old.stat().st_size)
    assert opened.judged_by(slo="ttft_ms=30").analysis.rows
    assert not old.exists()
    assert len(list(figure_cache.folder().iterdir())) == 1
