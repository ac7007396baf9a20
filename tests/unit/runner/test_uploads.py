"""What a run does with a store, beside the network: which run it goes on with, and the names of new ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from enginebench.records.remote.filesystem import RemoteFolder, StoreError
from enginebench.records.remote.lease import Lease
from enginebench.records.remote.mirror import Mirror
from enginebench.records.run_folder import Run, find_runs
from enginebench.runner.events import CellEnded, LaunchEnded, RunOpened
from enginebench.runner.uploads import Uploads, stored_in

from tests.small_runs import cells, small_run

DAY = "2026-01-01T03:00:00+00:00"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "first"))
    (tmp_path / "store").mkdir()
    return f"file://{tmp_path}/store"


def nights(store: str, *measured: int) -> str:
    """Stores runs of one plan with so many cells; returns the plan's id."""
    mirror = Mirror.of(store)
    for day, count in enumerate(measured, 1):
        run = small_run(mirror.local / f"night-{day}", DAY, measured=count, streams=(1,))
        mirror.push(f"night-{day}")
    return run.record.plan_id


def test_a_year_of_finished_nights_is_not_brought_here(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_id = nights(store, 8, 8, 3)
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "second"))
    brought: list[str] = []
    real = RemoteFolder.download
    monkeypatch.setattr(RemoteFolder, "download", lambda self, name, file: (brought.append(name), real(self, name, file))[1])
    uploads = Uploads(store, print)
    uploads.prepare("night", plan_id, whole=False)
    assert not [name for name in brought if "/samples/" in name]
    runs = find_runs(uploads.folder)
    assert [run.finished for run in runs] == [True, True, False]
    known = len(brought)
    Uploads(store, print).prepare("night", plan_id, whole=False)
    assert len(brought) == known, "once"
    with uploads:
        uploads.resume(runs[-1])
        assert not Run(runs[-1].path).damage(), "the one that goes on is here as a whole"
    Uploads(store, print).prepare("night", plan_id, whole=True)
    assert not any(run.damage() for run in find_runs(uploads.folder))


def test_two_machines_that_begin_at_the_same_moment_take_two_names(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_run(tmp_path / "model", DAY, measured=0)
    record = Run(tmp_path / "model").record
    first = Uploads(store, print)
    with first:
        assert first.create(first.folder / "night", record, "a") is not None
        monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "second"))
        second = Uploads(store, print)
        with second:
            assert second.create(second.folder / "night", record, "b") is None, "its lease is held"
            assert second.create(second.folder / "night-2", record, "b") is not None


def test_a_store_that_goes_away_is_one_sentence_and_everything_follows_when_it_is_back(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    model = small_run(tmp_path / "model", DAY, streams=(1,))
    uploads = Uploads(store, said.append)
    gone = [False]
    real = RemoteFolder.upload

    def upload(self: RemoteFolder, file: Path, name: str) -> object:
        if gone[0]:
            raise StoreError("s3://x cannot be written: it is gone")
        return real(self, file, name)

    monkeypatch.setattr(RemoteFolder, "upload", upload)
    monkeypatch.setattr("enginebench.runner.uploads._AGAIN_AFTER_S", 0.0)
    plan, records = cells(streams=(1,)), list(model.cells())
    with uploads:
        run = uploads.create(uploads.folder / "night", model.record, "name: night\n")
        assert run is not None
        uploads(RunOpened(run.path, 8, 0))
        for launch in model.launches().values():
            run.add_launch(launch)
        for i, record in enumerate(records):
            gone[0] = 2 <= i < 5
            run.add_cell(replace(record, samples_sha256=None), model.samples(record.id))
            uploads(CellEnded(plan[i], record, 8))
        uploads(LaunchEnded(plan[0].deployment, None))
        assert not uploads._mirror.pending("night")
    assert len([text for text in said if text.startswith("warning")]) == 1, said
    assert "cannot be written: it is gone; the run goes on, and its cells stay in" in said[0]
    assert "can be reached again" in said[1]
    assert len(list((tmp_path / "store" / "night" / "cells").iterdir())) == 8


def test_a_writer_that_was_followed_uploads_nothing_more(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    model = small_run(tmp_path / "model", DAY, measured=0)
    with Uploads(store, said.append) as uploads:
        run = uploads.create(uploads.folder / "night", model.record, "name: night\n")
        assert run is not None
        monkeypatch.setattr(Lease, "ours", property(lambda _: False))
        uploads(RunOpened(run.path, 8, 0))
    assert "another bench has taken over night" in said[0]
    assert not (tmp_path / "store" / "night" / "run.json").exists()


def test_what_is_imported_goes_to_the_store_at_once(store: str, tmp_path: Path) -> None:
    with stored_in(store) as folder:
        small_run(folder / "imported", DAY, measured=2)
    assert len(list((tmp_path / "store" / "imported" / "cells").iterdir())) == 2
    with stored_in(tmp_path / "results") as folder:
        assert folder == tmp_path / "results"
