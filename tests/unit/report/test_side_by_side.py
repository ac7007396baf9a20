"""Any number of runs side by side: lined up by meaning, what differs first, then a column per run."""

from __future__ import annotations

import itertools
import json
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import enginebench as eb
import pytest
from click.testing import CliRunner
from enginebench.analysis.comparison import match
from enginebench.analysis.rows import CellResult, Row, fold
from enginebench.analysis.side_by_side import line_up
from enginebench.cli import bench
from enginebench.domain import Cell, ClosedLoop, Deployment
from enginebench.records.cell import CellRecord
from enginebench.records.run_folder import Run

from tests.conftest import HOSTILE

Copied = Callable[..., Run]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def copied(synthetic_run: Run, tmp_path: Path) -> Copied:
    """copied(name, cells=...) -> a run with some cells of the synthetic one, whose machine and deployments may differ."""
    whole = synthetic_run.record.cells

    def copy(name: str, cells: tuple[int, ...] = (0, 1, 6, 36, 37, 42), *, options: int | None = None, cpu: str = "X") -> Run:
        run = Run(Path(shutil.copytree(synthetic_run.path, tmp_path / name, ignore=shutil.ignore_patterns("logs"))))
        ids = [whole[i] for i in cells]
        if options is not None:
            ids = [_changed(run, each, options) for each in ids]
        run.update(replace(run.record, name=name, cells=tuple(ids), machine={"cpu": cpu}))
        return run

    return copy


def _changed(run: Run, cell_id: str, layers: int) -> str:
    """The same cell of llama.cpp with another option; others as they are."""
    record = run.cell(cell_id)
    if record.deployment.engine != "llamacpp":
        return cell_id
    deployment = replace(record.deployment, options={**record.deployment.options, "n_gpu_layers": layers})
    cell = Cell(deployment, record.load, record.repeat)
    run.add_cell(replace(record, id=cell.id, deployment=deployment), run.samples(cell_id))
    return cell.id


def report(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(bench, ["report", *map(str, arguments)])
    return done.exit_code, done.output


def test_a_column_per_run(copied: Copied) -> None:
    runs = [copied(name) for name in ("one", "two", "three")]
    code, text = report(*(run.path for run in runs))
    assert code == 0
    assert text.startswith("3 runs side by side · 3 deployments and loads: 3 in all runs\n")
    table = text.split("\n\n")[2].splitlines()
    assert table[0].split() == ["output", "tok/s", "A", "B", "C"]
    assert table[1].startswith("llamacpp")
    assert len(table) == 6, "two deployments with their loads"
    assert table[2].count("~") == 2


def test_what_differs_comes_first_the_machine_before_the_rest(copied: Copied) -> None:
    runs = copied("one"), copied("two", cpu="Y"), copied("three", options=7)
    found = eb.side_by_side([eb.open_run(run.path) for run in runs])
    assert found.found.moved
    assert [(each.of, each.what, each.values) for each in found.found.differences][:2] == [
        ("machine", "cpu", ("X", "Y", "X")),
        ("run", "scenario", ("one", "two", "three")),
    ]
    text = found.to_text(width=80)
    assert "DIFFERS machine: cpu A, C X · B Y" in text
    assert "asked.n_gpu_layers A, B 99 · C 7" in text.replace("options.", "")
    assert text.index("DIFFERS") < text.index("output tok/s")


def test_a_changed_deployment_joins_its_line_as_compare_pairs_it(copied: Copied) -> None:
    one, two = copied("one"), copied("two", options=7)
    found = eb.side_by_side([one.path, two.path]).found
    assert all(line.everywhere for line in found.lines)
    compared = eb.compare(one.path, two.path).pairs
    assert [line.pairs[1] for line in found.lines] == list(compared.pairs)


def test_a_run_without_a_row_has_an_empty_cell(copied: Copied) -> None:
    one, two = copied("one", (0, 1)), copied("two", (1, 6))
    found = eb.side_by_side([one.path, two.path])
    assert [[row is not None for row in line.rows] for line in found.found.lines] == [[True, False], [True, True], [False, True]]
    assert [line.reference for line in found.found.lines] == [0, 0, 1]
    assert "3 deployments and loads: 1 in all runs, 2 in some" in found.to_text()


def test_many_runs_are_several_tables_in_80_columns(copied: Copied) -> None:
    run = copied("one", (0, 1))
    paths = [shutil.copytree(run.path, run.path.parent / f"copy-{i}-{'x' * 40}") for i in range(12)]
    text = eb.side_by_side(list(paths)).to_text(width=80)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    heads = [line.split()[2:] for line in lines if line.startswith("output tok/s ")]
    assert len(heads) > 1
    assert list(itertools.chain(*heads)) == list("ABCDEFGHIJKL")


def test_more_runs_than_letters(copied: Copied) -> None:
    run = eb.open_run(copied("one", (0,)).path)
    letters = eb.side_by_side([run] * 30).found.letters
    assert letters[:2] + letters[25:28] == ("A", "B", "Z", "AA", "AB")
    assert len(set(letters)) == 30


def test_a_failed_row_and_a_doubtful_one_are_marked_and_explained(copied: Copied) -> None:
    one = copied("one")
    two = copied("two")
    for cell_id in two.record.cells[:1]:
        record = two.cell(cell_id)
        two.add_cell(replace(record, status="failed", reason="the engine ended"))
    two.update(replace(two.record, cells=(two.record.cells[0], *two.record.cells[1:3])))
    text = eb.side_by_side([one.path, two.path]).to_text("text")
    assert " failed" in text
    assert "the engine ended" in text


def test_as_data(copied: Copied) -> None:
    runs = copied("one"), copied("two", options=7)
    code, text = report(*(run.path for run in runs), "--json")
    assert code == 0
    data = json.loads(text)
    assert data["schema"] == 1
    assert [run["letter"] for run in data["runs"]] == ["A", "B"]
    first, second = data["lines"][0]["runs"]
    assert first["figures"]["output_throughput"]["unit"] == "tok/s"
    assert first["figures"]["output_throughput"]["change"] is None
    assert set(second["figures"]["output_throughput"]["change"]) >= {"verdict", "relative", "low", "high", "p"}
    assert any(each["what"].endswith("n_gpu_layers") for each in data["differences"])


def test_the_page_needs_no_script_and_escapes(copied: Copied, tmp_path: Path) -> None:
    cells = tuple(i for i in range(18))
    runs = copied("one", cells), copied("two", cells, options=7)
    code, _ = report(*(run.path for run in runs), "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert code == 0
    assert "<script" not in page
    assert "script-src" not in page
    assert HOSTILE not in page
    assert HOSTILE in unescape(page)
    assert page.index("What differs around them") < page.index("output tok/s")
    assert len(re.findall(r"<h2>", page)) >= 5
    assert not re.findall(r"""(?:src|href)=["']https?:""", page)
    assert len(page) < 1_000_000


def test_without_a_file_the_page_is_beside(copied: Copied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = copied("one", (0,)), copied("two", (0,))
    assert report(*(run.path for run in runs), "--html")[0] == 0
    assert (tmp_path / "side-by-side.html").is_file()


def test_what_is_of_one_run_is_refused(copied: Copied) -> None:
    runs = [copied(name, (0,)).path for name in ("one", "two")]
    for option in ("--svg", "--csv", "--md", "--why"):
        with pytest.raises(eb.UserError, match=f"{option} is of one run"):
            CliRunner().invoke(bench, ["report", *map(str, runs), option], catch_exceptions=False)
    with pytest.raises(eb.UserError, match="needs two runs or more"):
        eb.side_by_side(runs[:1])
    with pytest.raises(eb.UserError, match="is not a run"):
        eb.side_by_side([*runs, runs[0].parent])


IMPORTED = Path(__file__).parents[1] / "records" / "imported"


def test_files_of_other_tools_stand_beside_runs(copied: Copied) -> None:
    """Their figures are shown, and no change where what was served or the definitions are not alike."""
    run = copied("one", (0,)).path
    files = [IMPORTED / "vllm" / "detailed.json", IMPORTED / "sglang" / "rust_client.jsonl"]
    code, text = report(run, *files, "--set", "model=m")
    assert code == 0
    assert text.startswith("3 runs side by side")
    found = eb.side_by_side([run, *files])
    pairs = [pair for line in found.found.lines for pair in line.pairs if pair is not None]
    assert pairs, "one row is left over in each"
    assert all(pair.why_not and not pair.figures for pair in pairs)
    assert "(no)" in found.to_text()
    shown = " ".join(found.to_text("text").split())
    assert all(pair.why_not in shown for pair in pairs)


def test_two_files_of_one_load_are_lined_up_as_compare_does(tmp_path: Path) -> None:
    stated = json.loads((IMPORTED / "vllm" / "result.json").read_text())
    files = []
    for i, factor in enumerate((1.0, 0.5)):
        files.append(tmp_path / str(i) / "serve.json")
        files[-1].parent.mkdir()
        files[-1].write_text(json.dumps(stated | {name: stated[name] * factor for name in ("median_ttft_ms", "p50_ttft_ms")}))
    facts = ["hardware=4xh100", "precision=fp8"]
    (line,) = eb.side_by_side(files, facts=facts).found.lines
    (pair,) = eb.compare(*files, facts=facts).pairs.pairs
    assert line.pairs[1] == pair
    assert pair.figures["ttft_p50"].change.relative == pytest.approx(-0.5)


def _row(engine: str, option: int, streams: int) -> Row:
    deployment = Deployment(engine, "m", "none", "hf:m", options={"o": option})
    record = CellRecord.of(Cell(deployment, ClosedLoop(concurrency=streams)), "ok")
    return fold([CellResult(record, {"output_throughput": 1.0}, "valid")], {}, engine)


def test_two_runs_are_lined_up_as_compare_pairs_them() -> None:
    """On 300 random pairs of runs with deployments added, removed and changed."""
    dice = random.Random(0)
    pool = [_row(engine, option, streams) for engine in "ab" for option in (1, 2, 3) for streams in (1, 2)]
    for _ in range(300):
        left, right = (dice.sample(pool, dice.randint(0, 6)) for _ in range(2))
        pairs, alone, others = match(left, right)
        lines = line_up([left, right])
        assert {(id(a), id(b)) for a, b in lines if a is not None and b is not None} == {(id(a), id(b)) for a, b in pairs}
        assert [id(a) for a, b in lines if b is None] == [id(row) for row in alone]
        assert [id(b) for a, b in lines if a is None] == [id(row) for row in others]


def test_every_row_of_every_run_is_in_one_line() -> None:
    dice = random.Random(1)
    pool = [_row(engine, option, streams) for engine in "ab" for option in (1, 2, 3) for streams in (1, 2)]
    for _ in range(200):
        runs = [dice.sample(pool, dice.randint(0, 8)) for _ in range(dice.randint(2, 5))]
        lines = line_up(runs)
        for i, rows in enumerate(runs):
            assert sorted(id(line[i]) for line in lines if line[i] is not None) == sorted(map(id, rows))
