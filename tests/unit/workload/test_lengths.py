"""Lengths: what may be written, and what is drawn of it."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from enginebench.domain import ClosedLoop, Load, OpenLoop, kind_of
from enginebench.errors import UserError
from enginebench.workload import check, largest_request, natural_count
from enginebench.workload.arrivals import due_times
from enginebench.workload.forecast import MAX_REQUESTS
from enginebench.workload.lengths import Distribution, Lengths, parse
from hypothesis import given
from hypothesis import strategies as st

HERE = Path()

numbers = st.integers(1, 5000)
expressions = st.one_of(
    numbers.map(str),
    st.tuples(numbers, numbers).map(lambda ab: f"uniform({min(ab)},{max(ab)})"),
    st.builds("normal({},{})".format, numbers, st.integers(1, 500)),
    st.builds("lognormal({},{:.3f})".format, numbers, st.floats(0.01, 1.5)),
    st.tuples(st.integers(100, 1000), st.integers(1, 100), st.integers(0, 100)).map(
        lambda n: f"normal({n[0]},{n[1]},{n[0]}..{n[0] + n[2]})"
    ),
)


def load_of(**fields: Any) -> Load:
    return kind_of(fields)(**fields)


def parsed(text: int | str) -> Distribution:
    found = parse(text)
    assert found is not None
    return found


@given(expressions, st.lists(st.floats(0, 1, exclude_min=True, exclude_max=True), min_size=1))
def test_a_length_is_a_whole_number_within_its_bounds_and_grows_with_the_share(text: str, shares: list[float]) -> None:
    found = parsed(text)
    lengths = [found.quantile(share) for share in sorted(shares)]
    assert lengths == sorted(lengths)
    assert 1 <= found.low <= lengths[0]
    assert lengths[-1] <= found.high
    assert all(type(length) is int for length in lengths)


@given(expressions, st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_canonical_text_means_the_same_and_stays(text: str, share: float) -> None:
    found = parsed(text)
    again = parsed(str(found))
    assert (again.low, again.high, again.quantile(share)) == (found.low, found.high, found.quantile(share))
    assert str(again) == str(found)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        (64, "64"),
        (" 64 ", "64"),
        ("uniform( 64 , 256 )", "uniform(64,256)"),
        ("uniform(64,64)", "64"),
        ("normal(512,64.0)", "normal(512,64)"),
        ("normal(512.5,64, 16 .. 2048)", "normal(512.5,64,16..2048)"),
        ("lognormal(512,0.60)", "lognormal(512,0.6)"),
    ],
)
def test_one_length_has_one_text(written: int | str, canonical: str) -> None:
    assert str(parsed(written)) == canonical


@pytest.mark.parametrize(
    ("text", "low", "high", "mean"),
    [
        ("512", 512, 512, 512),
        ("uniform(64,256)", 64, 256, 160),
        ("normal(512,64)", 1, 896, 512),
        ("normal(512,64,512..2048)", 512, 2048, 512 + 64 * 0.7979),  # half normal: sqrt(2/pi) sigma above the mean
        ("lognormal(512,0.6)", 1, 5643, 512 * 1.1972),  # exp(sigma^2 / 2)
    ],
)
def test_bounds_and_mean(text: str, low: int, high: int, mean: float) -> None:
    found = parsed(text)
    assert (found.low, found.high) == (low, high)
    assert found.mean == pytest.approx(mean, rel=3e-3)


def test_what_is_drawn_has_the_mean_and_the_median_that_were_asked() -> None:
    load = ClosedLoop(input_tokens="uniform(1,3)", output_tokens="lognormal(300,0.5)")
    drawn = Lengths.of(load).draw(0, 6000)
    inputs, outputs = zip(*((a or 0, b or 0) for a, b in drawn), strict=True)
    assert {inputs.count(length) // 400 for length in (1, 2, 3)} <= {4, 5}  # 2,000 each
    assert statistics.median(outputs) == pytest.approx(300, rel=0.03)
    assert statistics.mean(outputs) == pytest.approx(parsed("lognormal(300,0.5)").mean, rel=0.03)
    assert abs(statistics.correlation(inputs, outputs)) < 0.05


def test_nothing_piles_up_at_the_bounds() -> None:
    found = parsed("normal(100,50,90..110)")
    lengths = [found.quantile((step + 0.5) / 2100) for step in range(2100)]
    assert all(80 < lengths.count(length) < 120 for length in range(90, 111))


def test_what_is_drawn_depends_on_the_seed_and_the_index_alone() -> None:
    lengths = Lengths.of(ClosedLoop(lengths="10+20, 30+40*3, 50+60*0.5"))
    assert lengths.draw(3, 50) == lengths.draw(3, 80)[:50]
    assert lengths.draw(3, 50) != lengths.draw(4, 50)


def test_pairs_stay_pairs_and_keep_their_weights() -> None:
    drawn = Lengths.of(ClosedLoop(lengths="128+64*3, 2048+256")).draw(0, 4000)
    assert set(drawn) == {(128, 64), (2048, 256)}
    assert drawn.count((128, 64)) == pytest.approx(3000, rel=0.05)


@pytest.mark.parametrize(
    "text",
    ["", "long", "0", "-3", "1.5", "uniform(5)", "uniform(9,3)", "uniform(1.5,3)", "uniform(1,3,1..3)", "normal(512,0)", "normal(0,5)",
     "normal(5,1,9..3)", "normal(5,1,0..9)", "normal(5,1,900..1000)", "normal(1.2.3,4)", "lognormal(512,9)", "poisson(5)", "20000000"],
)  # fmt: skip
def test_what_is_no_length_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text, "output_tokens")
    assert caught.value.key == "output_tokens"
    assert caught.value.advice


@pytest.mark.parametrize("text", ["", "128", "128+", "128+64*0", "128+64;2048+256", "0+5", "a+b", "128+64,"])
def test_what_is_no_list_of_pairs_is_refused(text: str) -> None:
    with pytest.raises(UserError) as caught:
        Lengths.of(ClosedLoop(lengths=text))
    assert caught.value.key == "lengths"


@pytest.mark.parametrize(
    ("fields", "largest"),
    [
        ({"input_tokens": 100, "output_tokens": "uniform(5,20)"}, 120),
        ({"lengths": "128+64*3, 100+256"}, 356),
        ({"input_tokens": 100, "output_tokens": 20, "turns": 3}, 360),
        ({"input_tokens": "normal(100,10)", "output_tokens": 40}, 200),
        ({"input_tokens": 100, "output_tokens": "data", "prompts": "jsonl:x"}, None),
    ],
)
def test_the_largest_request_a_load_can_make(fields: dict[str, Any], largest: int | None) -> None:
    assert largest_request(load_of(**fields), HERE) == largest


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("input_tokens", {"input_tokens": "long"}),
        ("output_tokens", {"output_tokens": "uniform(1)"}),
        ("lengths", {"lengths": "1"}),
        ("prompts", {"input_tokens": "data"}),
        ("prompts", {"output_tokens": "data", "prompts": "text"}),
        ("prompts", {"prompts": "shargpt:x"}),
        ("prompts", {"prompts": "jsonl:no-such-file"}),
        ("trace", {"trace": "no-such-file"}),
        ("trace", {"trace": "x", "prompts": "jsonl:x"}),
        ("trace", {"trace": "x", "prefix_groups": 2, "prefix_tokens": 8, "prefix_cache": "allowed"}),
        ("time_scale", {"trace": "x", "time_scale": 0.0}),
        ("rate", {"rate": 0.0}),
        ("rate", {"rate": -1.0, "duration_s": 5.0}),
        ("rate", {"rate": float("nan"), "duration_s": 5.0}),
        ("rate_to", {"rate": 1.0, "rate_to": 0.0}),
        ("burstiness", {"rate": 1.0, "burstiness": 0.0}),
        ("duration_s", {"rate": 1.0, "duration_s": float("inf")}),
        ("turns", {"turns": 0}),
        ("turns", {"turns": 2}),
        ("prefix_groups", {"prefix_groups": 2, "prefix_tokens": 8}),
        ("prefix_groups", {"prefix_groups": 2, "prefix_tokens": 8, "prompts": "jsonl:x", "prefix_cache": "allowed"}),
        ("prefix_tokens", {"prefix_groups": 2, "prefix_tokens": 64, "input_tokens": "uniform(64,90)", "prefix_cache": "allowed"}),
    ],
)
def test_a_load_that_cannot_be_sent_is_refused_before_the_run(key: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        check(load_of(**fields), HERE)
    assert caught.value.key == key
    assert caught.value.advice


def test_a_load_that_can_be_sent_is_not_refused() -> None:
    check(ClosedLoop(), HERE)
    check(OpenLoop(rate=1.0, rate_to=4.0, requests=0, duration_s=5.0, turns=2, lengths="1+2", prefix_cache="allowed"), HERE)
    check(ClosedLoop(prefix_groups=2, prefix_tokens=63, input_tokens="uniform(64,90)", prefix_cache="allowed"), HERE)


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("rate", {"rate": 100_000.0, "duration_s": 3600.0, "requests": 0}),
        ("rate", {"rate": 1.0, "rate_to": 4000.0, "duration_s": 1001.0, "requests": 0}),
        ("rate", {"rate": 600.0, "duration_s": 1000.0, "requests": 0, "turns": 4, "prefix_cache": "allowed"}),
        ("rate", {"rate": 9.0, "requests": MAX_REQUESTS + 1}),
        ("requests", {"requests": MAX_REQUESTS + 1}),
    ],
)
def test_more_requests_than_can_be_made_are_refused_at_once(key: str, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="2,000,000 is the most") as caught:
        check(load_of(**fields), HERE)
    assert caught.value.key == key
    assert caught.value.advice
    check(load_of(**fields | {"requests": 50}), HERE)


@pytest.mark.parametrize("arrivals", ["poisson", "gamma"])
def test_a_load_in_which_nothing_is_due_is_refused(arrivals: str) -> None:
    fields: dict[str, Any] = {"rate": 0.05, "requests": 0, "arrivals": arrivals}
    first = due_times(OpenLoop(**fields), 1)[0]
    with pytest.raises(UserError, match=r"no request is due within 2 s: the first would be after") as caught:
        check(OpenLoop(**fields, duration_s=2.0), HERE)
    assert (caught.value.key, natural_count(OpenLoop(**fields, duration_s=2.0), HERE)) == ("rate", 0)
    assert "duration_s" in (caught.value.advice or "")
    check(OpenLoop(**fields, duration_s=first + 0.01), HERE)
    check(OpenLoop(rate=0.05, requests=0, arrivals="constant", duration_s=2.0), HERE)  # it begins at once


def test_how_many_requests_a_load_has_by_itself() -> None:
    even = OpenLoop(rate=4.0, arrivals="constant", duration_s=2.0, requests=0)
    assert natural_count(ClosedLoop(requests=7), HERE) is None
    assert natural_count(even, HERE) == 8  # at 0, 0.25, ..., 1.75 s
    assert natural_count(OpenLoop(rate=4.0, arrivals="constant", duration_s=2.0, requests=5), HERE) == 5
    assert natural_count(OpenLoop(rate=4.0, arrivals="constant", duration_s=2.0, requests=0, turns=3), HERE) == 24
    assert natural_count(OpenLoop(rate=4.0, requests=30), HERE) == 30
