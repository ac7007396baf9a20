"""Money and energy per token: paper cases, and what happens where a price or the power is not known."""

from __future__ import annotations

from pathlib import Path

import pytest
from enginebench.errors import UserError
from enginebench.metrics.costs import (
    Cost,
    DevicePrice,
    Prices,
    cost,
    read_prices,
    with_flags,
)
from hypothesis import given
from hypothesis import strategies as st

RENTED = Prices(devices={"h100": DevicePrice(hour=2.5)})


def test_a_million_tokens_on_rented_devices() -> None:
    # 4 devices x 2.50 = 10.00 an hour; 5,000 tokens/s are 18 million an hour; 10 / 18 = 0.5556 a million.
    found = cost(5000, "h100", 4, RENTED)
    assert found.per_hour == 10.0
    assert found.per_million_tokens == pytest.approx(0.55556, abs=1e-5)
    assert found.tokens_per_s_per_money is None
    assert found.joules_per_token is None


def test_a_bought_card_is_written_off_and_drinks_electricity() -> None:
    # 1,600 / (2 x 8766 h) = 0.09126 an hour; 450 W x 1.1 x 0.30 per kWh = 0.1485; together 0.23976.
    # 18 tokens/s are 64,800 an hour: 0.23976 / 0.0648 = 3.70 a million. 450 / 18 = 25 J a token.
    prices = Prices("EUR", {"rtx-4090": DevicePrice(card=1600, watts=450)}, electricity=0.30, overhead=1.1, years=2)
    found = cost(18, "rtx-4090", 1, prices, bandwidth_gb_s=1008)
    assert found.per_hour == pytest.approx(0.23976, abs=1e-5)
    assert found.per_million_tokens == pytest.approx(3.700, abs=1e-3)
    assert found.joules_per_token == 25.0
    assert found.tokens_per_s_per_money == pytest.approx(18 / 1600)
    assert found.bandwidth_per_money == pytest.approx(0.63)  # 1008 / 1600


def test_measured_power_wins_over_the_listed_one() -> None:
    prices = Prices(devices={"*": DevicePrice(hour=1, watts=700)}, electricity=1.0)
    assert cost(100, "h100", 2, prices).per_hour == pytest.approx(2 + 1.4)
    assert cost(100, "h100", 2, prices, watts=500).per_hour == pytest.approx(2 + 0.5)
    assert cost(100, "h100", 2, prices, watts=500).joules_per_token == 5.0


def test_what_is_not_known_is_none_and_never_too_small() -> None:
    assert cost(100, "a100", 1, RENTED) == Cost(None, None, None, None, None)
    unpowered = Prices(devices={"*": DevicePrice(hour=1)}, electricity=0.3)
    assert cost(100, "h100", 1, unpowered).per_hour is None  # its electricity would be missing
    assert cost(0, "h100", 1, RENTED).per_million_tokens is None
    assert cost(0, "h100", 1, RENTED, watts=700).joules_per_token is None


@given(st.floats(0.01, 1e6), st.floats(0.01, 1e6), st.floats(1.001, 100))
def test_a_faster_engine_is_never_dearer(rate: float, money: float, factor: float) -> None:
    prices = Prices(devices={"*": DevicePrice(hour=money)})
    fast, slow = (cost(pace, "h100", 1, prices).per_million_tokens for pace in (rate * factor, rate))
    assert fast is not None
    assert slow is not None
    assert fast < slow


def test_prices_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("currency: EUR\nelectricity: 0.3\nyears: 4\ndevices:\n  h100: {hour: 2.5, watts: 700}\n  '*': {card: 1600}\n")
    assert read_prices(file) == Prices(
        "EUR", {"h100": DevicePrice(hour=2.5, watts=700.0), "*": DevicePrice(card=1600.0)}, electricity=0.3, years=4.0
    )


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("electricty: 0.3\n", 1, "is not a known key"),
        ("devices:\n  h100: {hour: free}\n", 2, "must be a number above 0"),
        ("devices:\n  h100: {hour: -1}\n", 2, "must be a number above 0"),
        ("devices:\n  h100: 2\n", 2, "must be a mapping"),
        ("currency: 3\n", 1, "must be text"),
        ("- 1\n", 1, "must be a mapping"),
    ],
)
def test_a_wrong_price_list_names_its_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_prices(file)
    assert caught.value.line == line


def test_flags_change_single_prices() -> None:
    prices = with_flags(RENTED, ["hour=1", "h200.hour=3", "electricity=0.25", "currency=EUR", "years=5", "overhead=1.3"])
    assert prices.of("h100").hour == 2.5
    assert prices.of("h200").hour == 3
    assert prices.of("b200").hour == 1
    assert (prices.electricity, prices.currency, prices.years, prices.overhead) == (0.25, "EUR", 5, 1.3)


@pytest.mark.parametrize("flag", ["hour", "hour=", "hour=-1", "hour=nan", "h100.currency=EUR", "rent=1", "h100.years=3"])
def test_a_wrong_flag_says_what_to_write(flag: str) -> None:
    with pytest.raises(UserError, match="--price") as caught:
        with_flags(Prices(), [flag])
    assert caught.value.advice
