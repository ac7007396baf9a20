"""The index in a database by URL, here SQLite: what it says is what the file of one machine says. PostgreSQL itself is in tests/cluster."""

from __future__ import annotations

import json
from pathlib import Path

import enginebench as eb
import pytest
from click.testing import CliRunner
from enginebench.analysis import run_index as index
from enginebench.analysis.index import sql
from enginebench.cli import bench
from enginebench.errors import UserError

from tests.small_runs import small_run


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(index, "_SETTLED_NS", 0)
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path}/team.db"


def nights(folder: Path, count: int = 2, *, first: int = 1, slower: float = 1.0) -> Path:
    for day in range(first, first + count):
        small_run(folder / f"night-{day:02}", f"2026-01-{day:02}T03:00:00+00:00", slower=slower, streams=(1,))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten nights, of which vllm is slower from the sixth on, with a home beside them that keeps their figures."""
    folder = tmp_path_factory.mktemp("nights")
    nights(nights(folder / "results", 5), 5, first=6, slower=1.2)
    return folder


@pytest.fixture
def ten_nights(made: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(made / "home"))
    return made / "results"


def test_it_says_what_the_file_of_one_machine_says(url: str, tmp_path: Path) -> None:
    folder = nights(tmp_path / "results")
    ours, theirs = eb.run_index(folder), eb.run_index(folder, index=url)
    assert ours.runs == theirs.runs
    assert ours.rows() == theirs.rows()
    assert ours.rows("night-01", figures=["ttft_p50"]) == theirs.rows("night-01", figures=["ttft_p50"])
    assert ours.facts("night-01") == theirs.facts("night-01")
    assert ours.nights(["ttft_p50"]) == theirs.nights(["ttft_p50"])


def test_a_run_is_read_once_and_one_that_is_gone_is_forgotten(url: str, tmp_path: Path) -> None:
    folder, read = nights(tmp_path / "results"), []
    for _ in range(2):
        eb.run_index(folder, index=url, on_run=lambda done, _: read.append(done))
    assert read == [0, 1]
    for file in sorted((folder / "night-01").rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    (folder / "night-01").rmdir()
    found = eb.run_index(folder, index=url)
    assert [run.id for run in found.runs] == ["night-02"]
    assert {row.run for row in found.rows()} == {"night-02"}


def test_without_a_folder_it_lists_all_folders_and_reads_no_file(url: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        eb.run_index(nights(tmp_path / name, 1), index=url)
        (tmp_path / name).rename(tmp_path / f"{name}-gone")
    everything = eb.run_index(index=url)
    assert len(everything.runs) == 2
    assert all(run.id.endswith("/night-01") for run in everything.runs)
    assert {row.run for row in everything.rows()} == {run.id for run in everything.runs}
    assert everything.facts(everything.runs[0].id)["machine"]
    listed = CliRunner().invoke(bench, ["list", "--index", url])
    assert "2 runs in the shared index" in listed.output, listed.output


@pytest.mark.parametrize("shared", [False, True])
def test_history_from_the_index_is_that_from_the_samples(url: str, ten_nights: Path, shared: bool) -> None:
    folder = ten_nights
    read = eb.history(eb.runs(folder))
    found = eb.history(folder, index=url if shared else None)
    assert found.to_markdown() == read.to_markdown()
    assert {**found.to_dict(), "runs": []} == {**read.to_dict(), "runs": []}
    assert [change.direction for _, change in found.found.changes], "something changed"
    assert found.to_html() == read.to_html()
    if shared:
        everywhere = eb.history(None, index=url)
        assert [trend.changes for trend in everywhere.trends] == [trend.changes for trend in found.trends]


def test_list_history_site_and_view_read_it(url: str, ten_nights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = ten_nights
    opened: list[str] = []
    real = sql.SqlIndex.open

    def open_(given: str, name: str) -> sql.SqlIndex:
        opened.append(given)
        return real(given, name)

    monkeypatch.setattr(sql.SqlIndex, "open", open_)
    for arguments in (["list", str(folder)], ["history", str(folder)], ["site", str(folder), "-o", "public"]):
        del opened[:]
        done = CliRunner().invoke(bench, [*arguments, "--index", url])
        assert done.exit_code == 0, done.output
        assert opened == [url], arguments
    assert "slower" in (home := (tmp_path / "public" / "index.html").read_text()) or "%" in home
    del opened[:]
    monkeypatch.setenv(index.VARIABLE, url)
    with eb.view(folder) as viewing:
        viewing.viewer._read_once()
        assert "%" in str(viewing.viewer.page(""))
    assert opened == [url]


@pytest.mark.parametrize(
    ("given", "said"),
    [("team.duckdb", "is no URL of a database"), ("nosuch://x", "is no URL of a database"), ("sqlite:////no/such/x.db", "cannot be used")],
)  # fmt: skip
def test_a_bad_url_is_one_sentence(url: str, tmp_path: Path, given: str, said: str) -> None:
    nights(tmp_path / "results", 1)
    done = CliRunner().invoke(bench, ["list", "results", "--index", given])
    assert isinstance(done.exception, UserError)
    assert said in str(done.exception)
    assert "--index" in str(done.exception)


def test_an_index_of_a_newer_enginebench_is_refused(url: str, tmp_path: Path) -> None:
    from sqlalchemy import create_engine, text

    folder = nights(tmp_path / "results", 1)
    eb.run_index(folder, index=url)
    engine = create_engine(url)
    with engine.begin() as base:
        base.execute(text("update alembic_version set version_num = '9999'"))
    engine.dispose()
    with pytest.raises(UserError, match=r"has the tables of a newer enginebench \(9999\)"):
        eb.run_index(folder, index=url)


def test_a_run_in_a_store_is_read_by_one_machine_for_all(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from enginebench.records.remote.mirror import Mirror

    (tmp_path / "store").mkdir()
    store, read = f"file://{tmp_path}/store", []
    mirror = Mirror.of(store)
    small_run(mirror.local / "night", "2026-01-01T03:00:00+00:00", measured=2)
    mirror.push("night")
    for machine in ("one", "two"):
        monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / machine))
        found = eb.run_index(store, index=url, on_run=lambda done, _: read.append(done))
    assert read == [0], "the second machine reads it from the index"
    assert not (Mirror.of(store).local / "night").exists(), "and brings no file here"
    assert found.runs[0].counts["ok"] == 2
    assert json.loads(json.dumps(eb.index_to_dict(found)))["folder"] == store
