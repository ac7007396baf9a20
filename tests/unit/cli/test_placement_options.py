"""Options that say where a model's weights are, through the real command line: each changes what it says it changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from enginebench.cli import bench

GIB = 2**30
ON_A_CARD = ("gpt-oss-120b", "--hardware", "rtx4090+128gb")


def asked(*arguments: str) -> dict[str, Any]:
    outcome = CliRunner().invoke(bench, [*arguments, "--json"])
    assert outcome.exception is None, outcome.output
    found: dict[str, Any] = json.loads(outcome.stdout)
    return found


@pytest.mark.parametrize("verb", ["fit", "ceiling"])
def test_replicas_have_a_copy_each(verb: str) -> None:
    found = asked(verb, "mixtral-8x7b", "--hardware", "4xh100", "--tp", "2", "--dp-replicas", "2")
    assert (found["parallelism"]["tp"], found["parallelism"]["dp_replicas"]) == (2, 2)


def test_two_replicas_of_two_ranks_hold_twice_as_much_each_as_one_of_four() -> None:
    one, two = (asked("fit", "mixtral-8x7b", "--hardware", "4xh100", "--tp", tp, "--dp-replicas", n) for tp, n in (("4", "1"), ("2", "2")))
    assert two["weights_bytes"]["routed experts"] == 2 * one["weights_bytes"]["routed experts"]


def test_a_reserve_is_left_free() -> None:
    usual, more = (asked("fit", "mixtral-8x7b", "--hardware", "4xh100", "--reserve", reserve) for reserve in ("2.5", "10"))
    assert usual["left_bytes"] - more["left_bytes"] == pytest.approx(7.5 * GIB)
    small, large = (asked("offload", *ON_A_CARD, "--reserve", reserve) for reserve in ("1", "6"))
    assert small["curve"][0]["left_bytes"] - large["curve"][0]["left_bytes"] == pytest.approx(5 * GIB)
    assert large["plan"] > small["plan"], "more layers go to the host"


def test_experts_that_are_kept_are_on_the_device_and_the_others_on_the_host() -> None:
    found = asked("fit", *ON_A_CARD, "--gpu-experts", "16")
    kept = found["weights_bytes"]["routed experts"]
    assert kept / (kept + found["host_bytes"]) == pytest.approx(16 / 128)


@pytest.mark.parametrize("verb", ["fit", "ceiling"])
def test_a_link_is_slower_than_the_hosts_memory(verb: str) -> None:
    def rate(*more: str) -> float:
        found = asked(verb, *ON_A_CARD, "--gpu-experts", "16", *more)
        return float(found["expected"]["tokens_per_s"] if verb == "fit" else 1 / found["contexts"][0]["decode"][0]["memory"]["host"])

    assert rate("--over-link") < rate()


def test_plan_is_verbose_in_both_spellings() -> None:
    long, short, brief = (CliRunner().invoke(bench, ["plan", "quickstart", *more]).stdout for more in (["--verbose"], ["-v"], []))
    assert long == short
    assert [line for line in long.splitlines() if line not in brief.splitlines()]
