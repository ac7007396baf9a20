"""Runs that are not one full grid: failures, other deployments per load, two kinds of load, an SLO that a noisy level misses. What is
printed about them is right."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
from enginebench.analysis.analysis import Analysis
from enginebench.analysis.rows import CellResult, Row, fold
from enginebench.domain import ClosedLoop, Load
from enginebench.metrics.slo import Slo
from enginebench.report.summary import render_summary
from enginebench.validity import Verdict

from .result_sets import GRID, cell, concluded, deployment, open_loops, probed, rows, run_record, times

TINY = 0.003
SLO = Slo(ttft_s=0.5, share=0.99)
RATES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
A = dict(zip(RATES, (1.0, 1.0, 0.995, 0.8, 0.3, 0.1), strict=True))
B = dict(zip(RATES, (1.0, 0.985, 1.0, 1.0, 0.992, 0.2), strict=True))
"""Holds 6 req/s, and 98.5 % at 2 by chance."""


def analysed(found: Sequence[Row], slo: Slo | None = None) -> Analysis:
    return Analysis(run_record(), tuple(found), {}, (), slo=slo)


def answer(its: Analysis) -> str:
    """Of the terminal, on one line."""
    text = render_summary(its, width=100)
    return " ".join(text[text.index("ANSWER") : text.index("TRUST")].split())


def status(who: str, where: Callable[[Load, int], bool], **how: str) -> Callable[[str, Load, int, CellResult], CellResult]:
    """Another status or verdict for the cells of a deployment."""

    def change(name: str, load: Load, restart: int, its: CellResult) -> CellResult:
        verdict: Verdict = "invalid" if how.get("verdict") == "invalid" else "suspect" if "verdict" in how else "valid"
        if name != who or not where(load, restart):
            return its
        return cell(
            its.record.deployment, load, restart, its.figures, verdict=verdict, check=how.get("check", ""), status=how.get("status", "ok")
        )

    return change


def slo_streams(holds: Mapping[str, int], faster: str) -> list[Row]:
    """Closed loops whose requests are all within the SLO up to a number of streams, and half of them beyond."""
    out = []
    for name, most in holds.items():
        for c in (4, 16, 64, 256):
            share, rate = (1.0 if c <= most else 0.5), c * (1.1 if name == faster else 1.0)
            load = ClosedLoop(concurrency=c, input_tokens=128, output_tokens=64, requests=300)
            figures = {"output_throughput": 64 * rate, "slo_attainment": share, "goodput": share * rate}
            noisy = [{**figures, "goodput": share * rate * (1 + i / 1e4)} for i in range(4)]
            out.append(fold([cell(deployment(name), load, i, its) for i, its in enumerate(noisy)], {}, name))
    return out


def test_one_that_fails_at_high_loads_leads_where_it_runs() -> None:
    heavy = status("c", lambda load, _: load.level == 64, status="failed")
    found = concluded(rows({"a": times(1.1), "b": times(1), "c": times(1.21)}, noise=TINY, change=heavy))
    assert found.sentence == (
        "c leads up to 8 streams: 9.7-10 % ahead of a; a leads at 64 streams: 9.6-9.9 % ahead of b; b: 82-91 % of the best; "
        "c failed at 64 streams."
    )
    assert found.choices[0].deployment == "a", "which runs at every load"
    assert found.trust.cause is not None
    assert (found.trust.cause.id, found.trust.cause.cells, found.trust.cause.of) == ("failed", 12, 108)


def test_several_that_never_ran_are_named_once() -> None:
    never = lambda name, load, restart, its: (  # noqa: E731
        cell(its.record.deployment, load, restart, {}, status="failed") if name in "cd" else its
    )
    found = concluded(rows({name: times(f) for name, f in {"a": 1.1, "b": 1, "c": 2, "d": 3}.items()}, noise=TINY, change=never))
    assert found.sentence.endswith("c and d failed at all 9 loads tried.")


def test_one_that_is_invalid_everywhere_is_said_to_be_left_out() -> None:
    """It was only in the trust line, by the number of its cells: the fastest was not mentioned."""
    invalid = status("a", lambda _load, _restart: True, verdict="invalid", check="client_bound")
    found = concluded(rows({"a": times(1.2), "b": times(1.1), "c": times(1)}, noise=TINY, change=invalid))
    assert found.sentence == "b leads at all 9 loads tried: 9.8-10 % ahead of c; a is invalid at all 9 loads tried, and not ranked."
    assert found.choices[0].deployment == "b"


@pytest.mark.parametrize(("factor", "says"), [(1.2, "a leads at all 9 loads tried: 19-20 % ahead of b"), (0.8, "b leads at all 9")])
def test_one_with_only_suspect_cells(factor: float, says: str) -> None:
    suspect = status("a", lambda _load, _restart: True, verdict="suspect", check="client_bound")
    found = concluded(rows({"a": times(factor), "b": times(1), "c": times(0.9)}, noise=TINY, change=suspect))
    assert found.sentence.startswith(says)
    assert ("some cells are suspect" in found.sentence) == (factor > 1), "only where it could change the leader"
    assert found.trust.level == "partly"


def test_winners_by_output_length() -> None:
    loads = [ClosedLoop(concurrency=c, input_tokens=1024, output_tokens=out) for out in (32, 128, 1024) for c in (1, 8, 64)]
    truth = {32: 1.08, 128: 1.0, 1024: 1 / 1.08}
    found = concluded(rows({"a": times(lambda load: truth[load.token_lengths[1]]), "b": times(1)}, loads, noise=TINY))
    assert found.sentence == (
        "a leads with 1024 + 32 tokens: 7.5-7.9 % ahead of b; b leads with 1024 + 1024 tokens: 8.0-8.2 % ahead of a; "
        "a and b are equal with 1024 + 128 tokens (within 3 %)."
    )


def test_a_restart_that_is_contaminated_at_one_load_costs_that_load_alone() -> None:
    def slow(name: str, load: Load, restart: int, its: CellResult) -> CellResult:
        hit = (name, restart) == ("a", 2) and load == GRID[4]
        return replace(its, figures={"output_throughput": 0.6 * (its.figures["output_throughput"] or 0)}) if hit else its

    found = concluded(rows({"a": times(1.1), "b": times(1)}, noise=TINY, change=slow))
    assert found.sentence == (
        "a leads at 8 of 9 loads: 9.5-10 % ahead of b; a and b cannot be told apart at 8 streams with prompts of 4,096 tokens. "
        "Not sure: restart 3 of a is 40 % below its others."
    )


def test_streams_and_rates_with_other_deployments_are_two_answers() -> None:
    """What to run was the one that was measured in both, and is never the best."""
    made = rows({"a": times(1.1), "b": times(1)}, noise=TINY) + rows(
        {"b": times(1), "c": times(1.2)}, open_loops(20, 40, 80), noise=TINY, seed=3
    )
    found = concluded(made)
    assert (
        found.sentence
        == "closed loop: a leads at all 9 loads tried: 9.5-10 % ahead of b. open loop: c leads at all 3 loads tried: 20 % ahead of b."
    )
    (choice,) = found.choices
    assert (choice.deployment, choice.text) == ("a", "best or not told from the best at 9 of 9 loads (closed loop)")
    assert answer(analysed(made)) == (
        "ANSWER closed loop: a leads at all 9 loads tried: 9.5-10 % ahead of b open loop: c leads at all 3 loads tried: 20 % ahead of b"
    ), "the terminal did not say which is which"


def test_six_of_which_another_leads_with_each_prompt_length() -> None:
    best = {"a": 1024, "b": 4096, "c": 16384}
    truth = {name: times(lambda load, n=n: 1.08 if load.input_tokens == n else 1.0) for name, n in best.items()}  # type: ignore[misc]
    found = concluded(rows({**truth, "d": times(1), "e": times(0.6), "f": times(0.5)}, noise=TINY))
    assert [(its.leaders, its.where, its.sure) for its in found.grids[0].statements] == [
        ((name,), f"with prompts of {n:,} tokens", 3) for name, n in best.items()
    ]
    assert found.grids[0].others == ("d: 92-93 % of the best", "e: 55-56 % of the best", "f: 46 % of the best")


def test_a_figure_of_zero_is_no_lead_in_percent() -> None:
    """It was 'only it meets the SLO', where there is none."""
    dead = lambda name, load, _restart, its: (  # noqa: E731
        replace(its, figures={"output_throughput": 0.0}) if name == "b" and load.level == 64 else its
    )
    found = concluded(rows({"a": times(1.1), "b": times(1)}, noise=TINY, change=dead))
    assert found.sentence == "a leads up to 8 streams: 9.5-10 % ahead of b; a leads at 64 streams: b reaches 0 tok/s."


def test_failed_restarts_are_mended_by_their_cause_not_by_more_restarts() -> None:
    """The fix was `--repeats 4`, which the run had."""
    lost = status("b", lambda _load, restart: restart == 1, status="failed")
    found = concluded(rows({"a": times(1.1), "b": times(1)}, noise=TINY, change=lost))
    assert found.sentence.endswith("Not sure: 3 restarts each are too few to be sure (4 would do).")
    assert [cause.id for cause in found.trust.causes] == ["failed"]
    assert found.trust.cause is not None
    assert found.trust.cause.fix.endswith("--retry-failed")


def test_a_level_missed_by_chance_does_not_contradict_the_load_that_is_held() -> None:
    """b misses the SLO at 2 req/s by half a percent and holds 6: the terminal said 'a leads at 2 req/s: only it meets the SLO'."""
    made = probed({"a": A.__getitem__, "b": B.__getitem__}, RATES, slo=SLO, exact=True, restarts=4)
    analysis = analysed(made, SLO)
    found = analysis.conclusion
    assert found.sentence == "Within the SLO: b holds 6 req/s [4-8]; a holds 3.02 req/s [2-4]."
    assert found.choices[0].deployment == "b"
    assert answer(analysis) == "ANSWER " + found.sentence.removesuffix(".")


def test_streams_beside_rates_within_an_slo() -> None:
    made = slo_streams({"a": 16, "b": 64}, faster="a") + probed(
        {"a": A.__getitem__, "b": B.__getitem__}, RATES, slo=SLO, exact=True, restarts=4
    )
    analysis = analysed(made, SLO)
    found = analysis.conclusion
    assert found.sentence == (
        "Within the SLO: b holds 65 streams [64-256]; a holds 16 streams [16-64]. Within the SLO: b holds 6 req/s [4-8]; a holds 3.02 "
        "req/s [2-4]. closed loop: a leads up to 16 streams: 10 % ahead of b; b leads at 64 streams: only it meets the SLO; no deployment "
        "meets the SLO at 256 streams (nearest: a, 50 % of the requests within the SLO)."
    ), "what none holds is no doubt"
    assert answer(analysis).startswith(
        "ANSWER Within the SLO: b holds 65 streams [64-256]; a holds 16 streams [16-64] Within the SLO: b holds 6 req/s"
    )
