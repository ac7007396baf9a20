"""The expectation beside the bound: what it is made of, where it backs off, how own runs change it, and whether its data is up to date."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.domain import ClosedLoop, Deployment, Parallelism
from enginebench.physics import Offload, Setting, Speculation, decode, devices, need_model, read_machine, read_weights, weigh, zipf
from enginebench.physics.deployment_limits import MachineLimits
from enginebench.physics.device_class import device_class
from enginebench.physics.expectation import (
    ANY_ENGINE,
    OWN,
    Efficiency,
    Expectations,
    Latency,
    Measured,
    PhysicalEstimate,
    efficiency,
    from_dict,
    published,
    regime,
    to_dict,
)

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import efficiencies  # a script beside the package

STORED = json.loads(efficiencies.FILE.read_text(encoding="utf-8"))
SPARK, H100 = read_machine("dgx-spark"), read_machine("8xh100")
DENSE, MIXTURE = weigh(need_model("llama-3.1-8b").model, "f16"), weigh(need_model("gpt-oss-120b").model, "mxfp4")


def known(*classes: Efficiency, **more: object) -> Expectations:
    return Expectations(0.0, Latency(), {(each.engine, each.device, each.regime): each for each in classes}, **more)


def one(engine: str, device: str, typical: float = 0.5, at: str = "single stream") -> Efficiency:
    return Efficiency(engine, device, at, 3, ("S",), typical / 2, typical, typical * 1.5)


# -- the estimate ----------------------------------------------------------------------------------------------------------------


def test_a_step_is_the_roofline_and_latencies_by_hand() -> None:
    # 32 layers x 100 us, and two collectives of a layer x 10 us
    table = Expectations(0.0, Latency({"nvidia data center": 100e-6}, {}, {"link": 10e-6}), {})
    alone, shared = Setting(DENSE, read_machine("h100")), Setting(DENSE, H100, Parallelism(tp=8))
    for setting, latency in ((alone, 32 * 100e-6), (shared, 32 * 100e-6 + 64 * 10e-6)):
        found = table.decode(setting, 4, 1000)
        assert found is not None
        assert found.tokens_per_s == pytest.approx(4 / (decode(setting, 4, 1000).time_s + latency))
        assert found.bound == decode(setting.favoured, 4, 1000).tokens_per_s


def test_layers_with_experts_take_more() -> None:
    latency = Latency({"nvidia unified memory": 1e-6}, {"nvidia unified memory": 10e-6})
    assert latency.of(Setting(MIXTURE, SPARK)) == pytest.approx(36 * 11e-6)
    assert latency.of(Setting(DENSE, SPARK)) == pytest.approx(32 * 1e-6)


def test_routing_is_skewed_unless_it_is_given() -> None:
    table, setting = Expectations(1.0, Latency(), {}), Setting(MIXTURE, SPARK)
    even, given = (replace(setting, popularity=zipf(128, 4, exponent)) for exponent in (0.0, 2.0))
    usual = decode(replace(setting, popularity=zipf(128, 4, 1.0)), 32, 0).tokens_per_s
    rates = [found.tokens_per_s for each in (even, setting, given) if (found := table.decode(each, 32, 0)) is not None]
    assert rates == sorted(rates)
    assert rates[1] == pytest.approx(usual)


def test_prompts_are_prefilled_between_the_steps() -> None:
    table, setting = Expectations(0.0, Latency(), {}), Setting(DENSE, read_machine("h100"))
    with_prompt, without = (table.load(setting, (4096, 128), 8, no_prompt=cached).tokens_per_s for cached in (False, True))
    assert without == pytest.approx(8 * 128 / (127 * decode(setting, 8, 4096 + 64).time_s))
    assert with_prompt < without


def test_nothing_is_estimated_with_speculation() -> None:
    assert published().decode(Setting(DENSE, SPARK, speculation=Speculation(3, 0.7)), 1, 0) is None


@pytest.mark.parametrize(
    ("spread", "streams", "text"),
    [
        (Parallelism(), 1, "single stream"), (Parallelism(), 3, "batch 2 to 3"), (Parallelism(tp=8), 31, "batch 8 to 31, tensor-parallel"),
        (Parallelism(tp=2, dp_replicas=4), 4, "single stream, tensor-parallel"),
        (Parallelism(pp=2), 4096, "batch 128 and more, pipeline-parallel"),
        (Parallelism(tp=8, attention_dp=8, ep=8), 127, "batch 32 to 127, attention data-parallel"),
    ],
)  # fmt: skip
def test_regimes(spread: Parallelism, streams: int, text: str) -> None:
    assert regime(Setting(MIXTURE, H100, spread), streams) == text


def test_an_offload_is_a_regime() -> None:
    assert regime(Setting(MIXTURE, read_machine("rtx4090+128gb"), offload=Offload(expert_layers=30)), 1) == "single stream, offloaded"


# -- classes ---------------------------------------------------------------------------------------------------------------------


def test_it_backs_off_from_the_device_to_its_class_to_any_engine_to_unknown() -> None:
    device, alike = one("vllm", "h100-sxm-80gb", 0.6), one("vllm", "nvidia data center", 0.5)
    any_engine = one(ANY_ENGINE, "nvidia data center", 0.4)
    estimate = PhysicalEstimate(1000, "h100-sxm-80gb", "single stream")
    for classes, rate in (((device, alike, any_engine), 600), ((alike, any_engine), 500), ((any_engine,), 400)):
        found = known(*classes).expected("vllm", estimate)
        assert found is not None
        assert found.tokens_per_s == rate
    assert known(any_engine).expected(None, estimate) is not None
    assert known(device, alike).expected("sglang", estimate) is None
    assert known(device).expected("vllm", replace(estimate, regime="batch 2 to 3")) is None
    assert known(alike).expected("vllm", replace(estimate, device="a box of one's own")) is None


def test_no_expectation_is_above_the_bound() -> None:
    found = known(one("vllm", "h100-sxm-80gb", 0.9)).expected("vllm", PhysicalEstimate(1000, "h100-sxm-80gb", "single stream", bound=950))
    assert found is not None
    assert (found.low, found.tokens_per_s, found.high) == (450, 900, 950)


def test_a_range_holds_its_points_and_is_never_narrower_than_its_kind_needs() -> None:
    points = [Measured("e", source, rate, PhysicalEstimate(100, "d", "r")) for source, rate in (("A", 40), ("B", 50), ("A", 90))]
    wide, few = efficiency("e", "d", "r", points, 1.1), efficiency("e", "d", "r", points[1:2], 1.3)
    assert (wide.points, wide.sources, wide.typical) == (3, ("A", "B"), 0.5)
    assert 0.4 < wide.low < 0.42
    assert 0.8 < wide.high < 0.9
    assert (few.low, few.typical, few.high) == pytest.approx((0.5 / 1.3, 0.5, 0.65))


def test_own_points_replace_their_class_and_scale_the_other_regimes() -> None:
    base = known(one("vllm", "h100-sxm-80gb"), one("vllm", "nvidia data center", 0.4, "batch 2 to 3"), one("sglang", "h100-sxm-80gb", 0.3))
    own = base.calibrated([Measured("vllm", OWN, 800, PhysicalEstimate(1000, "h100-sxm-80gb", "single stream"))])
    rates = {
        (engine, at): found.tokens_per_s
        for engine in ("vllm", "sglang")
        for at in ("single stream", "batch 2 to 3")
        if (found := own.expected(engine, PhysicalEstimate(1000, "h100-sxm-80gb", at))) is not None
    }
    # 800 as measured; 0.8 / 0.5 = 1.6 times the published 0.4; another engine stays
    assert rates == pytest.approx({("vllm", "single stream"): 800, ("vllm", "batch 2 to 3"): 640, ("sglang", "single stream"): 300})
    found = own.expected("vllm", PhysicalEstimate(1000, "h100-sxm-80gb", "single stream"))
    assert found is not None
    assert found.basis == "vllm on h100-sxm-80gb, single stream: 1 point of own runs"


def test_own_points_are_enough_where_nothing_is_published() -> None:
    own = known().calibrated([Measured("mine", OWN, 8, PhysicalEstimate(10, "cpu", "single stream"))])
    found = own.expected("mine", PhysicalEstimate(100, "cpu", "single stream"))
    assert found is not None
    assert found.tokens_per_s == 80


def test_devices_have_classes() -> None:
    unknown = [name for name in devices() if device_class(name) is None]
    assert len(unknown) < 0.05 * len(devices()), unknown
    assert all(device_class(each.setting.machine.device.name) for each in efficiencies.cases())
    pairs = {"l40s-48gb": "nvidia card", "gh200-96gb": "nvidia data center", "m4-max-128gb": "apple", "mi300x-192gb": "amd data center"}
    assert {name: device_class(name) for name in pairs} == pairs
    assert device_class("box") is None


# -- the data --------------------------------------------------------------------------------------------------------------------


def test_the_data_is_what_the_published_points_say() -> None:
    cases = efficiencies.cases()
    now = to_dict(efficiencies.learn(cases, STORED["spreads"]))
    stored = {name: STORED[name] for name in now}
    assert now["latency_s"] == stored["latency_s"], "run: make bench-expectation"
    assert [list(each.values())[:5] for each in now["classes"]] == [list(each.values())[:5] for each in stored["classes"]]
    for each, kept in zip(now["classes"], stored["classes"], strict=True):
        assert [each[name] for name in ("low", "typical", "high")] == pytest.approx([kept[name] for name in ("low", "typical", "high")])
    assert STORED["left_out"]["source"][0]["points"] == len(cases)


def test_the_file_is_read_as_it_is_written() -> None:
    assert to_dict(from_dict(STORED)) == {name: STORED[name] for name in to_dict(published())}
    with pytest.raises(ValueError, match="schema version 9"):
        from_dict({**STORED, "schema_version": 9})


def test_left_out_sources_are_predicted_as_the_page_says() -> None:
    everything = STORED["left_out"]["source"][0]
    assert everything["median_error"] < 0.2
    assert everything["nine_of_ten_within"] < 1.5
    assert everything["unknown"] > 0, "what has no class is said to be unknown"


def test_llamacpp_on_a_dgx_spark() -> None:
    # published: 57.3 tok/s at 512 tokens, 313 with 32 sequences
    table, setting = published(), Setting(read_weights("gpt-oss-120b", "mxfp4", gguf=True), SPARK)
    for batch, measured in ((1, 57.28), (32, 312.56)):
        found = table.expected("llamacpp", table.decode(setting, batch, 528))
        assert found is not None
        assert found.low < measured < found.high


# -- where it is shown -----------------------------------------------------------------------------------------------------------


def bench_json(*words: str) -> Any:
    done = CliRunner().invoke(bench, [*words, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_ceiling_shows_it_beside_the_bound() -> None:
    words = ["ceiling", "gpt-oss-120b", "--hardware", "dgx-spark", "--engine", "llamacpp", "--batch", "1", "--batch", "4096"]
    text = CliRunner().invoke(bench, words).stdout
    assert " bound       even   expected" in text
    assert "unknown" in text.splitlines()[5]
    assert "expected at batch 1: 0." in text
    assert "llamacpp on dgx-spark-128gb, single stream: " in text
    (context,) = bench_json(*words)["contexts"]
    first, last = context["expected"]
    assert first["low"] < first["tokens_per_s"] < first["high"] <= context["bound"][0]["tokens_per_s"]
    assert first["points"] >= 20
    assert last is None
    unknown = CliRunner().invoke(bench, ["ceiling", "gpt-oss-120b", "--hardware", "mi210", "--engine", "vllm", "--batch", "1"]).stdout
    assert "expected: unknown, as no measurement of vllm in such a case is known" in unknown


def test_fit_shows_it_beside_the_bound() -> None:
    words = ["fit", "gpt-oss-20b", "--hardware", "rtx4090", "--engine", "llamacpp"]
    text = CliRunner().invoke(bench, words).stdout
    assert "\nDecoding: about " in text
    assert "llamacpp on rtx-4090-24gb, single stream" in text
    found = bench_json(*words)
    assert found["expected"]["tokens_per_s"] < found["bound"]
    assert "what is usual is unknown" in CliRunner().invoke(bench, ["fit", "gpt-oss-20b", "--hardware", "mi210", "--engine", "vllm"]).stdout


def test_the_time_of_a_load_is_expected_and_bounded() -> None:
    load = ClosedLoop(concurrency=1, input_tokens=512, output_tokens=128, requests=20)
    limits = MachineLimits(SPARK).of(Deployment("llamacpp", "gpt-oss-120b", "mxfp4", "gguf:x"))
    expected = limits.expected_s(load)
    assert expected is not None
    assert limits.least_s(load) < 20 * 128 / 75 < expected < 20 * 128 / 40
    assert MachineLimits(read_machine("mi210")).of(Deployment("vllm", "gpt-oss-120b", "mxfp4", "hf:x")).expected_s(load) is None
    timed = ClosedLoop(concurrency=1, input_tokens=512, output_tokens=128, requests=0, duration_s=60)
    assert limits.expected_s(timed) == limits.least_s(timed) == 60


SCENARIO = """
name: spark
hardware: dgx-spark
models: {gpt-oss-120b: {checkpoints: {mxfp4: "hf:ggml-org/gpt-oss-120b-GGUF/gpt-oss-120b-mxfp4.gguf"}}}
deployments:
  - {engine: llamacpp, model: gpt-oss-120b, precision: mxfp4}
loads:
  - {concurrency: [1, 256], input_tokens: 512, output_tokens: 128, requests: 256}
"""


def test_a_plan_says_both_times(tmp_path: Path) -> None:
    (tmp_path / "spark.yaml").write_text(SCENARIO)
    text = CliRunner().invoke(bench, ["plan", str(tmp_path / "spark.yaml")]).output
    line = next(line for line in text.splitlines() if "(expected" in line)
    assert line.startswith("about ")
    assert "of load on 1x dgx-spark-128gb (expected of all but 1 cell), at least " in line
    found = bench_json("plan", str(tmp_path / "spark.yaml"))
    assert found["least_s"] < found["expected_s"]
    assert found["cells_without_expectation"] == 1
