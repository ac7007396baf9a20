"""`bench site`: what it writes, what a second build leaves alone, and what it refuses."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import enginebench
import pytest
from enginebench.errors import UserError
from enginebench.records.run_folder import Run
from enginebench.report.export import REPORT_SCHEMA
from enginebench.report.site import build
from enginebench.report.site.build import MANIFEST, Site, build_site
from enginebench.report.site.pages import SITE_SCHEMA
from enginebench.report.site.stored import StoredRuns, slug
from hypothesis import given
from hypothesis import strategies as st

from ...conftest import HOSTILE  # noqa: TID252  # tests/ is no package
from ...small_runs import add, cells, small_run  # noqa: TID252

ODD = 'a"b <i>&%2e'


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three nights, one run of another scenario with texts that would be markup, and one that is not finished."""
    folder = tmp_path_factory.mktemp("runs")
    for day, slower in ((1, 1.0), (2, 1.0), (3, 1.3)):
        small_run(folder / f"2026-01-0{day}-night", f"2026-01-0{day}T02:00:00+00:00", slower=slower)
    small_run(folder / ODD, "2026-01-04T02:00:00+00:00", name=HOSTILE, title=HOSTILE, label=HOSTILE)
    small_run(folder / "2026-01-05-night", "2026-01-05T02:00:00+00:00", measured=6)
    return folder


@pytest.fixture(scope="module")
def first(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    return build_site(made, tmp_path_factory.mktemp("site") / "public")


@pytest.fixture
def copied(made: Path, first: Site, tmp_path: Path) -> Callable[[], Site]:
    """Builds a copy of the site again, from a copy of the runs."""
    shutil.copytree(made, tmp_path / "runs")
    shutil.copytree(first.path, tmp_path / "public")
    return lambda: build_site(tmp_path / "runs", tmp_path / "public")


def read(site: Path, name: str) -> str:
    return (site / name).read_text(encoding="utf-8")


def test_every_run_has_a_page_and_its_data(first: Site, made: Path) -> None:
    index = json.loads(read(first.path, "data/index.json"))
    assert index["schema"] == SITE_SCHEMA == 1
    assert [run["created_at"][:10] for run in index["runs"]] == ["2026-01-05", "2026-01-04", "2026-01-03", "2026-01-02", "2026-01-01"]
    for run, stored in zip(index["runs"], reversed(StoredRuns(made).find().runs), strict=True):
        document = json.loads(read(first.path, run["data"]))
        assert document["schema"] == REPORT_SCHEMA
        assert document == json.loads(enginebench.open_run(stored.path).report("json")), "what bench report --json writes"
        assert run["answer"]
        assert "<h1" in read(first.path, run["page"])
    assert [run["finished"] for run in index["runs"]] == [False, True, True, True, True]


def test_what_two_runs_are_compared_by_is_in_the_data(first: Site) -> None:
    one, other = (json.loads(read(first.path, f"data/runs/2026-01-0{day}-night.json")) for day in (1, 3))
    assert [row["pair"] for row in one["rows"]] == [row["pair"] for row in other["rows"]]
    assert len(one["rows"][0]["figures"]["output_throughput"]["values"]) == 4
    assert one["facts"]["machine"]["os"] == "Linux 6.8"
    assert one["rows"][0]["facts"]["version"] == "1.2.3"
    assert one["rows"][0]["imported_from"] is None


def test_the_home_page_has_the_newest_answer_and_every_scenario(first: Site) -> None:
    page = read(first.path, "index.html")
    newest = json.loads(read(first.path, "data/index.json"))["runs"][0]
    assert newest["answer"].split(":")[0].split(";")[0] in page
    assert page.index("2026-01-05-night") < page.index("2026-01-04T02:00" if "2026-01-04T02:00" in page else "2026-01-03-night")
    assert len(re.findall(r'<svg class="ch wide"', page)) == 2, "a chart for each load"


def test_nothing_is_loaded_from_elsewhere_and_links_are_relative(first: Site) -> None:
    pages = [*first.path.glob("*.html"), *first.path.glob("runs/*.html")]
    assert len(pages) == 7
    for page in pages:
        text = page.read_text()
        policy = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]+)"', text)
        assert len(policy) == 1
        assert html.unescape(policy[0]).startswith("default-src 'none'; script-src 'self'; ")
        targets = [target for target in re.findall(r'(?:href|src)="([^"]*)"', text) if not target.startswith("#")]
        assert targets
        for target in targets:
            assert not re.match(r"[a-z]+:|/", target), target
            assert (page.parent / target.partition("#")[0]).resolve().is_file(), target
        assert not re.search(r"<script>|<script [^>]*>[^<{\[]*\(\(\)", text), "no script in the page"
        assert not re.search(r"\son[a-z]+=", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))


def test_markup_in_names_is_text(first: Site) -> None:
    for page in (*first.path.glob("*.html"), *first.path.glob("runs/*.html")):
        assert "<script>alert" not in page.read_text()
    assert "&lt;script&gt;alert(1)" in read(first.path, "index.html")


def test_the_library_is_there_once(first: Site) -> None:
    large = [name for name in first.written if (first.path / name).stat().st_size > 1_000_000]
    assert len(large) == 1
    assert large[0].startswith("assets/library-")
    assert all((first.path / name).stat().st_size < 300_000 for name in first.written if name.startswith("runs/"))


def test_a_second_build_writes_nothing(copied: Callable[[], Site], tmp_path: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "public").rglob("*") if file.is_file() and file.name != MANIFEST}
    again = copied()
    assert (again.rendered, again.written, again.removed) == (0, (), ())
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_new_run_costs_its_own_files(copied: Callable[[], Site], tmp_path: Path) -> None:
    small_run(tmp_path / "runs" / "2026-01-06-night", "2026-01-06T02:00:00+00:00")
    again = copied()
    assert again.rendered == 1
    assert set(again.written) == {"index.html", "data/index.json", "runs/2026-01-06-night.html", "data/runs/2026-01-06-night.json"}


def test_a_run_that_went_on_is_written_again(copied: Callable[[], Site], tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "2026-01-05-night")
    for cell in cells()[6:]:
        add(run, cell)
    again = copied()
    assert again.rendered == 1
    assert "runs/2026-01-05-night.html" in again.written
    assert json.loads(read(tmp_path / "public", "data/index.json"))["runs"][0]["finished"]


def test_a_run_that_is_gone_is_removed_and_nothing_else(copied: Callable[[], Site], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "runs" / "2026-01-02-night")
    (tmp_path / "public" / "CNAME").write_text("bench.example\n")
    again = copied()
    assert again.removed == ("data/runs/2026-01-02-night.json", "runs/2026-01-02-night.html")
    assert read(tmp_path / "public", "CNAME") == "bench.example\n"


def test_other_code_writes_every_page_again(copied: Callable[[], Site], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "code_hash", lambda: "another")
    assert copied().rendered == 5


def test_a_page_that_was_removed_by_hand_is_made_again(copied: Callable[[], Site], tmp_path: Path) -> None:
    (tmp_path / "public" / "runs" / "2026-01-03-night.html").unlink()
    assert copied().written == ("runs/2026-01-03-night.html",)


def test_a_folder_of_others_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="did not write"):
        build_site(made, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(UserError, match="is not a folder"):
        build_site(made, tmp_path / "notes.txt")
    with pytest.raises(UserError, match="is not a folder"):
        build_site(tmp_path / "none", tmp_path / "public")


def test_a_file_in_the_way_is_not_replaced(copied: Callable[[], Site], tmp_path: Path) -> None:
    small_run(tmp_path / "runs" / "2026-01-06-night", "2026-01-06T02:00:00+00:00")
    (tmp_path / "public" / "runs" / "2026-01-06-night.html").write_text("mine")
    with pytest.raises(UserError, match="is in the way"):
        copied()
    assert read(tmp_path / "public", "runs/2026-01-06-night.html") == "mine"


def test_a_damaged_manifest_is_named(copied: Callable[[], Site], tmp_path: Path) -> None:
    for text in ("{", "[]", '{"files": 1}'):
        (tmp_path / "public" / MANIFEST).write_text(text)
        with pytest.raises(UserError, match="damaged"):
            copied()


def test_a_manifest_does_not_lead_out_of_the_site(copied: Callable[[], Site], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    manifest = json.loads(read(tmp_path / "public", MANIFEST))
    manifest["files"] += ["../mine.txt", str(tmp_path / "mine.txt")]
    (tmp_path / "public" / MANIFEST).write_text(json.dumps(manifest))
    assert copied().removed == ()
    assert (tmp_path / "mine.txt").exists()


def test_runs_that_cannot_be_read_are_named(copied: Callable[[], Site], tmp_path: Path) -> None:
    (tmp_path / "runs" / "newer").mkdir()
    (tmp_path / "runs" / "newer" / "run.json").write_text('{"schema": 99}')
    outside = tmp_path / "secret.txt"
    outside.write_text("secret: 42")
    (tmp_path / "runs" / "2026-01-01-night" / "scenario.yaml").unlink()
    (tmp_path / "runs" / "2026-01-01-night" / "scenario.yaml").symlink_to(outside)
    shutil.copytree(tmp_path / "runs" / "2026-01-02-night", tmp_path / "elsewhere")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere")
    again = copied()
    assert again.runs == 4
    assert sorted(text.partition(":")[0] for text in again.refused) == ["2026-01-01-night", "linked", "newer"]
    assert not [file for file in (tmp_path / "public").rglob("*") if file.is_file() and b"secret: 42" in file.read_bytes()]


def test_a_capsule_is_a_run(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    enginebench.pack(made / "2026-01-01-night", tmp_path / "run.ebz")
    assert build_site(tmp_path / "run.ebz", tmp_path / "public").runs == 1


def test_a_single_run_and_no_run_at_all_have_a_site(made: Path, tmp_path: Path) -> None:
    assert build_site(made / "2026-01-01-night", tmp_path / "one").runs == 1
    (tmp_path / "empty").mkdir()
    assert build_site(tmp_path / "empty", tmp_path / "none").runs == 0
    assert "No run is here yet" in read(tmp_path / "none", "index.html")


def test_runs_in_folders_within_the_folder_are_found(made: Path, tmp_path: Path) -> None:
    """As the nightly script keeps them: one folder for each scenario."""
    for name in ("a", "b"):
        shutil.copytree(made / "2026-01-01-night", tmp_path / "kept" / name / "2026-01-01-night")
    again = build_site(tmp_path / "kept", tmp_path / "kept" / "site")
    assert again.runs == len(list((tmp_path / "kept" / "site" / "runs").iterdir())) == 2
    assert build_site(tmp_path / "kept", tmp_path / "kept" / "site").written == ()


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_addresses_are_safe_and_differ(one: str, other: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}|[A-Za-z0-9._-]*-[0-9a-f]{8}", slug(one))
    assert not slug(one).startswith(".")
    assert (slug(one) == slug(other)) == (one == other)


def test_a_name_that_is_not_text_has_an_address(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"r\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system has only names that are text")
    small_run(tmp_path / "x", "2026-01-01T00:00:00+00:00").path.rename(folder / "in")
    assert build_site(folder, tmp_path / "public").runs == 1
