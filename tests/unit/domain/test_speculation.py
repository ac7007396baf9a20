"""The rates of a forced acceptance are the paper's, and a deployment without speculation is what it was: the same JSON, the same id."""

from __future__ import annotations

import pytest
from enginebench.domain import Cell, ClosedLoop, Deployment, Speculation, canonical, plain_object

PLAIN = Deployment("vllm", "m", "bf16", "m")
ASKED = Deployment("vllm", "m", "bf16", "m", speculation=Speculation("draft", 3, "/models/small", "bf16", acceptance=0.7))


def test_forced_rates() -> None:
    asked = Speculation("draft", 4, acceptance=0.8)
    assert asked.rates == pytest.approx((0.8, 0.64, 0.512, 0.4096))
    assert asked.forced_length == pytest.approx((1 - 0.8**5) / (1 - 0.8)), "Leviathan et al. 2023, equation 1"
    assert (Speculation("draft", 4, acceptance=1.0).forced_length, Speculation("draft", 4, acceptance=0.0).forced_length) == (5, 1)
    assert Speculation("draft", 4).forced_length is None


def test_an_absent_speculation_is_neither_stored_nor_in_the_id() -> None:
    assert "speculation" not in plain_object(PLAIN)
    assert "speculation" not in canonical(PLAIN)
    assert Cell(PLAIN, ClosedLoop()).id == "cc91534f181d"


def test_what_is_asked_is_stored_and_in_the_id() -> None:
    assert plain_object(ASKED)["speculation"] == {
        "method": "draft", "tokens": 3, "draft": "/models/small", "draft_precision": "bf16", "match": None, "acceptance": 0.7,
    }  # fmt: skip
    assert canonical(ASKED)["speculation"] == {
        "method": "draft",
        "tokens": 3,
        "draft": "/models/small",
        "draft_precision": "bf16",
        "acceptance": 0.7,
    }
    assert Cell(ASKED, ClosedLoop()).id != Cell(PLAIN, ClosedLoop()).id


def test_in_a_line() -> None:
    assert [Speculation("ngram", 4, match=3).text, ASKED.speculation and ASKED.speculation.text] == [
        "ngram 4",
        "draft 3 small acceptance 0.7",
    ]
