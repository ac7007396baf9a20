"""What may be written under `loads` and `slo`: every field becomes a load, defaults follow the arrivals, contradictions are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from enginebench.domain import Load
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.scenario import Scenario, load_at, load_scenario
from enginebench.scenario.plan import SELECTABLE, plan

REGISTRY = discover()
HEAD = "name: demo\ndeployments:\n  - {engine: fake, model: any, precision: none}\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:47.6805900,12,2\n"


def scenario(tmp_path: Path, *loads: str, rest: str = "") -> Scenario:
    (tmp_path / "azure.csv").write_text(AZURE)
    (tmp_path / "bad.csv").write_text(AZURE.replace("47.6805900,12,2", "47.6805900,twelve,2"))
    (tmp_path / "bad.jsonl").write_text('{"prompt": "one"}\nprompt two\n')
    (tmp_path / "many.jsonl").write_text("".join(f'{{"prompt": "question {i}"}}\n' for i in range(200)))
    file = tmp_path / "s.yaml"
    file.write_text(HEAD + rest + "loads:\n" + "".join(f"  - {{{load}}}\n" for load in loads))
    return load_scenario(file, REGISTRY)


def loads(tmp_path: Path, *written: str) -> tuple[Load, ...]:
    return scenario(tmp_path, *written).loads[0]


def complaint(tmp_path: Path, *written: str, rest: str = "") -> str:
    with pytest.raises(UserError) as error:
        scenario(tmp_path, *written, rest=rest)
    return str(error.value).replace(f"{tmp_path}/", "")


def test_defaults_follow_the_arrivals(tmp_path: Path) -> None:
    (closed,) = loads(tmp_path, "")
    assert (closed.concurrency, closed.requests, closed.warmup_requests) == (1, 16, 1)
    (talks,) = loads(tmp_path, "concurrency: 8, turns: 3, prefix_cache: allowed")
    assert talks.requests == 4 * 8 * 3
    slow, fast = loads(tmp_path, "rate: [0.5, 10]")
    assert (slow.concurrency, slow.requests, fast.requests) == (0, 64, 600)
    (rising,) = loads(tmp_path, "rate: 2, rate_to: 8")
    assert rising.requests == 5 * 60
    (timed,) = loads(tmp_path, "rate: 2, duration_s: 3")
    assert timed.requests == 0
    (replay,) = loads(tmp_path, "trace: azure.csv")
    assert (replay.requests, replay.concurrency, replay.level_text) == (0, 0, "azure.csv x1")


def test_every_field_is_an_axis(tmp_path: Path) -> None:
    found = loads(tmp_path, "rate: [1, 2], arrivals: [poisson, gamma], burstiness: [0.5, 2], input_tokens: ['uniform(8,16)', 32]")
    assert len(found) == 2 * 3 * 2  # burstiness says nothing of Poisson arrivals
    assert {load.value("burstiness") for load in found if load.value("arrivals") == "poisson"} == {1.0}
    assert {load.input_tokens for load in found} == {"uniform(8,16)", 32}


def test_the_server_holds_the_largest_request_and_the_most_in_flight(tmp_path: Path) -> None:
    (closed,) = scenario(tmp_path, "concurrency: 3, lengths: '8+8, 500+12'").deployments
    assert (closed.max_context, closed.max_concurrency) == (512, 3)
    (opened,) = scenario(tmp_path, "rate: 1, input_tokens: 'uniform(8,100)', output_tokens: 28").deployments
    assert (opened.max_context, opened.max_concurrency) == (128, 64)
    (limited,) = scenario(tmp_path, "rate: 1, concurrency: 5").deployments
    assert limited.max_concurrency == 5
    (traced,) = scenario(tmp_path, "trace: azure.csv").deployments
    assert traced.max_context == 374 + 44
    (tmp_path / "ask.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    (unknown,) = scenario(tmp_path, "prompts: 'jsonl:ask.jsonl', output_tokens: 8, requests: 2").deployments
    assert unknown.max_context == 4096


WRONG = {
    "trace and rate": (("trace: azure.csv, rate: 1",), "loads[0].rate: does not go with `trace`: a trace brings its own arrivals"),
    "trace and lengths": (("trace: azure.csv, input_tokens: 8",), "loads[0].input_tokens: does not go with `trace`"),
    "lengths twice": (("lengths: '8+8', output_tokens: 8",), "loads[0].output_tokens: does not go with `lengths`"),
    "a ramp of an open loop": (("rate: 1, ramp_s: 3",), "loads[0].ramp_s: does not go with `rate`"),
    "arrivals of a closed loop": (("arrivals: constant",), "loads[0].arrivals: only goes with `rate`"),
    "bursts of constant gaps": (("rate: 1, arrivals: constant, burstiness: 2",), "burstiness: only goes with `arrivals: gamma`"),
    "no limit": (("concurrency: [1, 0]",), "s.yaml:5: loads[0].concurrency[1]: must be at least 1, got 0"),
    "no end": (("requests: 0",), "loads[0].requests: the load would never end"),
    "half a group": (("prefix_groups: 2",), "loads[0].prefix_groups: only goes with `prefix_tokens`"),
    "thought without turns": (("think_s: 2",), "loads[0].think_s: only goes with `turns`"),
    "no such distribution": (("input_tokens: 'unifrom(1,2)'",), "s.yaml:5: loads[0].input_tokens: "),
    "length zero": (("input_tokens: 0",), "loads[0].input_tokens: cannot be 0\n  write input_tokens: uniform(64,256)"),
    "misspelt data set": (
        ("prompts: 'sharegtp:azure.csv'",),
        "loads[0].prompts: unknown prompt source 'sharegtp:azure.csv'\n  did you mean 'sharegpt'?",
    ),
    "nothing due, by its own seed": (("rate: 1, duration_s: 0.5, seed: [0, 1]",), "loads[0].rate: no request is due within"),
    "no such file": (("", "trace: nowhere.csv"), "s.yaml:6: loads[1].trace: "),
    "long prefix": (
        ("input_tokens: 8, prefix_groups: 2, prefix_tokens: 8, prefix_cache: allowed",),
        "s.yaml:5: loads[0].prefix_tokens: ",
    ),
    "less than one conversation": (
        ("turns: [1, 4], requests: [8, 3]",),
        "s.yaml:5: loads[0].requests[1]: 3 are less than one conversation of 4 turns",
    ),
    "a unit": (("duration_s: 1m",), "loads[0].duration_s: must be a number, got '1m'\n  write duration_s: 60 (a number of seconds"),
    "a bare goal": (
        ("find: max_goodput",),
        "loads[0].find: must be a mapping (key: value), got 'max_goodput'\n  write find: {goal: max_goodput, over: rate",
    ),
    "a bad row": (
        ("", "rate: 1, prompts: ['random', 'jsonl:bad.jsonl']"),
        "s.yaml:6: loads[1].prompts[1]: bad.jsonl:2: invalid JSON",
    ),
    "a bad trace": (("trace: bad.csv",), "s.yaml:5: loads[0].trace: bad.csv:3: invalid row"),
    "search without a goal": (("find: {over: rate}",), "s.yaml:5: loads[0].find: a search needs an `slo`"),
}  # fmt: skip


@pytest.mark.parametrize(("written", "message"), WRONG.values(), ids=WRONG)
def test_a_contradiction_is_one_message_at_its_place(tmp_path: Path, written: tuple[str, ...], message: str) -> None:
    said = complaint(tmp_path, *written)
    assert message in said
    assert said.startswith("s.yaml:")
    assert "\n  " in said or ": write" in said or "bad." in said, "it says what to write instead, or which line of a file is wrong"


GOAL = "slo: {ttft_ms: 500, share: 0.9}\n"
WRONG_GOALS = {
    "unknown preset": ("slo: mlperf/deepseek\n", "", "s.yaml:4: slo: unknown preset 'mlperf/deepseek'\n  did you mean"),
    "no limit": ("slo: {share: 0.9}\n", "", "s.yaml:4: slo: an SLO needs at least one limit"),
    "unknown limit": ("slo: {ttft_s: 2}\n", "", "s.yaml:4: slo.ttft_s: is not a known key\n  did you mean 'ttft_ms'?"),
    "share": ("slo: {ttft_ms: 1, share: 99}\n", "", "s.yaml:4: slo.share: must be at most 1"),
    "misspelt bound": (GOAL, "find: {over: rate, form: 2}", "loads[0].find.form: is not a known key\n  did you mean 'from'?"),
    "backwards": (GOAL, "find: {over: rate, from: 9, to: 3}", "loads[0].find.from: 9 is more than `to`, 3"),
    "half a stream": (GOAL, "find: {over: concurrency, from: 1.5}", "loads[0].find.from: must be a whole number of streams"),
    "too few prompts for its end": (
        GOAL,
        "find: {over: rate, to: 32}, prompts: 'jsonl:many.jsonl', output_tokens: 8",
        "s.yaml:6: loads[0].prompts: at `to`, rate 32: jsonl:many.jsonl has 200 records, and 1,920 requests are wanted",
    ),
    "too many requests at its end": (GOAL, "find: {over: rate, to: 1e6}", "loads[0].find: at `to`, rate 1e+06: about 60,000,000 requests"),
    "level twice": (GOAL, "find: {over: rate}, rate: 2", "loads[0].rate: does not go with `find` over the rate"),
}  # fmt: skip


@pytest.mark.parametrize(("goal", "written", "message"), WRONG_GOALS.values(), ids=WRONG_GOALS)
def test_a_goal_that_is_none_is_refused(tmp_path: Path, goal: str, written: str, message: str) -> None:
    assert message in complaint(tmp_path, written, rest=goal)


def test_a_preset_can_be_changed(tmp_path: Path) -> None:
    named = scenario(tmp_path, "", rest="slo: mlperf/deepseek-r1\n").slo
    changed = scenario(tmp_path, "", rest="slo: {preset: mlperf/deepseek-r1, ttft_ms: 1000}\n").slo
    assert named is not None
    assert changed is not None
    assert (named.ttft_s, named.tpot_s) == (2.0, 0.08)
    assert (changed.ttft_s, changed.tpot_s) == (1.0, 0.08)


@pytest.mark.parametrize(
    ("share", "written", "requests"),
    [
        (0.99, "", (375, 4 * 256)),
        (0.9, "", (38, 4 * 256)),
        (1, "", (16, 4 * 256)),
        (0.99, "requests: 20, ", (20, 20)),
        (0.99, "duration_s: 20, ", (0, 0)),
        (0.99, "turns: 2, prefix_cache: allowed, ", (375, 8 * 256)),
    ],
)
def test_a_probe_sends_enough_for_its_share_to_be_judged(tmp_path: Path, share: float, written: str, requests: tuple[int, int]) -> None:
    goal = f"slo: {{ttft_ms: 500, share: {share}}}\n"
    found = scenario(tmp_path, written + "find: {over: concurrency}", "concurrency: 2", rest=goal)
    (search,) = found.searches[0]
    assert (search.base.requests, load_at(search, 256).requests) == requests
    assert load_at(search, 1) == search.base
    assert found.loads[0][0].requests == 16, "a sweep decides nothing"


def test_a_rate_that_stays_does_not_rise(tmp_path: Path) -> None:
    rising, steady = loads(tmp_path, "rate: [1, 5], rate_to: 5")
    assert (rising.level_text, steady.level_text) == ("1 to 5 req/s", "5 req/s")


def test_limits_belong_to_a_plan_only_where_they_steer_it(tmp_path: Path) -> None:
    def ids(*written: str) -> set[str]:
        goals = ("slo: {ttft_ms: 500}\n", "slo: {ttft_ms: 600}\n")
        return {plan(scenario(tmp_path, *written, rest=goal), REGISTRY).id for goal in goals}

    assert len(ids("")) == 1
    assert len(ids("", "find: {over: rate}")) == 2


def test_every_axis_that_is_shown_can_be_selected(tmp_path: Path) -> None:
    found = plan(
        scenario(
            tmp_path,
            "rate: [1, 2], rate_to: 2",
            "turns: 2, think_s: [0.5, 2], prefix_cache: allowed",
            "trace: azure.csv, time_scale: [1, 0.5]",
        ),
        REGISTRY,
    )
    assert len(found.only({"rate_to": frozenset({"2"})}).cells) == 1
    assert len(found.only({"think_s": frozenset({"0.5"})}).cells) == 1
    assert len(found.only({"time_scale": frozenset({"0.5"})}).cells) == 1
    assert {"duration_s", "prefix_cache", "burstiness", "ramp_s", "temperature"} <= set(SELECTABLE)


def test_a_search_is_planned_as_its_first_cell(tmp_path: Path) -> None:
    found = plan(
        scenario(tmp_path, "", "find: {over: concurrency, from: 2, to: 32}, output_tokens: [8, 16]", rest=GOAL + "repeats: 2\n"), REGISTRY
    )
    assert len(found.cells) == 2 * (1 + 2)
    assert len(found.searches) == 2 * 2
    search = next(iter(found.searches.values()))
    assert (search.base.concurrency, search.base.requests, load_at(search, 16).requests) == (2, 38, 64)
    assert found.probes == 4 * (search.most_probes - 1)
    assert found.scenario.deployments[0].max_concurrency == 32
    assert found.only({"output_tokens": frozenset({"8"})}).searches.keys() < found.searches.keys()
    other = plan(
        scenario(tmp_path, "", "find: {over: concurrency, from: 2, to: 64}, output_tokens: [8, 16]", rest=GOAL + "repeats: 2\n"), REGISTRY
    )
    assert other.id != found.id


def test_an_in_process_batch_skips_what_needs_a_server(tmp_path: Path) -> None:
    text = "name: t\nmodels: {m: {random_weights: {layers: 1}}}\ndeployments:\n"
    text += "  - {engine: transformers, model: m, precision: f32, runtime: in-process}\n"
    text += "loads: [{}, {rate: 2}, {turns: 2, prefix_cache: allowed}, {duration_s: 3}]\n"
    (tmp_path / "s.yaml").write_text(text)
    found = plan(load_scenario(tmp_path / "s.yaml", REGISTRY), REGISTRY)
    assert [cell.id in found.skipped for cell in found.cells] == [False, True, True, True]
    assert "an open loop needs a server" in " ".join(found.skipped.values())


@pytest.mark.parametrize(("written", "margin"), [("3%", 0.03), ("0.05", 0.05), ("'12.5 %'", 0.125)])
def test_the_margin_of_equality_is_a_share(tmp_path: Path, written: str, margin: float) -> None:
    found = scenario(tmp_path, "concurrency: 1", rest=f"equal_within: {written}\n")
    assert found.equal_within == pytest.approx(margin)
    without = scenario(tmp_path, "concurrency: 1")
    assert without.equal_within is None
    assert plan(found, REGISTRY).id == plan(without, REGISTRY).id, "it measures the same"


@pytest.mark.parametrize("written", ["3", "0", "-1%", "much", "60%", "true"])
def test_a_wrong_margin_is_refused_with_its_line(tmp_path: Path, written: str) -> None:
    said = complaint(tmp_path, "concurrency: 1", rest=f"equal_within: {written}\n")
    assert "equal_within: " in said
    assert "3%" in said
