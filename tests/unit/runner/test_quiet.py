"""A busy machine is announced before the first cell, and waited for only as long as was asked."""

from __future__ import annotations

import time

import pytest
from enginebench.runner import quiet
from enginebench.runner.quiet import Moment, check_quiet, others_since


def said(monkeypatch: pytest.MonkeyPatch, shares: list[float], wait_s: float) -> list[str]:
    found = iter(shares)
    monkeypatch.setattr(quiet, "others_since", lambda _: next(found))
    monkeypatch.setattr(quiet, "AGAIN_S", 0.0)
    lines: list[str] = []
    check_quiet(Moment(), wait_s, lines.append)
    return lines


def test_a_quiet_machine_is_not_mentioned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, [0.09], 0) == []


def test_a_busy_machine_is_a_warning_and_no_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = said(monkeypatch, [0.43], 0)
    assert "other work uses 43 % of them" in line
    assert "--wait-quiet 60s" in line


def test_it_is_waited_for_until_it_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = said(monkeypatch, [0.43, 0.3, 0.05], 60)
    assert line.endswith("waiting up to 60 s until it is quiet")


def test_the_work_of_this_process_is_not_that_of_others() -> None:
    """Whatever else runs here, what this process takes does not add to it."""
    started, own = Moment(), time.process_time()
    while time.process_time() - own < 0.3:
        pass
    now = Moment()
    used, passed = now.host[0] - started.host[0], now.host[1] - started.host[1]
    assert now.own - started.own > 0.1
    assert others_since(started) < used / passed + 0.2
