"""A deployment is excluded by the interval of its perplexity's increase and not by the point, and then leads nowhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from enginebench.analysis.quality import Quality, qualities, without_broken
from enginebench.analysis.rows import Row
from enginebench.records.launch import LaunchRecord
from enginebench.records.quality import Continuation, Prediction, QualityRecord, Rule, Scored, TaskScore

from .result_sets import GRID, concluded, deployment, rows, times

RULE = Rule("alice", "00", "11", 16, 512, 512, 255)
CHECK: Mapping[str, object] = {"perplexity": {"max_increase": 0.02}, "reference": None}
TRUTH = {"good": times(1.0), "fast": times(1.5)}


def scored(increase: float, *, noise: float = 0.0, seed: int = 1, rule: Rule = RULE) -> Scored:
    """Windows of one text, which differ much among themselves; the increase of each varies by the noise."""
    text = np.random.default_rng(0).normal(2.0, 0.3, rule.windows)
    more = math.log1p(increase) + np.random.default_rng(seed).normal(0, noise, rule.windows)
    more += math.log1p(increase) - more.mean()
    return Scored(rule, "prompt_logprobs", tuple((rule.scored * (text + more)).tolist()), 1.0)


def judged(its: QualityRecord, check: Mapping[str, object] = CHECK, other: QualityRecord | None = None) -> tuple[Sequence[Row], Quality]:
    """`fast` with this quality beside `good`."""
    records = {"good": other or QualityRecord(scored(0.0)), "fast": its}
    launches = {name: LaunchRecord(name, deployment(name), 0, "", quality=record) for name, record in records.items()}
    found = rows(TRUTH)
    all_ = qualities(found, launches, check)
    return without_broken(found, all_), next(each for each in all_ if each.deployment == "fast")


@pytest.mark.parametrize(
    ("increase", "noise", "verdict"),
    [(0.05, 0.01, "breaks"), (0.03, 0.05, "cannot tell"), (0.01, 0.05, "cannot tell"), (0.01, 0.005, "within"), (0.05, 0.2, "cannot tell")],
)
def test_the_interval_decides_and_not_the_point(increase: float, noise: float, verdict: str) -> None:
    found, its = judged(QualityRecord(scored(increase, noise=noise)))
    assert its.verdict == verdict
    assert its.reference == "good"
    assert its.increase is not None
    assert its.increase.value == pytest.approx(increase, rel=1e-6)
    leads = concluded(found).grids[0].statements[0].leaders
    assert leads == (("good",) if verdict == "breaks" else ("fast",))
    assert {row.name for row in found if not row.ranked} == ({"fast"} if verdict == "breaks" else set())


def test_what_breaks_the_rule_says_so_with_the_figure_and_the_limit() -> None:
    found, its = judged(QualityRecord(scored(0.05, noise=0.01)))
    assert its.why.startswith("perplexity 5 % above good [4.")
    assert its.why.endswith("more than 2 %")
    regime = concluded(found).grids[0].regimes[0]
    assert regime.outcome == "alone"
    assert [(s.deployment, s.relation, s.note) for s in regime.standings if s.deployment == "fast"] == [("fast", "not comparable", its.why)]


def test_numbers_that_are_none_break_the_rule_whatever_the_others_are() -> None:
    found, its = judged(QualityRecord(replace(scored(0.0), nats=(), invalid=7)))
    assert its.verdict == "breaks"
    assert its.why == "7 scored tokens have a log-probability that is no finite number, or above 0"
    assert its.perplexity is None
    assert not any(row.ranked for row in found if row.name == "fast")


def test_what_was_not_measured_is_unknown_and_stays_ranked() -> None:
    found, its = judged(QualityRecord(missing={"perplexity": "Ollama does not report the probability of tokens that it is given"}))
    assert (its.verdict, its.why) == ("unknown", "Ollama does not report the probability of tokens that it is given")
    assert all(row.ranked for row in found)
    _, its = judged(QualityRecord(scored(0.5, rule=replace(RULE, tokens_sha256="22"))))
    assert its.verdict == "unknown"
    assert "not those of the reference" in its.why


def test_the_lowest_perplexity_is_the_reference_unless_a_label_names_one() -> None:
    _, its = judged(QualityRecord(scored(-0.05, noise=0.01)))
    assert (its.verdict, its.reference) == ("reference", "")
    assert its.perplexity is not None
    assert its.perplexity.value == pytest.approx(0.95 * math.exp(np.random.default_rng(0).normal(2.0, 0.3, 16).mean()))


def test_without_a_rule_nothing_is_excluded() -> None:
    found, its = judged(QualityRecord(scored(0.5, noise=0.01)), {"perplexity": {"max_increase": None}})
    assert its.verdict == "no rule"
    assert all(row.ranked for row in found)
    _, its = judged(QualityRecord(scored(0.5, noise=0.01), under_load=replace(scored(0.5, noise=0.01), beside="7 streams")), {})
    assert its.loaded is not None
    assert its.loaded.value == pytest.approx(0)


def test_all_that_break_it_leave_nothing_to_rank() -> None:
    broken = QualityRecord(replace(scored(0.0), nats=(), invalid=1))
    found, _ = judged(broken, other=broken)
    assert concluded(found).sentence == "Nothing can be ranked: no deployment that is not invalid keeps the rule for quality."
    assert len(found) == 2 * len(GRID)


def test_divergence_compares_the_same_places_and_tasks_the_same_documents() -> None:
    def record(second: float, outputs: tuple[int, ...], right: tuple[int, ...]) -> QualityRecord:
        places = tuple(Prediction(w, 300 + p, (1, 2), (math.log(1 - second), math.log(second))) for w in range(16) for p in range(4))
        task = TaskScore("t", "acc", sum(right) / len(right), None, tuple(map(str, range(len(right)))), right)
        return QualityRecord(scored(0.0), predictions=places, continuations=(Continuation(0, outputs),), tasks=(task,))

    base = record(0.2, (1, 2, 3, 4), (1,) * 10)
    _, its = judged(record(0.6, (1, 2, 9), (0,) * 8 + (1,) * 2), other=base)
    assert its.divergence is not None
    assert its.divergence.kl.value == pytest.approx(0.8 * math.log(0.8 / 0.4) + 0.2 * math.log(0.2 / 0.6), rel=1e-4)
    assert (its.divergence.places, its.divergence.windows, its.divergence.same_best.value) == (64, 16, 0.0)
    assert (its.divergence.agreed, its.divergence.lengths) == ((2,), (4,))
    assert its.tasks[0].p == pytest.approx(2 / 2**8)


def predictions(factor: float = 1.0, *, noise: float = 0.0) -> tuple[Prediction, ...]:
    """Ten tokens in each of 64 places, their logarithms times a factor."""
    random = np.random.default_rng(4)
    found = []
    for window in range(16):
        for place in range(4):
            logs = np.sort(np.log(random.dirichlet(np.full(12, 0.5)) + 1e-6))[::-1][:10]
            moved = factor * logs + noise * random.standard_normal(10)
            found.append(Prediction(window, 300 + place, tuple(range(10)), tuple(moved.tolist())))
    return tuple(found)


def in_unit(factor: float) -> Scored:
    exact = scored(0.0)
    return replace(exact, nats=tuple(factor * each for each in exact.nats))


@pytest.mark.parametrize(
    ("factor", "says"), [(1 / math.log(10), "0.434 times the other's in every window, as logarithms to base 10 are"),
                         (1 / math.log(2), "1.44 times the other's in every window, as logarithms to base 2 are")]
)  # fmt: skip
@pytest.mark.parametrize("label", ["good", None])
def test_logarithms_to_another_base_are_named_and_neither_lead_nor_exclude(factor: float, says: str, label: str | None) -> None:
    """Without a label the lowest perplexity is the reference: with base 10 that is the wrong one; the right one must stay."""
    check = {**CHECK, "reference": label}
    records = {"good": QualityRecord(scored(0.0)), "fast": QualityRecord(in_unit(factor))}
    launches = {name: LaunchRecord(name, replace(deployment(name), label=name), 0, "", quality=record) for name, record in records.items()}
    found = [replace(row, deployment=launches[row.name].deployment) for row in rows(TRUTH)]
    all_ = qualities(found, launches, check)
    assert any(says in its.why for its in all_)
    assert "breaks" not in {its.verdict for its in all_}


@pytest.mark.parametrize(("factor", "named"), [(1 / math.log(10), True), (1 / math.log(2), True), (0.5, True), (1.0, False), (1.08, False)])
def test_log_probabilities_in_another_unit_show_in_the_same_places(factor: float, named: bool) -> None:
    exact = QualityRecord(scored(0.0), predictions=predictions())
    _, its = judged(QualityRecord(scored(0.3, noise=0.2), predictions=predictions(factor)), other=exact)
    assert (f"{factor:.3g} times those of good" in its.why) is named


def test_coarse_weights_are_not_taken_for_another_unit() -> None:
    exact = QualityRecord(scored(0.0), predictions=predictions())
    _, its = judged(QualityRecord(scored(0.3, noise=0.02), predictions=predictions(0.7, noise=0.8)), other=exact)
    assert its.verdict == "breaks"


def test_one_of_several_most_probable_tokens_is_the_same_best_token() -> None:
    def record(*ids: int) -> QualityRecord:
        places = tuple(Prediction(w, 300 + p, ids, (-0.7, -0.7, -3.0)) for w in range(16) for p in range(4))
        return QualityRecord(scored(0.0), predictions=places)

    for ids, share in (((1, 2, 3), 1.0), ((2, 1, 3), 1.0), ((3, 4, 1), 0.0)):
        _, its = judged(record(*ids), other=record(1, 2, 3))
        assert its.divergence is not None
        assert its.divergence.same_best.value == share


def test_most_probable_tokens_that_have_nothing_in_common_diverge() -> None:
    """Before, what both did not report was one outcome, so that two servers without any common token were the same."""

    def record(first: int) -> QualityRecord:
        places = tuple(Prediction(w, 300 + p, (first, first + 1), (-0.2, -2.5)) for w in range(16) for p in range(4))
        return QualityRecord(scored(0.0), predictions=places)

    _, its = judged(record(10), other=record(1))
    assert its.divergence is not None
    assert its.divergence.kl.value > 1.0
    assert its.divergence.same_best.value == 0.0


def test_the_record_of_the_last_start_counts() -> None:
    old, new = QualityRecord(scored(0.5, noise=0.01)), QualityRecord(scored(0.0, noise=0.001))
    launches = {
        "good": LaunchRecord("good", deployment("good"), 0, "2026-01-01T00:00:00+00:00", quality=QualityRecord(scored(0.0))),
        "fast-2": LaunchRecord("fast-2", deployment("fast"), 0, "2026-01-02T00:00:00+00:00", quality=new),
        "fast": LaunchRecord("fast", deployment("fast"), 0, "2026-01-02T00:00:00+00:00", quality=old),
    }
    assert {its.deployment: its.verdict for its in qualities(rows(TRUTH), launches, CHECK)}["fast"] != "breaks"


@pytest.mark.parametrize(("increase", "least", "most"), [(0.05, 0.95, 1.0), (0.0, 0.0, 0.0), (0.02, 0.0, 0.06)])
def test_how_often_a_deployment_is_excluded(increase: float, least: float, most: float) -> None:
    """The rule is 2 %; 16 windows whose increases vary by 2.5 %. A broken one is excluded, an equal one never, one at the limit seldom."""
    shares = []
    for seed in range(100):
        text = np.random.default_rng(0).normal(2.0, 0.3, RULE.windows)
        more = math.log1p(increase) + np.random.default_rng(seed).normal(0, 0.025, RULE.windows)
        other = Scored(RULE, "x", tuple((RULE.scored * (text + more)).tolist()), 1.0)
        launches = {
            name: LaunchRecord(name, replace(deployment(name), label=name), 0, "", quality=QualityRecord(its))
            for name, its in (("good", scored(0.0)), ("fast", other))
        }
        found = [replace(row, deployment=launches[row.name].deployment) for row in FOUND]
        shares.append(qualities(found, launches, {**CHECK, "reference": "good"})[1].verdict == "breaks")
    assert least <= np.mean(shares) <= most


FOUND = rows(TRUTH)
