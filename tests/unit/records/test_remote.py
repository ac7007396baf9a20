"""Runs in a store, here a folder behind a file:// URL: order of uploads, resumption, two writers, and every reading verb."""

from __future__ import annotations

import threading
from pathlib import Path

import enginebench as eb
import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.errors import UserError
from enginebench.records.live import Process
from enginebench.records.remote import lease as leases
from enginebench.records.remote.filesystem import RemoteFile, RemoteFolder, StoreError
from enginebench.records.remote.lease import Held, take
from enginebench.records.remote.mirror import Mirror
from enginebench.records.remote.urls import mirror_of, shown, url_of
from enginebench.records.run_folder import Run, open_run

from tests.small_runs import small_run

DAY = "2026-01-01T03:00:00+00:00"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store."""
    at(tmp_path, "first", monkeypatch)
    (tmp_path / "store").mkdir()
    return f"file://{tmp_path}/store"


def at(tmp_path: Path, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, this is another machine: it has another home."""
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / machine))
    monkeypatch.chdir(tmp_path)


def measured(store: str, name: str = "night", *, cells_done: int = 16, day: str = DAY) -> tuple[Mirror, Run]:
    mirror = Mirror.of(store)
    return mirror, small_run(mirror.local / name, day, measured=cells_done)


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("s3://bucket/nights/", "s3://bucket/nights"), (Path("s3://bucket/nights"), "s3://bucket/nights"), ("gs://b", "gs://b"),
        ("file:///var/runs", "file:///var/runs"), (Path("file:///var/runs"), "file:///var/runs"), ("S3://Bucket/X", "s3://Bucket/X"),
        ("results", None), ("/var/runs", None), (Path("./a:b/c"), None), ("C:/runs", None),
    ],
)  # fmt: skip
def test_what_a_url_is(written: str | Path, url: str | None) -> None:
    assert url_of(written) == url


def test_a_password_in_a_url_is_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path))
    url = "sftp://me:secret@host/runs"
    assert shown(url) == "sftp://host/runs"
    assert "secret" not in str(mirror_of(url))


def test_a_run_comes_back_as_it_was(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, run = measured(store)
    files = [file for file in run.path.rglob("*") if file.is_file()]
    assert mirror.push("night") == len(files)
    at(tmp_path, "second", monkeypatch)
    there = open_run(Path(f"{store}/night"))
    assert there.path != run.path
    assert [cell.id for cell in there.cells()] == [cell.id for cell in run.cells()]
    assert not there.damage()
    assert not Mirror.of(store).pending("night")


class Failing(RemoteFolder):
    """Refuses every upload after the first few."""

    def __init__(self, url: str, left: int) -> None:
        super().__init__(url)
        self.left = left
        self.order: list[str] = []

    def upload(self, file: Path, name: str) -> RemoteFile:
        if self.left == 0:
            raise StoreError("the store is gone")
        self.left -= 1
        self.order.append(name)
        return super().upload(file, name)


@pytest.mark.parametrize("after", [0, 1, 5, 11, 20, 33, 40])
def test_wherever_an_upload_breaks_off_each_record_there_is_complete(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    mirror, _ = measured(store)
    mirror.remote = Failing(store, after)
    total = len(mirror.pending("night"))
    with pytest.raises(StoreError):
        mirror.push("night")
    assert len(mirror.pending("night")) == total - after, "what was uploaded is not uploaded again"
    at(tmp_path, "second", monkeypatch)
    if after >= 2:
        assert not open_run(Path(f"{store}/night")).damage()
    at(tmp_path, "first", monkeypatch)
    again = Mirror.of(store)
    assert again.push("night") == total - after
    at(tmp_path, "second", monkeypatch)
    assert open_run(Path(f"{store}/night")).finished


def test_only_what_is_new_is_brought_here(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror, run = measured(store, cells_done=4)
    mirror.push("night")
    at(tmp_path, "second", monkeypatch)
    other = Mirror.of(store)
    brought: list[str] = []
    real = RemoteFolder.download

    def download(self: RemoteFolder, name: str, file: Path) -> None:
        brought.append(name)
        real(self, name, file)

    monkeypatch.setattr(RemoteFolder, "download", download)
    other.pull()
    first = len(brought)
    other.pull()
    assert (first > 4 * 2, len(brought)) == (True, first)
    at(tmp_path, "first", monkeypatch)
    small_run(tmp_path / "more", DAY)
    for part in ("cells", "samples"):
        for file in (tmp_path / "more" / part).iterdir():
            if not (run.path / part / file.name).exists():
                file.rename(run.path / part / file.name)
    assert mirror.push("night") == 2 * 12
    at(tmp_path, "second", monkeypatch)
    other.pull()
    assert len(brought) == first + 2 * 12
    assert open_run(other.local / "night").finished


def test_a_run_that_was_removed_from_the_store_is_forgotten_unless_it_is_only_here(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, _ = measured(store)
    mirror.push("night")
    _, kept = measured(store, "kept", cells_done=2)
    _, other = measured(store, "other", cells_done=2)
    mirror.push("other")
    for file in sorted((tmp_path / "store" / "night").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    mirror.pull()
    assert not (mirror.local / "night").exists()
    assert kept.path.exists()
    assert other.path.exists()


def test_a_cell_that_two_machines_measured_is_taken_from_the_store_and_the_other_kept_aside(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror, run = measured(store, cells_done=3)
    mirror.push("night", ["scenario.yaml", "run.json"])
    at(tmp_path, "second", monkeypatch)
    other = Mirror.of(store)
    other.pull()
    small_run(tmp_path / "again", DAY, slower=1.5, measured=3)
    for part in ("cells", "samples", "launches"):
        for file in (tmp_path / "again" / part).iterdir():
            (other.local / "night" / part).mkdir(exist_ok=True)
            file.rename(other.local / "night" / part / file.name)
    other.push("night")
    theirs = {cell.id: cell.samples_sha256 for cell in open_run(other.local / "night").cells()}
    at(tmp_path, "first", monkeypatch)
    said: list[str] = []
    mirror.pull_run("night", said.append)
    assert {cell.id: cell.samples_sha256 for cell in open_run(run.path).cells()} == theirs
    assert not open_run(run.path).damage()
    aside = mirror.local / ".aside" / "night" / "cells"
    moved = {file.stem for file in aside.iterdir()}
    assert moved
    assert all(cell in said[0] for cell in moved)
    assert "was also measured elsewhere" in said[0]


# -- two writers ---------------------------------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_until_the_first_ends(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "WATCH_S", 0.5)
    folder = RemoteFolder(store)
    said: list[str] = []
    first = take(folder, "night", said.append)
    with pytest.raises(Held, match=r"another bench is writing to .*/night: process"):
        take(folder, "night", said.append)
    assert first.ours
    first.release()
    take(folder, "night", said.append).release()
    assert len([name for name in folder.names("night") if ".writer-" in name]) == 1


def test_a_writer_on_another_machine_is_watched_and_followed_when_it_is_silent(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "WATCH_S", 0.4)
    monkeypatch.setattr(leases, "RENEW_S", 0.05)
    folder = RemoteFolder(store)
    said: list[str] = []
    elsewhere = Process("elsewhere", 1, 1.0)
    with monkeypatch.context() as there:
        there.setattr(Process, "own", lambda: elsewhere)
        theirs = take(folder, "night", said.append)
    with pytest.raises(Held, match="process 1 on elsewhere"):
        take(folder, "night", said.append)
    theirs._stop.set()  # it dies, and releases nothing
    theirs._thread.join()
    ours = take(folder, "night", said.append)
    assert "watching for up to" in said[0]
    assert ours.ours
    assert not theirs.ours, "whoever comes back sees that it was followed"
    ours.release()


def test_of_many_that_follow_a_dead_writer_at_once_one_succeeds(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RemoteFolder(store)
    dead = Process(Process.own().host, 2**22 + 1, 1.0)
    with monkeypatch.context() as there:
        there.setattr(Process, "own", lambda: dead)
        theirs = take(folder, "night", lambda _: None)
        theirs._stop.set()
        theirs._thread.join()
    won, lost = [], []
    barrier = threading.Barrier(8)

    def follow() -> None:
        barrier.wait()
        try:
            won.append(take(RemoteFolder(store), "night", lambda _: None))
        except Held as error:
            lost.append(error)

    threads = [threading.Thread(target=follow) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].release()


# -- readers -------------------------------------------------------------------------------------------------------------------------


def test_every_reading_verb_takes_a_url(store: str, tmp_path: Path) -> None:
    mirror, _ = measured(store, "2026-01-01-night")
    measured(store, "2026-01-02-night", day="2026-01-02T03:00:00+00:00")
    for run in ("2026-01-01-night", "2026-01-02-night"):
        mirror.push(run)
    one, two = f"{store}/2026-01-01-night", f"{store}/2026-01-02-night"
    for arguments, expected in (
        (["report", one], "ANSWER"), (["report", one, two], "2026-01-02-night"), (["compare", one, two], ""),
        (["list", store], "2 runs in file://"), (["history", store], "history"), (["export", one, "--to", "csv", "-o", "-"], "engine"),
        (["site", store, "-o", "public"], "2 runs"), (["report", one, "--html"], ""), (["pack", one], ""), (["rerun", one], ""),
    ):  # fmt: skip
        done = CliRunner().invoke(bench, arguments)
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        assert expected in done.output, arguments
    assert (tmp_path / "2026-01-01-night.html").exists(), "not into the copy of the store"
    with eb.view(store) as viewing:
        assert viewing.viewer.page("") is not None


def test_mistakes_are_answered_in_one_sentence(store: str) -> None:
    with pytest.raises(UserError, match="has no runs"):
        eb.run_index(store)
    with pytest.raises(StoreError, match=r"cannot be used here|is no URL of a store"):
        eb.run_index("nosuchscheme://x/y")
    Mirror.of(store)
    (Path(store.removeprefix("file://")) / "night").mkdir()
    (Path(store.removeprefix("file://")) / "night" / "run.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        open_run(Path(f"{store}/night"))
