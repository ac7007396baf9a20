"""The shared index in a real PostgreSQL: eight writers at once, one that is killed, and an upgrade of its tables."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import enginebench as eb
import pytest

from tests.cluster.servers import PostgreSQL, postgresql
from tests.small_runs import small_run

pytestmark = pytest.mark.cluster
WRITERS = 8
HANGS = """
import sys, time
from pathlib import Path
import enginebench as eb
from enginebench.analysis.index import sql
real, seen = sql.SqlIndex._line, []
def hang(self, columns, line):
    seen.append(line)
    if len(seen) == 20:  # facts and a part of the rows are written, nothing is committed
        print("in the middle", flush=True)
        time.sleep(600)
    return real(self, columns, line)
sql.SqlIndex._line = hang
eb.run_index(sys.argv[1], index=sys.argv[2])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    folder = tmp_path_factory.mktemp("postgresql")
    for parent in (folder, *folder.parents):  # its user must reach it
        if parent.owner() == Path.home().owner() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    with postgresql(folder / "server") as started:
        yield started


@pytest.fixture
def url(server: PostgreSQL, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    return server.create(f"db{abs(hash(request.node.name)) % 10**9}")


def nights(folder: Path, count: int = 2) -> Path:
    for day in range(1, count + 1):
        small_run(folder / f"night-{day:02}", f"2026-01-{day:02}T03:00:00+00:00", streams=(1,))
    return folder


def bench(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "ENGINEBENCH_HOME": str(home)}
    return subprocess.run([sys.executable, "-m", "enginebench", *arguments], capture_output=True, text=True, timeout=120, env=env)


def test_eight_nightly_writers_at_once(url: str, tmp_path: Path) -> None:
    """Each machine has a folder of its own, and all of them list one that they share. The tables do not exist before."""
    shared = nights(tmp_path / "shared")
    folders = [nights(tmp_path / f"machine-{i}") for i in range(WRITERS)]

    def write(i: int) -> list[subprocess.CompletedProcess[str]]:
        home = tmp_path / f"home-{i}"
        return [bench("list", str(folder), "--index", url, home=home) for folder in (folders[i], shared)]

    with ThreadPoolExecutor(WRITERS) as pool:
        done = [each for both in pool.map(write, range(WRITERS)) for each in both]
    assert [each.stderr for each in done if each.returncode] == []
    everything = eb.run_index(index=url)
    assert len(everything.runs) == 2 * (WRITERS + 1)
    assert {run.state for run in everything.runs} == {"complete"}
    for folder in (*folders, shared):
        alone, known = eb.run_index(folder), eb.run_index(folder, index=url)
        assert known.rows() == alone.rows(), folder
        assert known.runs == alone.runs
    assert all("2 runs in" in each.stdout for each in done)


def test_a_killed_writer_leaves_the_index_as_it_was(url: str, tmp_path: Path) -> None:
    folder = nights(tmp_path / "results", 1)
    writer = subprocess.Popen([sys.executable, "-c", HANGS, str(folder), url], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "in the middle\n"
    assert eb.run_index(index=url).runs == (), "readers do not wait, and see nothing of it"
    writer.kill()
    writer.wait()
    writer.stdout.close()
    found = eb.run_index(folder, index=url)
    assert found.rows() == eb.run_index(folder).rows()
    assert len(eb.run_index(index=url).runs) == 1


def test_the_tables_of_an_older_version_are_upgraded_by_whoever_comes_first(url: str, tmp_path: Path) -> None:
    from alembic import command
    from alembic.config import Config
    from enginebench.analysis.index import sql
    from sqlalchemy import inspect, text

    folder = nights(tmp_path / "results")
    before = eb.run_index(folder, index=url)
    rows = before.rows()
    engine = sql._engine(url)
    config = Config()
    config.set_main_option("script_location", str(sql._MIGRATIONS))
    with engine.begin() as base:
        config.attributes["connection"] = base
        command.downgrade(config, "0001")
    with engine.begin() as base:
        assert "subject" not in {column["name"] for column in inspect(base).get_columns("rows")}
        assert base.execute(text("select count(*) from runs")).scalar() == 2, "runs stay"
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda i: bench("list", str(folder), "--index", url, home=tmp_path / f"home-{i}"), range(4)))
    assert [each.stderr for each in done if each.returncode] == []
    with engine.begin() as base:
        assert base.execute(text("select version_num from alembic_version")).scalar() == "0002"
    after = eb.run_index(folder, index=url)
    assert after.rows() == rows
    assert len(after.nights(["ttft_p50"])) == 2


def test_a_database_that_is_not_there_is_one_sentence(server: PostgreSQL, tmp_path: Path) -> None:
    folder = nights(tmp_path / "results", 1)
    for url in (server.url("nosuch"), "postgresql://me:secret@127.0.0.1:9/x"):
        done = bench("list", str(folder), "--index", url, home=tmp_path / "home")
        assert done.returncode == 2
        assert "cannot be used" in done.stderr
        assert "Traceback" not in done.stderr
        assert "secret" not in done.stderr
