"""Each check fires on the cell that deserves it, and a good cell passes all of them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import pytest
from enginebench.nouns import Cell, Deployment, Load, Sample
from enginebench.samples import Samples
from enginebench.store import CellRecord
from enginebench.validity import Check, judge

MS = 1_000_000


def cell(
    *, load: Load | None = None, identity: str = "proven", client: Mapping[str, float] | None = None, length: str = "exact"
) -> CellRecord:
    made = Cell(Deployment("fake", "m", "none", "m"), load or Load(concurrency=2, output_tokens=20, input_tokens=10))
    return CellRecord(
        made.id, made.launch_id, made.deployment, made.load, 0, "ok", identity=identity,
        client={"lag_p99_ms": 0.1, "cpu_fraction": 0.2, **(client or {})}, length_control=length,
    )  # fmt: skip


def samples(
    n: int = 16, *, tokens: int | None = 20, inputs: int = 10, cached: int = 0, gap_ms: float = 10, outcomes: tuple[str, ...] = ()
) -> Samples:
    made = []
    for i in range(n):
        start = 1_000 * MS + i // 2 * 300 * MS
        events = array("q", [int(start + 50 * MS + j * gap_ms * MS) for j in range(20)])
        made.append(
            Sample(
                i, 10, 20, due_ns=start, sent_ns=start, end_ns=events[-1], event_ns=events, event_tokens=array("i", [-1] * 20),
                event_chars=array("i", [1] * 20), outcome=outcomes[i] if i < len(outcomes) else "ok", input_tokens=inputs,
                output_tokens=tokens, cached_tokens=cached,
            )
        )  # fmt: skip
    return Samples.collect(made)


def test_a_good_cell_is_valid() -> None:
    assert judge(cell(), samples()) == ("valid", ())


@pytest.mark.parametrize(
    ("record", "data", "check", "verdict"),
    [
        (cell(client={"lag_p99_ms": 6.0}), samples(), Check.CLIENT_BOUND, "suspect"),
        (cell(client={"lag_p50_ms": 6.0, "lag_p99_ms": 40.0}), samples(), Check.CLIENT_BOUND, "invalid"),
        (cell(client={"cpu_fraction": 0.95}), samples(), Check.CLIENT_BOUND, "suspect"),
        (cell(), samples(tokens=19), Check.LENGTH_MISMATCH, "suspect"),
        (cell(), samples(tokens=5), Check.LENGTH_MISMATCH, "invalid"),
        (cell(length="cap"), samples(tokens=5), Check.LENGTH_MISMATCH, "suspect"),
        (cell(), samples(inputs=13), Check.LENGTH_MISMATCH, "invalid"),
        (cell(), samples(tokens=None), Check.NO_COUNTS, "invalid"),
        (cell(), samples(cached=9), Check.CACHE_HITS, "invalid"),
        (cell(), samples(gap_ms=0.01), Check.BURST_DELIVERY, "invalid"),
        (cell(), samples(outcomes=("cut",) * 3), Check.FAILED_REQUESTS, "invalid"),
        (cell(identity="no listener"), samples(), Check.UNPROVEN_SERVER, "suspect"),
        (cell(), samples(3), Check.FEW_REQUESTS, "suspect"),
        (cell(), samples(2), Check.SHORT_WINDOW, "suspect"),
    ],
)
def test_each_check_fires(record: CellRecord, data: Samples, check: Check, verdict: str) -> None:
    found, reasons = judge(record, data)
    assert check in {reason.check for reason in reasons}
    assert found == verdict
    assert all(reason.check.value in str(reason) for reason in reasons)


def test_one_lost_request_in_many_is_suspect_not_invalid() -> None:
    verdict, reasons = judge(cell(), samples(100, outcomes=("cut",)))
    assert verdict == "suspect"
    assert [reason.check for reason in reasons] == [Check.FAILED_REQUESTS]


def test_cache_hits_are_fine_where_the_scenario_allows_them() -> None:
    allowed = Load(concurrency=2, output_tokens=20, input_tokens=10, prefix_cache="allowed")
    assert judge(cell(load=allowed), samples(cached=9))[0] == "valid"
