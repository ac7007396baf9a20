"""`bench history` on folders of nights: pairing, what is left out, what changed where, outputs and exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import enginebench as eb
import numpy as np
import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.errors import Exit, UserError

from .nightly_runs import LOAD, VLLM, Nightly, store

TURN = 15
"""The night from which on things are different."""


def nights(
    folder: Path,
    count: int = 30,
    *,
    factor: Callable[[int], float] = lambda night: 0.94 if night >= TURN else 1.0,
    restarts: int = 2,
    turn: dict[str, Any] | None = None,
    change: Callable[[int, Nightly], Nightly | None] = lambda _, night: night,
) -> Path:
    """Nights of one deployment whose throughput is 500 tok/s times the factor. turn: what is different from TURN on."""
    rng = np.random.default_rng(1)
    for i in range(count):
        values = 500 * factor(i) * np.exp(0.006 * rng.standard_normal() + 0.006 * rng.standard_normal(restarts))
        night = Nightly([(VLLM, LOAD, {"output_throughput": values.tolist()})], i, **((turn or {}) if i >= TURN else {}))
        if (kept := change(i, night)) is not None:
            store(folder, kept)
    return folder


def changes(folder: Path) -> list[tuple[str, str, str]]:
    """Kind, direction and night of each change."""
    return [(each.kind, each.direction, each.at.night.day) for _, each in eb.history(folder).found.changes]


ONE = [("step", "worse", "2026-09-16")]


@pytest.mark.parametrize(
    ("turn", "cause"),
    [
        ({"version": "0.34.0"}, "vllm: version 0.33.0 -> 0.34.0"),
        ({"driver": "580.82"}, "machine: gpus.0.driver 580.65 -> 580.82"),
        ({"harness": "0.3.0"}, "machine: enginebench 0.2.0 -> 0.3.0"),
        ({"machine": {"cpu": "Example 9755"}}, "machine: cpu Example 9654 -> Example 9755"),
        ({"image": "sha256:2222"}, "vllm: container.image_digest not recorded -> sha256:2222"),
        ({}, "nothing that is recorded"),
    ],
)
def test_a_change_is_named_with_what_changed_there(tmp_path: Path, turn: dict[str, Any], cause: str) -> None:
    found = eb.history(nights(tmp_path, turn=turn))
    assert changes(tmp_path) == ONE
    ((_, change),) = found.found.changes
    assert change.relative == pytest.approx(-0.06, abs=0.01)
    assert change.low is not None
    assert change.high is not None
    assert change.low < -0.06 < change.high
    summary = " ".join(found.to_summary().split())
    assert f"with {cause}" in summary
    assert all(len(line) <= 80 for line in found.to_summary().splitlines() if not line.startswith("more"))


def test_options_that_change_do_not_break_the_pairing(tmp_path: Path) -> None:
    changed = replace(VLLM, options={"block_size": 32})
    swap = lambda i, night: replace(night, figures=[(changed, *night.figures[0][1:])]) if i >= TURN else night  # noqa: E731
    nights(tmp_path, change=swap)
    assert changes(tmp_path) == ONE
    assert "options.block_size not recorded -> 32" in eb.history(tmp_path).to_summary()


def test_an_unchanged_folder_has_no_change(tmp_path: Path) -> None:
    found = eb.history(nights(tmp_path, factor=lambda _: 1.0, turn={"version": "0.34.0"}))
    assert not list(found.found.changes)
    assert found.sentence == "No change in 30 nights: 1 series judged."
    assert "SAME    1 of 1 series did not change" in found.to_summary()


@pytest.mark.parametrize("odd", [0.5, 1.6])
def test_an_outlier_night_is_no_change(tmp_path: Path, odd: float) -> None:
    found = eb.history(nights(tmp_path, factor=lambda night: odd if night in (12, 29) else 1.0))
    assert not list(found.found.changes)
    assert "OUTLIER one night only, no change: 2026-09-30 vllm tok/s · 2026-09-13" in " ".join(found.to_summary().split())


def test_missing_and_failed_nights_change_nothing(tmp_path: Path) -> None:
    def holes(i: int, night: Nightly) -> Nightly | None:
        return None if i in (4, 5, 6, 14) else replace(night, status="failed") if i in (8, 20) else night

    assert changes(nights(tmp_path, change=holes)) == ONE
    assert "LEFT OUT 2 of 26 values: 2 failed" in eb.history(tmp_path).to_summary()


def test_a_night_that_fails_at_the_change_does_not_hide_its_cause(tmp_path: Path) -> None:
    nights(tmp_path, turn={"version": "0.34.0"}, change=lambda i, night: replace(night, status="failed") if i == TURN else night)
    ((_, change),) = eb.history(tmp_path).found.changes
    assert change.at.night.day == "2026-09-17"
    assert [(each.what, each.candidate) for each in change.causes] == [("version", "0.34.0")]


def test_suspect_nights_are_left_out_unless_most_are(tmp_path: Path) -> None:
    random = lambda which: lambda i, night: replace(night, random=which(i))  # noqa: E731
    few = nights(tmp_path / "few", factor=lambda i: 0.8 if i in range(10, 16) else 1.0, change=random(lambda i: i in range(10, 16)))
    found = eb.history(few)
    assert not list(found.found.changes)
    assert "LEFT OUT 6 of 30 values: 6 suspect" in found.to_summary()
    every = nights(tmp_path / "every", change=random(lambda _: True))
    assert changes(every) == ONE
    assert "TRUST   indicative only" in eb.history(every).to_summary()


def test_a_gradual_loss_is_one_drift(tmp_path: Path) -> None:
    found = eb.history(nights(tmp_path, 60, factor=lambda night: 1 - 0.10 * night / 60))
    assert [(each.kind, each.direction) for _, each in found.found.changes] == [("drift", "worse")]
    assert "% a week" in found.to_summary()


def test_restarts_are_one_night(tmp_path: Path) -> None:
    """Seven nights are too few, however often engines are started in each of them."""
    found = eb.history(nights(tmp_path, 7, factor=lambda night: 0.8 if night >= 4 else 1.0, restarts=8))
    assert found.trends[0].not_judged == "7 nights with a usable value, 8 are needed"
    assert found.sentence == "Nothing can be said yet: 7 nights with a usable value, 8 are needed."


def test_runs_of_one_day_are_one_night_if_nothing_changed_between_them(tmp_path: Path) -> None:
    nights(tmp_path, 10, factor=lambda _: 1.0)
    again = [(VLLM, LOAD, {"output_throughput": [500.0]})]
    store(tmp_path, Nightly(again, 9, hour=5))
    store(tmp_path, Nightly(again, 9, hour=9, version="0.34.0"))
    (trend,) = eb.history(tmp_path).trends
    assert len(trend.series.points) == 11
    assert [point.found.n for point in trend.series.points[-2:] if point.found] == [3, 1]


def test_directions_come_from_the_metric(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for i in range(24):
        values = {"ttft_p99": (0.2 * (1.1 if i >= 12 else 1) * np.exp(0.01 * rng.standard_normal(3))).tolist()}
        store(tmp_path, Nightly([(VLLM, LOAD, values)], i))
    found = eb.history(tmp_path, metric="ttft.p99")
    assert [each.direction for _, each in found.found.changes] == ["worse"]
    assert not eb.history(tmp_path).trends


def test_what_programs_read(tmp_path: Path) -> None:
    nights(tmp_path, turn={"version": "0.34.0"})
    data = json.loads(run("--json", str(tmp_path)).stdout)
    assert data["schema"] == 1
    assert data["runs"][0] == {"run": "2026-09-01-nightly-0", "name": "nightly", "at": "2026-09-01T02:17:00+00:00"}
    (trend,) = data["trends"]
    assert (trend["figure"], trend["unit"], len(trend["points"])) == ("output_throughput", "tok/s", 30)
    (change,) = trend["changes"]
    assert (change["direction"], change["at"]) == ("worse", "2026-09-16T02:17:00+00:00")
    assert change["causes"] == [{"of": "vllm", "what": "version", "base": "0.33.0", "candidate": "0.34.0"}]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(bench, ["history", *arguments], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), Exit.OK),
        (("--fail-if", "worse"), Exit.THRESHOLD),
        (("--fail-if", "worse", "--last", "15"), Exit.THRESHOLD),
        (("--fail-if", "worse", "--last", "14"), Exit.OK),
        (("--equal-within", "8%", "--fail-if", "changed"), Exit.OK),
    ],
)
def test_exit_codes(tmp_path: Path, arguments: Sequence[str], code: Exit) -> None:
    assert run(*arguments, str(nights(tmp_path))).return_value == code


def test_better_is_not_worse(tmp_path: Path) -> None:
    nights(tmp_path, factor=lambda night: 1.08 if night >= TURN else 1.0)
    assert run("--fail-if", "worse", str(tmp_path)).return_value == Exit.OK
    assert run("--fail-if", "changed", str(tmp_path)).return_value == Exit.THRESHOLD


def test_every_trend(tmp_path: Path) -> None:
    text = run("--all", str(nights(tmp_path))).stdout
    assert "vllm        4 streams  tok/s" in text
    assert "-6.0 % 09-16" in text
    markdown = run("--md", str(tmp_path)).stdout
    assert markdown.startswith("## History\n\n**1 change in 30 nights: vllm tok/s -6.0 % on 2026-09-16.**")


def test_mistakes_are_answered_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run in this folder"):
        eb.history(tmp_path)
    store(tmp_path, Nightly([(VLLM, LOAD, {"output_throughput": [1.0]})], 0))
    with pytest.raises(UserError, match=r"--metric ttft.p98: no percentile"):
        eb.history(tmp_path, metric="ttft.p98")
