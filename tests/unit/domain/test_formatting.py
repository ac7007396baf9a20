"""How values are written: digits, units and intervals."""

from __future__ import annotations

import json

import pytest
from enginebench.domain import JSON, Deployment
from enginebench.domain.formatting import (
    counted,
    decimals,
    duration,
    flat,
    gigabytes,
    interval,
    label,
    number,
    percent,
    printable,
    relative_change,
    rounded,
    size,
    stored,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.00912, "0.00912"),
        (9.121, "9.12"),
        (9.996, "10.0"),
        (41, "41.0"),
        (99.96, "100"),
        (1741.6, "1,742"),
        (1234567, "1,234,567"),
    ],
)
def test_numbers_have_three_significant_digits_and_lose_no_integer_digit(value: float, text: str) -> None:
    assert number(value) == text
    assert decimals(-value) == decimals(value)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (3.5, "3.5"), (0.07251, "0.0725"), (41, "41"), (101.3, "101"), (3812, "3,812")])
def test_rounded_numbers_have_no_trailing_zeros(value: float, text: str) -> None:
    assert rounded(value) == text
    assert rounded(-value) == (f"-{text}" if value else "0")


def test_an_interval_has_the_precision_of_its_value() -> None:
    assert interval(41.2, 39.8, 102.51) == "[39.8-102.5]"
    assert interval(1741.6, 1701, 1790, " to ") == "[1,701 to 1,790]"
    assert interval(41.2, None, None) == ""


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [(0.05, 3, "5 %"), (0.995, 3, "99.5 %"), (0.0725, 3, "7.25 %"), (12.3, 3, "1,230 %"), (0.9995, 6, "99.95 %"), (0.07, 6, "7 %")],
)
def test_shares_are_percentages(share: float, digits: int, text: str) -> None:
    assert percent(share, digits) == text


def test_a_change_has_a_sign_and_its_interval() -> None:
    assert relative_change(0.102) == "+10.2 %"
    assert relative_change(-0.02, -0.031, 0.004) == "-2.0 % [-3.1 to +0.4]"


@pytest.mark.parametrize(("seconds", "text"), [(0.25, "0.25 s"), (90, "90 s"), (720, "12 min"), (1234, "20.6 min"), (6300, "1.75 h")])
def test_durations_have_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (2**30, "1 GiB"), (33_653_000_000, "31.34 GiB"), (-1536, "-1.5 KiB"), (2**41, "2 TiB")]
)
def test_sizes_are_in_binary_units(count: float, text: str) -> None:
    assert size(count) == text


def test_memory_is_compared_in_gigabytes() -> None:
    assert gigabytes(215_480_000_000) == "215.5 GB"


def test_counts_have_their_plural() -> None:
    assert (counted(1, "load"), counted(2000, "load"), counted(0, "load")) == ("1 load", "2,000 loads", "0 loads")
    assert counted(2, "search", "searches") == "2 searches"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "on"), (False, "off"), (4096, "4,096"), (0.531, "0.531"), (1234.0, "1,234"), ("f16", "f16"), (["a"], '["a"]')],
)
def test_stored_values_are_written_for_people(value: JSON, text: str) -> None:
    assert stored(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.5, "0.5"), (1e7, "1e+07"), (10_000_000, "10000000"), ("f16", "f16"), (True, "True")]
)
def test_labels_are_one_word(value: JSON, text: str) -> None:
    assert label(value) == text


def test_nested_data_are_flat_texts() -> None:
    data: dict[str, JSON] = {"a": {"b": 1, "none": None}, "list": [1, "x"], "gpus": [{"name": "A"}, {"name": "B"}], "empty": []}
    assert flat(data) == {"a.b": "1", "list": "1, x", "gpus.0.name": "A", "gpus.1.name": "B"}


def test_text_from_outside_cannot_control_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc") == "a\\x1b[2Jb\\nc"


def test_a_precision_that_nobody_stated_is_shown_as_nothing() -> None:
    attached = Deployment("openai", "m", "unstated", "m", "attach", url="http://127.0.0.1:1")
    assert (attached.known_precision, attached.shown["precision"]) == ("", None)
    assert "unstated" not in json.dumps(attached.shown)
    assert Deployment("openai", "m", "fp8", "m", "attach").shown["precision"] == "fp8"
