"""Golden deployments without any install: every one builds a launch or is refused as its entry says; and the driver tells the truth.

`make contracts` asks the real parsers; here the parser is a few lines of Python, run for real.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from enginebench.engines.registry import discover

HERE = Path(__file__).resolve().parent


def load(name: str) -> ModuleType:
    """Under its plain name, because run.py imports golden.py as it does when it is run."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


golden = load("golden")
run = load("run")
ENGINES = golden.engines()
ECHO = """
import json, sys
print("a banner that is no answer")
print(json.dumps({"engine": "fake", "version": "1.2"}))
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"name": request["name"], **ANSWER}))
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_every_golden_deployment_is_built_or_refused_as_its_entry_says(engine: str) -> None:
    built = golden.build(engine)
    assert {each.name: each.wrong for each in built if each.wrong} == {}
    assert any(each.launch for each in built)
    for each in built:
        if each.launch is not None:
            assert each.command()
            assert not any(str(HERE.parents[1]) in line for line in each.command().splitlines())


@pytest.mark.parametrize("engine", ENGINES)
def test_every_value_that_tune_tries_can_be_launched(engine: str) -> None:
    """`make contracts` asks the real parser about each."""
    found = golden.tuned(engine)
    assert {each.name: each.wrong for each in found if each.wrong} == {}
    assert len(found) >= 8


def test_every_engine_that_is_launched_has_golden_deployments_and_a_parser() -> None:
    launched = set(discover()) - {"fake", "openai"}
    assert set(ENGINES) == launched
    assert {file.stem for file in (HERE / "parsers").glob("*.py")} == launched


@pytest.mark.parametrize("engine", ENGINES)
def test_a_parser_names_its_requirements_exactly(engine: str) -> None:
    with_deps, no_deps = run.requirements(HERE / "parsers" / f"{engine}.py")
    assert all("==" in pin or ">=" in pin for pin in (*with_deps, *no_deps))


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Judges deployments of the fake engine by a parser that answers ANSWER, in this interpreter."""
    monkeypatch.setattr(golden, "HERE", tmp_path)
    monkeypatch.setattr(run, "environment", lambda _engine, _parser: Path(sys.executable))
    monkeypatch.setattr(run, "tuned", lambda _engine: [])
    (tmp_path / "deployments").mkdir()

    def judge(entries: str, parser: str):  # type: ignore[no-untyped-def]
        (tmp_path / "deployments" / "fake.yaml").write_text(entries)
        (tmp_path / "parser.py").write_text(parser)
        return run.judge("fake", tmp_path / "parser.py")

    return judge


def answering(answer: str) -> str:
    return ECHO.replace("ANSWER", answer)


def test_what_the_parser_accepts_is_counted(judged) -> None:  # type: ignore[no-untyped-def]
    outcome = judged("plain: {precision: none}\ntwo: {precision: none, tp: 2, refused: parallelism}\n", answering('{"accepted": True}'))
    assert (outcome.version, list(outcome.accepted), outcome.refused, outcome.launches, outcome.failures) == ("1.2", ["plain"], 1, 1, {})
    assert "| fake | 1.2 | 1 of 1 | 1 | 0 of 0 | - |" in run.table([outcome])
    assert "`two` is refused: " in run.page([outcome])


@pytest.mark.parametrize(
    ("entries", "parser", "failures"),
    [
        ("a: {precision: none}", answering('{"accepted": False, "error": "unknown flag"}'), {"a": "unknown flag"}),
        ("a: {precision: none, tp: 2}", answering('{"accepted": True}'), {"a": "refused"}),
        ("a: {precision: none, tp: 2, refused: moon}", answering('{"accepted": True}'), {"a": "refused"}),
        ("a: {precision: none, refused: moon}", answering('{"accepted": True}'), {"a": "not refused"}),
        ("a: {precision: none, gpus: 7}", answering('{"accepted": True}'), {"a": "takes 1 GPUs"}),
        ("a: {precision: none}", 'print(\'{"engine": "fake", "version": "1"}\')', {"a": "did not answer"}),
        ("a: {precision: none}", "raise SystemExit('no such package')", {"": "no such package"}),
    ],
)
def test_what_is_not_as_expected_is_a_failure(judged, entries: str, parser: str, failures: dict[str, str]) -> None:  # type: ignore[no-untyped-def]
    found = judged(entries, parser).failures
    assert found.keys() == failures.keys()
    assert all(text in found[name] for name, text in failures.items())


def test_an_environment_that_cannot_be_made_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    (tmp_path / "parser.py").write_text(f'REQUIREMENTS = ["{tmp_path}/no-such-folder"]\nNO_DEPS: list[str] = []\n')
    with pytest.raises(run.ParserFailed, match="pip could not install"):
        run.environment("fake", tmp_path / "parser.py")


def test_an_entry_with_an_unknown_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "HERE", tmp_path)
    (tmp_path / "deployments").mkdir()
    (tmp_path / "deployments" / "fake.yaml").write_text("a: {precision: none, tpp: 2}")
    with pytest.raises(ValueError, match="tpp"):
        golden.read("fake")
