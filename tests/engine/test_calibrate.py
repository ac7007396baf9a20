"""`bench calibrate`: what it finds against the fake engine, keeps, and makes of later cells."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.domain import plain_object
from enginebench.machine.host import facts
from enginebench.runner import calibration
from enginebench.runner.calibration import Calibration, Level, calibrate, client_limit


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home of its own, and two quick levels that every machine holds."""
    monkeypatch.setenv("ENGINEBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(calibration, "LAST_STREAMS", 24)
    monkeypatch.setattr(calibration, "TOKENS", 20)
    monkeypatch.setattr(calibration, "LAG_MS", dict.fromkeys(calibration.LAG_MS, 500.0))
    monkeypatch.setattr(calibration, "_PACE", 10.0)
    client_limit.cache_clear()


@pytest.mark.clock
def test_the_limits_are_found_kept_and_looked_up() -> None:
    said: list[Level] = []
    assert client_limit(1, "kernel") == {}
    found = calibrate(1, said.append)
    assert [level.streams for level in said] == [16, 24]
    assert (found.streams, found.limiter) == (24, "range")
    assert 24 * 100 / 10 < found.events_per_s <= 24 * 100 * 1.2, "a token per stream every 10 ms, or slower on a busy machine"
    assert 0 < min(level.cpu_us for level in said) < 10_000
    reckoned = pytest.approx(0.8e6 / min(level.cpu_us for level in said))
    assert client_limit(1, said[-1].stamps) == {"events_per_s": reckoned}, "what was borne is a lower bound and no limit"


def test_a_client_that_is_late_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "LAG_MS", dict.fromkeys(calibration.LAG_MS, -1.0))
    found = calibrate(1, lambda _: None)
    assert (found.streams, found.limiter, len(found.levels)) == (0, "client", 1)
    assert found.limits == {"streams": 0, "events_per_s": 0.0}


def test_a_machine_that_was_busy_has_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_PACE", 0.5)  # no tick is as short, so the fake engine is behind with 16 streams already
    found = calibrate(1, lambda _: None)
    assert (found.limiter, found.limits) == ("machine", {})
    assert client_limit(1, found.levels[-1].stamps) == {}


@pytest.mark.parametrize(
    ("lag_ms", "cpu_us", "tick_ms", "streams", "limiter"),
    [
        (4.9, 9.0, 10.0, 1000, None),
        (5.1, 5.0, 10.0, 1000, "client"),
        (5.1, 3.0, 10.0, 1000, "machine"),
        (4.9, 9.0, 11.0, 1000, "fake engine"),
        (5.1, 7.0, 11.0, 1000, "fake engine"),
        (5.1, 9.0, 11.0, 1000, "client"),
        (4.9, 20.0, 11.0, 16, "machine"),
    ],
)
def test_only_a_client_that_worked_is_the_limit(
    monkeypatch: pytest.MonkeyPatch, lag_ms: float, cpu_us: float, tick_ms: float, streams: int, limiter: str | None
) -> None:
    monkeypatch.undo()
    level = Level(streams, 100.0 * streams, lag_ms, cpu_us, tick_ms, "kernel")
    assert level.limiter == limiter
    half = dataclasses.replace(level, processes=2)
    assert half.cpu_fraction == pytest.approx(level.cpu_fraction / 2)
    assert half.limiter != "client"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"machine": 3}'])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "calibration-1.json").write_text(text)
    assert client_limit(1, "kernel") == {}


def test_another_machines_limits_do_not_count(tmp_path: Path) -> None:
    level = Level(100, 1000.0, 9.0, 900.0, 10.0, "kernel")
    limits = {"streams": 100.0, "events_per_s": 1000.0}
    mine = Calibration(100, 1000.0, 1, "client", limits, 0.1, calibration._machine(facts()), "2026-01-01", (level,))
    (tmp_path / "home").mkdir()

    def keep(without: str = "", **changed: object) -> None:
        kept = {name: value for name, value in (plain_object(mine) | changed).items() if name != without}
        (tmp_path / "home" / "calibration-1.json").write_text(json.dumps(kept))
        client_limit.cache_clear()

    keep(machine={"cpu": "another one"})
    assert client_limit(1, "kernel") == {}
    keep(limits="of another form")
    assert client_limit(1, "kernel") == {}
    keep(without="limits")
    assert client_limit(1, "kernel") == {}, "of before, when a busy machine was taken for a slow client"
    keep()
    assert client_limit(1, "kernel") == limits
    assert client_limit(2, "kernel") == {}, "two processes can bear more"
    assert client_limit(1, "loop") == {}, "under TLS it is another client"


@pytest.mark.clock
def test_the_command_says_what_it_found() -> None:
    said = CliRunner().invoke(bench, ["calibrate", "--json"])
    assert said.exit_code == 0
    assert json.loads(said.stdout)["streams"] == 24
    assert "24 streams" in said.stderr
    told = CliRunner().invoke(bench, ["calibrate"]).stdout
    assert "this client holds 24 streams" in told
    assert "us a token, four fifths of a core for each client process would bear" in told
