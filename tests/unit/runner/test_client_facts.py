"""What is stored of client hosts: limits that they have together, telemetry on the clock of the run."""

from __future__ import annotations

import pytest
from enginebench.errors import UserError
from enginebench.loadgen.clock import Clock, Reading
from enginebench.loadgen.health import ClientHealth
from enginebench.loadgen.request import HostShare, LoadResult
from enginebench.runner.clients.facts import client_facts, together
from enginebench.runner.clients.hosts import address_of

HEALTH = ClientHealth(0.1, 0.2, 0.3, 0.4, 0.0, 0.1, 0.2, 4.0, 0, 0, "uvloop", "kernel")
CLOCK = Clock(Reading(0, 3_000_000_000, 40_000, 90_000), Reading(10_000_000_000, 3_000_100_000, 60_000, 130_000))


def test_hosts_hold_together_what_the_weakest_holds_times_their_number() -> None:
    """The load is shared evenly, so that the weakest is at its limit first."""
    assert together([{"streams": 100, "events_per_s": 5_000}, {"streams": 80, "events_per_s": 9_000}]) == {
        "streams": 160,
        "events_per_s": 10_000,
    }
    assert together([{"streams": 100, "events_per_s": 5_000}, {"events_per_s": 4_000}]) == {"events_per_s": 8_000}
    assert together([{"streams": 100}, {}]) == {}, "a host that was not calibrated has no known limit"


def test_a_host_is_stored_with_its_clock_and_its_telemetry_on_the_clock_of_the_run() -> None:
    series = {"at_ns": [3_000_000_000, 13_000_100_000], "values": {"busy_s": [1.0, 2.0]}, "cpu_s": 0.1}
    notes = {
        "telemetry": [{"kind": "host", "name": "this machine", "facts": {"cores": 2}, "series": series}],
        "limit": {"streams": 64},
        "others": "",
    }
    result = LoadResult([], 0, 1, HEALTH, shares=(HostShare("b:1", 2, 9, CLOCK, HEALTH, notes),))
    facts = client_facts(result)
    (host,) = facts.hosts
    assert (host.name, host.streams, host.requests) == ("b:1", 2, 9)
    assert (host.offset_ms, host.error_ms, host.drift_ms, host.span_s, host.round_trip_ms) == (3_000.0, 0.06, 0.1, 10.0, 0.09)
    assert host.telemetry[0].series.at_ns == pytest.approx((0, 10_000_000_000), abs=10)
    assert (host.shared_machine, facts.limit) == (None, {"streams": 64})
    assert host.health["achieved_concurrency"] == 4.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("h:1", ("h", 1, None)), ("t@10.0.0.1:7777", ("10.0.0.1", 7777, "t")), ("a@b@h:1", ("h", 1, "a@b")),
        ("t@[fe80::1]:5", ("fe80::1", 5, "t")),
        ("h", None), (":1", None), ("t@h:0", None), ("h:99999", None), ("h:1/x", None), ("", None),
    ],
)  # fmt: skip
def test_addresses_of_clients(text: str, found: tuple[str, int, str | None] | None) -> None:
    if found is None:
        with pytest.raises(UserError, match="expected HOST:PORT") as refused:
            address_of(text, "--clients")
        assert "t@" not in str(refused.value), "a token is not shown"
    else:
        address = address_of(text, "--clients")
        assert (address.host, address.port, address.token) == found
