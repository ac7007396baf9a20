"""How a load is divided among clients, whatever it is."""

from __future__ import annotations

from itertools import groupby

from enginebench.dialects import OpenAICompletions
from enginebench.loadgen import LoadSpec, Target, WireRequest
from enginebench.loadgen.dispatch import starts
from enginebench.loadgen.sharing import parts_of
from hypothesis import given
from hypothesis import strategies as st

LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=30)
"""Turns of each session; 1: a request of its own."""


def requests_of(lengths: list[int]) -> list[WireRequest]:
    found: list[WireRequest] = []
    for session, turns in enumerate(lengths):
        for turn in range(turns):
            talk = session if turns > 1 else -1
            after = (len(found) - 1,) if turn and session % 2 else ()
            found.append(WireRequest(len(found), "/x", b"{}", 1, 1, conversation=talk, turn=turn, after=after))
    return found


@given(LENGTHS, st.integers(1, 8), st.integers(1, 40), st.integers(0, 10**9))
def test_every_request_goes_to_one_client_and_sessions_stay_whole(lengths: list[int], count: int, streams: int, ramp_ns: int) -> None:
    requests = requests_of(lengths)
    spec = LoadSpec(Target("h", 1), requests, streams, OpenAICompletions(), 1.0, ramp_ns=ramp_ns)
    parts = parts_of(spec, min(count, streams))
    assert sorted(request.index for part in parts for request in part.requests) == list(range(len(requests)))
    homes = [{request.conversation: number for request in part.requests if request.conversation >= 0} for number, part in enumerate(parts)]
    assert sum(map(len, homes)) == len({request.conversation for request in requests if request.conversation >= 0})
    for part in parts:
        for conversation, turns in groupby(part.requests, key=lambda request: request.conversation):
            assert conversation < 0 or [turn.turn for turn in turns] == list(range(lengths[conversation]))
    assert sum(part.concurrency for part in parts) == streams
    assert max(part.concurrency for part in parts) - min(part.concurrency for part in parts) <= 1


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 20), st.integers(0, 10**9))
def test_streams_start_at_the_same_times_however_often_a_load_is_divided(hosts: int, processes: int, more: int, ramp_ns: int) -> None:
    """Among hosts, and on each among its processes."""
    streams = hosts * processes + more
    spec = LoadSpec(Target("h", 1), requests_of([1] * streams), streams, OpenAICompletions(), 1.0, ramp_ns=ramp_ns)
    parts = [each for part in parts_of(spec, hosts) for each in parts_of(part, processes)]
    assert sorted(at for part in parts for at in part.starts_ns or ()) == starts(streams, ramp_ns)
    assert all(len(part.starts_ns or ()) == part.concurrency for part in parts)
