"""The Python API on the fake engine, and every block of docs/python.md, from top to bottom."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import enginebench as eb
import pytest
from enginebench.machine.folders import checkout

ROOT = checkout() or Path()
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCENARIO = """
name: demo
deployments:
  - {engine: fake, model: any, precision: none, options: {ttft_ms: 5, itl_ms: 1}}
  - {engine: fake, model: other, precision: none, options: {http_error: 500}}
loads:
  - {concurrency: [1, 4], input_tokens: 16, output_tokens: 8, requests: 16}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder of a test, with a home of its own."""
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo.yaml").write_text(SCENARIO)
    return tmp_path


def test_a_run_sends_its_events_in_order_and_returns_its_tables(folder: Path) -> None:
    events: list[eb.Event] = []
    run = eb.run(eb.plan("demo.yaml"), results=folder / "results", on_event=events.append)
    kinds = [type(event).__name__ for event in events if not isinstance(event, eb.LaunchStep | eb.CellProgress | eb.Note)]
    one = ["CellStarted", "CellEnded"]
    assert kinds == [
        "RunOpened",
        "LaunchStarted",
        "EngineReady",
        *one,
        *one,
        "LaunchEnded",
        "LaunchStarted",
        "CellEnded",
        "CellEnded",
        "LaunchEnded",
    ]
    opened, ended = events[0], [event for event in events if isinstance(event, eb.CellEnded)]
    assert isinstance(opened, eb.RunOpened)
    assert (opened.path, opened.planned, opened.stored) == (run.path, 4, 0)
    assert [event.record.status for event in ended] == ["ok", "ok", "failed", "failed"]
    assert ended[0].result is not None
    assert ended[0].result.figures["output_throughput"] == run.cells.output_throughput[0]
    assert ended[2].result is None

    assert run.analysis.counts == {"ok": 2, "failed": 2, "skipped": 0, "missing": 0}
    assert run.rows.status.tolist() == ["ok", "ok", "failed", "failed"]
    assert run.rows.attrs["units"]["ttft_p50_high"] == "s"
    assert (run.rows.ttft_p50[:2] > 0.0045).all()  # the fake engine waits 5 ms, and clocks differ a little
    assert len(run.requests) == 32
    assert run.requests.groupby("cell").sent_s.min().tolist() == [0.0, 0.0]
    assert (run.requests.output_tokens == 8).all()
    assert [found.path.resolve() for found in eb.runs("results")] == [run.path] == [eb.latest_run().path.resolve()]
    assert "TTFT" in run.report()
    assert "goodput" not in run.rows.columns
    assert (run.judged_by(slo={"ttft_ms": 60000}).rows.goodput[:2] > 0).all()


def test_a_listener_that_raises_stops_no_run(folder: Path) -> None:
    def listen(event: eb.Event) -> None:
        if isinstance(event, eb.CellEnded):
            raise RuntimeError("of the listener")

    with pytest.raises(RuntimeError, match="of the listener"):
        eb.run(eb.plan("demo.yaml", only=["model=any"]), on_event=listen)
    assert eb.latest_run().analysis.counts["ok"] == 2


def test_a_broken_engine_is_refused_before_anything_starts(folder: Path) -> None:
    models = "models: {m: {random_weights: {layers: 1}}}"
    scenario = f"name: a\n{models}\ndeployments: [{{engine: transformers, model: m, precision: f32}}]\nloads: [{{}}]\n"
    (folder / "demo.yaml").write_text(scenario)
    with pytest.raises(eb.UserError, match="bench engines install transformers"):
        eb.run(eb.plan("demo.yaml"))
    assert not (folder / "results").exists()


def test_every_block_of_the_documentation_runs(folder: Path) -> None:
    """A ```text block is what the block before it prints; a line '...' in it stands for any lines."""
    (folder / "results").mkdir()
    (folder / "results" / "published").symlink_to(ROOT / "results" / "published")
    (folder / "demo.yaml").unlink()
    names: dict[str, object] = {}
    said, blocks = "", BLOCK.findall((ROOT / "docs" / "python.md").read_text())
    for kind, text in blocks:
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(text, "docs/python.md", "exec"), names)  # noqa: S102  # our own documentation
            said = out.getvalue()
        else:
            pattern = "".join(r"(?s:.*\n)?" if line == "..." else re.escape(line) + "\n" for line in text.splitlines())
            assert re.fullmatch(pattern, said), said
    assert (folder / "throughput.html").is_file()
    assert sum(kind == "text" for kind, _ in blocks) >= 5


def test_the_figures_of_a_run_are_kept_when_its_engines_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the report of 1,000 cells that were just measured takes 1 s, not 9."""
    run = eb.run(eb.plan("demo.yaml", only=["model=any"]))

    def computed(*_: object) -> None:
        raise AssertionError("a figure is computed again")

    monkeypatch.setattr("enginebench.analysis.rows.result_in", computed)
    assert run.rows.output_throughput.notna().all()
    assert run.analysis.counts["ok"] == 2
