"""Two runs side by side: which rows are partners, which changes are real, what changed around them, and when a threshold is broken."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from enginebench.adapter import Install
from enginebench.analysis.analysis import Analysis, analyse
from enginebench.analysis.busyness import compare_busyness
from enginebench.analysis.comparison import Figure, compare_runs
from enginebench.analysis.thresholds import Finding, far_limit, is_far, judge, parse_rule
from enginebench.cli import bench
from enginebench.domain import Cell, ClosedLoop, Deployment, Load
from enginebench.errors import Exit, UserError
from enginebench.metrics.statistics import CONFIDENCE, change, compare, estimate
from enginebench.records.cell import CellRecord, CellTraits
from enginebench.records.counters import CounterSeries
from enginebench.records.launch import Configuration, LaunchRecord, Startup
from enginebench.records.run import RunRecord
from enginebench.records.run_folder import Run
from enginebench.records.subject import Subject
from enginebench.report.comparison import Comparison

from ...conftest import Pace, synthetic_samples  # noqa: TID252  # tests are no package that has a name

LOAD = ClosedLoop(concurrency=4, input_tokens=64, output_tokens=16, requests=40)
DEPLOYMENT = Deployment("vllm", "olmoe", "bf16", "hf:olmoe")
GPU = {"name": "NVIDIA H100 80GB HBM3", "driver": "580.65"}
MACHINE = {"cpu": "Example 9654", "logical_cores": 96, "kernel": "6.1.0", "load_average": [0.1, 0.2, 0.3], "gpus": [GPU]}


def night(
    folder: Path,
    *,
    slow: float = 1.0,
    repeats: int = 4,
    deployments: Sequence[Deployment] = (DEPLOYMENT,),
    load: Load = LOAD,
    version: str = "0.33.0",
    status: str = "ok",
    seed: int = 0,
    watts: float | None = None,
    **more: object,
) -> Path:
    """A stored run in which every token takes `slow` times as long; restarts differ by up to a hundredth."""
    cells = [Cell(deployment, load, repeat) for repeat in range(repeats) for deployment in deployments]
    machine = {**MACHINE, **more}
    record = RunRecord("nightly", "2026-01-02T02:17:00+00:00", {}, "0", tuple(c.id for c in cells), machine, "0.1.0")
    run = Run.create(folder, record, "")
    for cell in cells:
        drift = slow * (1 + 0.002 * ((3 * cell.repeat + seed) % 5))
        samples = synthetic_samples(load, Pace(0.020 * drift, 0.005 * drift), seed=cell.repeat)
        resolved = {"slots": 8, "raw": {"port": cell.repeat}}
        launch = LaunchRecord(
            cell.launch_id, cell.deployment, cell.repeat, "", Startup(install=Install("wheel", version)), Configuration(resolved)
        )
        run.add_launch(launch)
        told = CellRecord(cell.id, cell.launch_id, cell.deployment, load, cell.repeat, status, identity="proven", reason=None)
        if watts is not None:
            told = replace(told, telemetry=(gpu(watts),), traits=CellTraits(gpus=1))
        run.add_cell(told if status == "ok" else replace(told, reason="it died"), samples if status == "ok" else None)
    return folder


def gpu(watts: float) -> Subject:
    """A GPU that ran the engine and drew the same power all the time."""
    at = tuple(i * 10**9 for i in range(60))
    return Subject("gpu", "GPU 0", {}, CounterSeries(at, {"watts": (watts,) * len(at), "ours": (1.0,) * len(at)}))


def read(folder: Path) -> Analysis:
    return analyse(Run(folder))


def findings(base: Path, candidate: Path, rule: str) -> list[Finding]:
    return list(judge(compare_runs(read(base), read(candidate)), parse_rule(rule)))


# -- the statistics ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_the_interval_holds_the_true_change_as_often_as_it_says(n: int) -> None:
    draws = np.random.default_rng(n)
    held, agreed, coverage = 0, 0, 0.0
    for _ in range(1000):
        a, b = estimate(np.exp(draws.normal(0.05, 0.03, n)).tolist()), estimate(np.exp(draws.normal(0, 0.03, n)).tolist())
        assert a is not None
        assert b is not None
        found = change(a, b)
        assert found.low is not None
        assert found.high is not None
        assert found.relative is not None
        assert found.low <= found.relative <= found.high
        coverage = found.coverage
        held += found.low <= np.exp(0.05) - 1 <= found.high
        sure = compare(a, b).order == "higher" or compare(b, a).order == "higher"
        agreed += sure == (coverage >= CONFIDENCE and not found.low <= 0 <= found.high)
    assert held / 1000 == pytest.approx(coverage, abs=0.03)
    assert agreed == 1000
    assert (coverage >= CONFIDENCE) == (n >= 4)


def test_no_share_of_nothing_and_no_interval_of_a_single_restart() -> None:
    zero, some, one = estimate([0, 0, 0, 0]), estimate([1, 2, 3, 4]), estimate([2])
    assert zero is not None
    assert some is not None
    assert one is not None
    assert (change(some, zero).relative, change(some, zero).order) == (None, "higher")
    assert change(zero, some).relative == -1
    assert (change(one, some).low, change(one, some).coverage, change(one, some).order) == (None, 0, "unknown")


# -- partners ------------------------------------------------------------------------------------------------------------


def test_a_changed_deployment_is_still_a_partner_if_nothing_else_can_be(tmp_path: Path) -> None:
    other, changed = replace(DEPLOYMENT, precision="fp8"), replace(DEPLOYMENT, options={"max_num_seqs": 8})
    base = read(night(tmp_path / "base", deployments=(DEPLOYMENT, other)))
    found = compare_runs(base, read(night(tmp_path / "candidate", deployments=(changed, other))))
    assert [(pair.base.deployment, pair.candidate.deployment) for pair in found.pairs] == [(DEPLOYMENT, changed), (other, other)]
    assert [(c.of, c.what, c.candidate) for c in found.changed] == [("vllm bf16", "asked.options.max_num_seqs", "8")]
    two = compare_runs(base, read(night(tmp_path / "two", deployments=(changed, replace(changed, max_context=4096)))))
    assert not two.pairs
    assert [len(names) for names in two.alone.values()] == [2, 2]


def test_another_load_has_no_partner_and_that_is_said(tmp_path: Path) -> None:
    base, candidate = night(tmp_path / "base"), night(tmp_path / "candidate", load=replace(LOAD, requests=41))
    found = compare_runs(read(base), read(candidate))
    assert found.alone["candidate"] == ("olmoe · vllm · 4 streams x 64 + 16 tokens, 41 requests",)
    assert "only in the candidate\n  olmoe · vllm · 4 streams x 64 + 16 tokens, 41 requests" in Comparison(found).to_text()
    assert [finding.state for finding in findings(base, candidate, "ttft.p50 > 5%")] == ["inconclusive"]


# -- what is said --------------------------------------------------------------------------------------------------------


def test_an_equal_night_is_alike_and_a_slower_one_is_worse(tmp_path: Path) -> None:
    base = night(tmp_path / "base")
    same = compare_runs(read(base), read(night(tmp_path / "same", seed=1)))
    assert {figure.verdict for pair in same.pairs for figure in pair.figures.values()} == {"alike"}
    assert not same.changed
    slower = compare_runs(read(base), read(night(tmp_path / "slower", slow=1.1, version="0.34.0")))
    (pair,) = slower.pairs
    assert pair.figures["ttft_p50"].verdict == pair.figures["output_throughput"].verdict == pair.figures["itl_p50"].verdict == "worse"
    assert pair.figures["ttft_p50"].change.relative == pytest.approx(0.1, abs=0.02)
    assert pair.figures["isl_p50"].verdict == "alike"
    for text in (Comparison(slower).to_text(), Comparison(slower).to_markdown()):
        assert "vllm: version 0.33.0 -" in text
        assert "10.0 %" in text
        assert "0.029" in text
    data = json.loads(json.dumps(Comparison(slower).to_dict()))
    assert data["pairs"][0]["figures"]["ttft_p50"]["verdict"] == "worse"
    assert data["changed"] == [{"of": "vllm", "what": "version", "base": "0.33.0", "candidate": "0.34.0"}]


def test_few_restarts_are_never_sure_by_a_test(tmp_path: Path) -> None:
    base, slower = night(tmp_path / "base", repeats=3), night(tmp_path / "slower", repeats=3, slow=1.5)
    (pair,) = compare_runs(read(base), read(slower)).pairs
    assert pair.figures["ttft_p50"].verdict == "unsure"
    (finding,) = findings(base, slower, "ttft.p50 > 5%")
    assert (finding.state, finding.why[:7]) == ("broken", "+50.0 %"), "but no restart disagrees, and it is far beyond the threshold"
    one, other = night(tmp_path / "one", repeats=1), night(tmp_path / "other", repeats=1, slow=1.5)
    (single,) = compare_runs(read(one), read(other)).pairs
    assert single.figures["ttft_p50"].verdict == "unknown"


def test_what_changed_on_the_machine_and_whether_it_is_another(tmp_path: Path) -> None:
    base = read(night(tmp_path / "base"))
    moment = compare_runs(base, read(night(tmp_path / "busy", load_average=[9, 9, 9])))
    assert not moment.changed
    driver = compare_runs(base, read(night(tmp_path / "driver", gpus=[{**GPU, "driver": "580.82"}])))
    assert [(c.of, c.what, c.base, c.candidate) for c in driver.changed] == [("machine", "gpus.0.driver", "580.65", "580.82")]
    assert not driver.moved
    other = compare_runs(base, read(night(tmp_path / "other", slow=2, gpus=[{**GPU, "name": "L4"}])))
    assert other.moved
    assert [f.why for f in judge(other, parse_rule("ttft.p50 > 5%"))] == ["the runs were made on different machines"]


def test_a_night_that_failed_is_not_compared(tmp_path: Path) -> None:
    base, failed = night(tmp_path / "base"), night(tmp_path / "failed", status="failed")
    (pair,) = compare_runs(read(base), read(failed)).pairs
    assert pair.why_not == "the candidate is failed: it died"
    assert "not comparable: the candidate is failed: it died" in Comparison(compare_runs(read(base), read(failed))).to_text()


# -- thresholds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ("ttft.p50 > +5%", "broken"),
        ("ttft_p50>5%", "broken"),
        ("output_throughput < -5%", "broken"),
        ("ttft.p50 > +10%", "kept"),  # the median is beyond it in some pairs of restarts, not in all
        ("output_throughput > +5%", "kept"),
        ("ttft.p99 > +5%", "inconclusive"),
    ],
)
def test_a_threshold_is_broken_when_the_whole_interval_is_beyond_it(tmp_path: Path, rule: str, state: str) -> None:
    base, slower = night(tmp_path / "base"), night(tmp_path / "slower", slow=1.1)
    assert [finding.state for finding in findings(base, slower, rule)] == [state]


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("ttft > 5%", "ttft.p99"),
        ("ttft.p95 > 5%", "ttft.p99"),
        ("energy > 5%", "energy_per_token"),
        ("tpo.p50 > 5%", "did you mean 'tpot.p50'"),
        ("tpot.p50 > 5ms", "in percent"),
        ("tpot.p50", "in percent"),
    ],
)
def test_a_threshold_that_means_nothing_is_refused(text: str, advice: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_rule(text)
    assert advice in str(caught.value)


def test_energy_cost_and_ceiling_can_be_limited(tmp_path: Path) -> None:
    base = str(night(tmp_path / "base", watts=400))
    hotter, slower = str(night(tmp_path / "hotter", watts=480)), str(night(tmp_path / "slower", slow=1.1, watts=400))

    def invoked(candidate: str, rule: str, *more: str) -> tuple[object, str]:
        result = CliRunner().invoke(bench, ["compare", base, candidate, "--fail-if", rule, *more], standalone_mode=False)
        return result.return_value, result.output

    assert invoked(hotter, "energy_per_token > +5%")[0] == Exit.THRESHOLD
    assert invoked(base, "energy_per_token > +5%")[0] == Exit.OK
    price = ("--price", "h100.hour=2")
    assert invoked(slower, "cost_per_token > +5%", *price)[0] == Exit.THRESHOLD
    assert "cost_per_token > +5%: " in invoked(base, "cost_per_token > +5%", *price)[1]
    code, said = invoked(slower, "cost_per_token > +5%")
    assert code == Exit.OK
    assert "unknown cost_per_token > +5%: inconclusive in 1 of 1 load: " in said
    assert "the price or the power is unknown" in " ".join(said.split())
    assert invoked(slower, "share_of_ceiling < -5%")[0] == Exit.THRESHOLD
    unknown = (replace(DEPLOYMENT, model="mine", checkpoint="hf:mine"),)
    fast, slow = (night(tmp_path / f"unknown-{slow}", slow=slow, deployments=unknown) for slow in (1.0, 1.1))
    (finding,) = findings(fast, slow, "share_of_ceiling < -5%")
    assert finding.state == "inconclusive"
    assert finding.why == "the model's size, its placement or the machine's limits are unknown"


def test_the_exit_code_says_whether_a_threshold_is_broken(tmp_path: Path) -> None:
    base, slower = str(night(tmp_path / "base")), str(night(tmp_path / "slower", slow=1.1))

    def code(*arguments: str) -> object:
        return CliRunner().invoke(bench, ["compare", base, *arguments], standalone_mode=False).return_value

    assert code(slower) == Exit.THRESHOLD, "10 % are more than the limit of 5 %"
    assert code(slower, "--limit", "12%") == code(slower, "--limit", "off") == code(base) == Exit.OK
    assert code(base, "--fail-if", "ttft.p50 > 5%") == Exit.OK
    assert code(slower, "--fail-if", "ttft.p50 > 5%", "--md") == Exit.THRESHOLD
    assert code(slower, "--fail-if", "ttft.p99 > 5%") == Exit.OK
    assert code(slower, "--fail-if", "ttft.p99 > 5%", "--strict", "--json") == Exit.THRESHOLD


# -- far beyond a threshold, with too few restarts for a test ------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [1, 2, 3])
@pytest.mark.parametrize(
    ("slow", "rule", "state"),
    [
        (17.0, "output_throughput < -5%", "broken"),  # 94 % lost
        (17.0, "output_throughput < -40%", "broken"),  # three times 40 %, as ratios: -78 %
        (1.17, "ttft.p50 > 5%", "broken"),
        (1.13, "ttft.p50 > 5%", "inconclusive"),  # not beyond 15.8 %
        (1.08, "ttft.p50 > 1%", "inconclusive"),  # not 10 %
        (1.17, "ttft.p50 > 8%", "inconclusive"),
        (1.17, "output_throughput > 5%", "inconclusive"),  # the other way
    ],
)
def test_far_beyond_a_threshold(tmp_path: Path, slow: float, rule: str, state: str, repeats: int) -> None:
    base, other = night(tmp_path / "base", repeats=repeats), night(tmp_path / "other", repeats=repeats, slow=slow)
    assert [finding.state for finding in findings(base, other, rule)] == [state]


def test_one_restart_that_disagrees_is_enough_against_it() -> None:
    def judged(base: list[float], candidate: list[float], beyond: float) -> bool:
        before, after = estimate(base), estimate(candidate)
        assert before is not None
        assert after is not None
        return is_far(Figure("output_throughput", before, after, change(after, before)), beyond)

    limit = far_limit(-0.05, above=False)
    assert limit == pytest.approx(-0.142625)
    assert judged([100, 102, 98], [40, 50, 60], limit)
    assert not judged([100, 102, 55], [40, 50, 60], limit), "one of the base is slower than one of the candidate"
    assert not judged([100, 102, 98], [88, 89, 90], limit)


# -- the summary ---------------------------------------------------------------------------------------------------------------------


def summary(base: Path, candidate: Path, *more: str) -> tuple[object, str]:
    result = CliRunner().invoke(bench, ["compare", str(base), str(candidate), *more], standalone_mode=False)
    text = result.stdout.replace(str(base), "BASE").replace(str(candidate), "NEW")
    assert "--all" in more or max(map(len, text.splitlines())) <= 80
    return result.return_value, text


def test_a_run_that_lost_94_percent(tmp_path: Path) -> None:
    base, lost = (
        night(tmp_path / "base", repeats=2),
        night(tmp_path / "lost", repeats=2, slow=17, version="0.34.0", load_average=[60, 9, 9]),
    )
    assert summary(base, lost) == (
        Exit.THRESHOLD,
        (
            "compare · 1 load paired · 1 worse · limit 5 %\n"
            "WORSE   vllm  tok/s  464 -> 27.3  -94 %  2 of 2 restarts\n"
            "SURE    2 + 2 restarts are too few for a test; counted because no restart\n"
            "        disagrees and the change is beyond three times 5 % (-14 %, +16 %)\n"
            "CHANGED vllm: version 0.33.0 -> 0.34.0 · machine busier: load average 60.0 at\n"
            "        the start, 0.1 in the base\n"
            "FAIL    1 of 1 load worse by more than 5 %: exit code 1\n"
            "more    bench compare BASE NEW --all\n"
        ),
    )


def test_only_the_rows_that_changed(tmp_path: Path) -> None:
    deployments = [replace(DEPLOYMENT, options={"max_num_seqs": seqs}) for seqs in (4, 8, 16)]
    base = night(tmp_path / "base", deployments=deployments)
    run = Run(night(tmp_path / "other", deployments=deployments))
    for cell in run.cells():  # one slower, one faster, one as it was
        slow = {4: 1.2, 8: 0.8, 16: 1.0}[cell.deployment.options["max_num_seqs"]]
        run.drop(cell.id)
        run.add_cell(cell, synthetic_samples(LOAD, Pace(0.020 * slow, 0.005 * slow), seed=cell.repeat))
    assert summary(base, run.path) == (
        Exit.THRESHOLD,
        (
            "compare · 3 loads paired · 1 worse, 1 better, 1 unchanged · limit 5 %\n"
            "WORSE   vllm max_num_seqs=4  tok/s  464 -> 388  -16 %  4 of 4 restarts\n"
            "BETTER  vllm max_num_seqs=8  tok/s  464 -> 581  +26 %  4 of 4 restarts\n"
            "CHANGED nothing that is recorded · load average as before\n"
            "FAIL    1 of 3 loads worse by more than 5 %: exit code 1\n"
            "more    bench compare BASE NEW --all\n"
        ),
    )
    code, everything = summary(base, run.path, "--all")
    assert (code, everything.count(" ~\n") > 3) == (Exit.THRESHOLD, True), "also what did not change"


def test_too_few_to_tell_says_how_large(tmp_path: Path) -> None:
    base, few = night(tmp_path / "base", repeats=2), night(tmp_path / "few", repeats=2, slow=1.08)
    code, text = summary(base, few)
    assert code == Exit.OK
    assert text.splitlines()[:3] == [
        "compare · 1 load paired · 1 cannot tell · limit 5 %",
        "UNKNOWN 1 load, at most +8.0 % (TTFT p50): too few restarts to tell; measure",
        "        both runs with --repeats 4",
    ]


def test_thresholds_in_the_summary(tmp_path: Path) -> None:
    base, slower = night(tmp_path / "base"), night(tmp_path / "slower", slow=1.1)
    code, text = summary(base, slower, "--fail-if", "ttft.p50 > 5%", "--fail-if", "ttft.p99 > 5%", "--fail-if", "tpot.p50 > 50%")
    assert code == Exit.THRESHOLD
    assert "compare · 1 load paired · 1 worse · 3 thresholds\n" in text
    assert "FAIL    ttft.p50 > 5%: olmoe · vllm" in text
    assert "unknown ttft.p99 > 5%: inconclusive in 1 of 1 load: " in text
    assert "ok      tpot.p50 > 50%: not broken in 1 of 1 load\n" in text


def test_a_busier_machine_is_seen_by_the_work_of_others(tmp_path: Path) -> None:
    def foreign(folder: Path, share: float) -> Path:
        run = Run(night(folder))
        at = tuple(i * 10**9 for i in range(60))
        for cell in run.cells():
            host = Subject("host", "host", {}, CounterSeries(at, {
                "busy_s": tuple((1 + 96 * share) * i for i in range(60)), "capacity_s": tuple(96.0 * i for i in range(60)),
                "bench_s": tuple(0.0 for _ in range(60)),
            }))  # fmt: skip
            engine = Subject("processes", "engine", {}, CounterSeries(at, {"cpu_s": tuple(1.0 * i for i in range(60))}))
            samples = run.samples(cell.id)
            run.drop(cell.id)
            run.add_cell(replace(cell, telemetry=(host, engine)), samples)
        return run.path

    base, busy = foreign(tmp_path / "base", 0.01), foreign(tmp_path / "busy", 0.09)
    assert compare_busyness(read(base), read(busy)) == "machine busier: other work used 9 % of the CPUs, 1 % in the base"
    assert compare_busyness(read(busy), read(base)) == "machine quieter: other work used 1 % of the CPUs, 9 % in the base"
    assert compare_busyness(read(base), read(base)) == "machine as busy as before"
    assert "machine busier: other work used 9 % of the" in summary(base, busy)[1]


def test_a_limit_that_means_nothing_is_refused() -> None:
    for text in ("0", "-3%", "lots", "100%"):
        result = CliRunner().invoke(bench, ["compare", "a", "b", "--limit", text])
        assert (
            result.exit_code,
            f"'{text}' is no percentage above 0 and below 100; write e.g. 5%, or off" in " ".join(result.stderr.split()),
        ) == (2, True)
