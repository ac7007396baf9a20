"""What a container takes of the machine, as its daemon tells: one that is held back by its quota is flagged, and one that is not is not."""

from __future__ import annotations

from typing import Any

import pytest
from enginebench.analysis.rows import CellResult, result_of
from enginebench.records.run_folder import open_run

from .conftest import FAKE, Bench, boxed

pytestmark = pytest.mark.usefixtures("nothing")

BUSY = FAKE + "options: {ttft_ms: 1, itl_ms: 1}, "
"""Many small events, which cost more than a fifth of a core."""


def measured(bench: Bench, seconds: int, **container: object) -> CellResult:
    load = f"concurrency: 16, requests: 0, duration_s: {seconds}"
    done = bench("run", bench.scenario(BUSY + boxed(**container), load=load), "--no-html")
    assert done.returncode == 0, done.stderr + done.stdout
    run = open_run(bench.run_folder())
    (record,) = run.cells()
    samples = run.samples(record.id)
    assert samples is not None
    return result_of(record, samples)


@pytest.mark.alone  # beside other programs it cannot use up even its fifth
@pytest.mark.clock
def test_a_container_with_a_fifth_of_a_core_is_held_back_and_flagged(bench: Bench, daemon: Any) -> None:
    cell = measured(bench, 4, cpus=0.2)
    (container,) = (subject for subject in cell.record.telemetry if subject.kind == "container")
    assert container.name == "engine"
    assert set(container.series.values) == {"cpu_s", "memory_bytes", "periods", "throttled_periods", "throttled_s"}
    assert cell.hardware.cores == pytest.approx(0.2, rel=0.25)
    assert cell.hardware.quota["engine"] > 0.5
    assert 2**20 < max(container.series.known("memory_bytes")) < 2**30
    told = {reason.check.id: reason.detail for reason in cell.reasons}
    assert told["cpu_throttled"].startswith("the container of the engine had used up its quota in ")
    assert cell.verdict in ("suspect", "invalid")


def test_a_container_without_a_quota_is_not(bench: Bench, daemon: Any) -> None:
    cell = measured(bench, 2)
    assert cell.hardware.quota == {}
    assert cell.hardware.cores is not None
    assert cell.hardware.cores > 0, "however little a busy machine lets it have"
    assert "cpu_throttled" not in {reason.check.id for reason in cell.reasons}


def test_every_member_is_followed(bench: Bench, daemon: Any) -> None:
    done = bench("run", bench.scenario(FAKE + "options: {disaggregated: true}, " + boxed()), "--no-html")
    assert done.returncode == 0, done.stderr + done.stdout
    (record,) = open_run(bench.run_folder()).cells()
    followed = [subject.name for subject in record.telemetry if subject.kind == "container"]
    assert followed == ["member prefill", "member decode", "engine"]
