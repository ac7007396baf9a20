"""Each check fires on the cell that deserves it, and a good cell passes all of them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import pytest
from enginebench.nouns import Cell, Deployment, Load, Runtime, Sample
from enginebench.samples import Samples
from enginebench.store import CellRecord
from enginebench.validity import Check, judge, withheld

MS = 1_000_000


def cell(
    *, load: Load | None = None, identity: str = "proven", client: Mapping[str, float] | None = None, length: str = "exact",
    runtime: Runtime = "process", stopped: str | None = None, unsent: int = 0,
) -> CellRecord:  # fmt: skip
    made = Cell(Deployment("fake", "m", "none", "m", runtime=runtime), load or Load(concurrency=2, output_tokens=20, input_tokens=10))
    return CellRecord(
        made.id, made.launch_id, made.deployment, made.load, 0, "ok", identity=identity,
        client={"lag_p99_ms": 0.1, "cpu_fraction": 0.2, **(client or {})}, length_control=length,
        stopped=stopped, unsent=unsent,
    )  # fmt: skip


def samples(
    n: int = 16,
    *,
    tokens: int | None = 20,
    inputs: int = 10,
    cached: int = 0,
    gap_ms: float = 10,
    outcomes: tuple[str, ...] = (),
    pieces: int = 20,
) -> Samples:
    made = []
    for i in range(n):
        start = 1_000 * MS + i // 2 * 300 * MS
        events = array("q", [int(start + 50 * MS + j * gap_ms * MS) for j in range(pieces)])
        made.append(
            Sample(
                i, 10, 20, due_ns=start, sent_ns=start, end_ns=events[-1], event_ns=events, event_tokens=array("i", [-1] * pieces),
                event_chars=array("i", [1] * pieces), outcome=outcomes[i] if i < len(outcomes) else "ok", input_tokens=inputs,
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
        (cell(), samples(gap_ms=0.01), Check.BURST_DELIVERY, "suspect"),
        (cell(), samples(outcomes=("cut",) * 3), Check.FAILED_REQUESTS, "invalid"),
        (cell(identity="no listener"), samples(), Check.UNPROVEN_SERVER, "suspect"),
        (cell(), samples(pieces=1), Check.FEW_EVENTS, "suspect"),
        (cell(), samples(pieces=2), Check.FEW_EVENTS, "suspect"),
        (cell(stopped="timeout", unsent=3), samples(), Check.ENDED_EARLY, "invalid"),
        (cell(unsent=3), samples(), Check.ENDED_EARLY, "invalid"),
        (cell(), samples(3), Check.FEW_REQUESTS, "suspect"),
        (cell(), samples(2), Check.SHORT_WINDOW, "suspect"),
    ],
)
def test_each_check_fires(record: CellRecord, data: Samples, check: Check, verdict: str) -> None:
    found, reasons = judge(record, data)
    assert check in {reason.check for reason in reasons}
    assert found == verdict
    assert all(reason.check.value in str(reason) for reason in reasons)


def test_bursts_take_the_pace_from_a_cell_but_not_its_throughput() -> None:
    record, data = cell(), samples(gap_ms=0.01)
    verdict, reasons = judge(record, data)
    assert verdict == "suspect"
    assert {"tpot", "itl", "user_throughput"} <= set(withheld(record, reasons))
    assert not {"output_throughput", "e2e", "ttft"} & set(withheld(record, reasons))


@pytest.mark.parametrize(("requests", "gap_ms", "burst"), [(1, 0.01, True), (1, 10, False), (2, 0.01, True)])
def test_a_handful_of_gaps_is_judged_too(requests: int, gap_ms: float, burst: bool) -> None:
    _, reasons = judge(cell(), samples(requests, gap_ms=gap_ms, pieces=4, tokens=20))
    assert (Check.BURST_DELIVERY in {reason.check for reason in reasons}) == burst


def test_a_batch_has_no_latency_for_each_request() -> None:
    assert {"ttft", "e2e", "itl"} <= set(withheld(cell(runtime="in-process"), ()))
    assert withheld(cell(), ()) == {}


def test_one_lost_request_in_many_is_suspect_not_invalid() -> None:
    verdict, reasons = judge(cell(), samples(100, outcomes=("cut",)))
    assert verdict == "suspect"
    assert [reason.check for reason in reasons] == [Check.FAILED_REQUESTS]


def test_cache_hits_are_fine_where_the_scenario_allows_them() -> None:
    allowed = Load(concurrency=2, output_tokens=20, input_tokens=10, prefix_cache="allowed")
    assert judge(cell(load=allowed), samples(cached=9))[0] == "valid"
