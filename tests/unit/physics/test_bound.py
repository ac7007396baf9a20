"""The bound: no routing, no batch and no overlap of memory tiers is faster, whatever the even estimate says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.audit.claims import Serving
from enginebench.audit.judge import judge_serving
from enginebench.audit.physics import Physics
from enginebench.cli import bench
from enginebench.domain import ClosedLoop, Deployment, Parallelism
from enginebench.physics import Device, Machine, Offload, Role, Setting, catalogue, decode, need_model, prefill, read_machine, weigh, zipf
from enginebench.physics.deployment_limits import MachineLimits
from enginebench.physics.sharding import per_device
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

HARDWARE = Path(catalogue.__file__).with_name("data") / "hardware.yaml"
MIXTRAL = weigh(need_model("mixtral-8x7b").model, "f16")
UNIFIED = Device("unified-128gb", 128 * 2**30, 273e9, {"bf16": 62e12, "int8": 125e12})
"""A machine with 273 GB/s."""


def test_a_step_reads_the_experts_of_one_token_whatever_the_batch() -> None:
    # 32 layers x 2 experts of 176,160,768 weights in 16 bits, and everything else but the input table
    setting = Setting(MIXTRAL, Machine(Device("d", 2e11, 1e12, {"bf16": 1e18}, cache=0.0))).favoured
    always, experts = MIXTRAL.bytes - MIXTRAL.of(Role.EXPERT, Role.EMBEDDING), 32 * 2 * 176_160_768 * 2
    for batch in (1, 7, 512):
        step = decode(setting, batch, 0)
        assert step.touched == 2
        assert step.time_s == pytest.approx((always + experts) / 1e12, rel=1e-9)
        assert step.tokens_per_s == pytest.approx(batch * 1e12 / (always + experts), rel=1e-9)


def test_a_measured_rate_above_the_even_estimate_is_below_the_bound() -> None:
    # llama.cpp decodes gpt-oss-120b at 313 tok/s with 32 sequences on such a machine
    setting = Setting(weigh(need_model("gpt-oss-120b").model, "mxfp4"), Machine(UNIFIED))
    assert decode(setting, 32, 0).tokens_per_s < 313 < decode(setting.favoured, 32, 0).tokens_per_s


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.floats(0, 4), st.integers(1, 512), st.sampled_from([0, 4096]), st.integers(0, 8), st.booleans())
def test_no_routing_beats_the_bound(exponent: float, batch: int, context: int, kept: int, offloaded: bool) -> None:
    offload = Offload(kept=kept) if offloaded else Offload()
    setting = Setting(MIXTRAL, read_machine("1xrtx4090+512gb"), popularity=zipf(8, 2, exponent), offload=offload)
    assert decode(setting.favoured, batch, context).time_s <= decode(setting, batch, context).time_s * (1 + 1e-9)
    assert prefill(setting.favoured, 100).time_s <= prefill(setting, 100).time_s * (1 + 1e-9)


def test_the_host_is_read_while_the_device_is() -> None:
    machine = read_machine("1xrtx4090+512gb", host_bandwidth=50e9)
    setting = Setting(MIXTRAL, machine, offload=Offload(expert_layers=16))
    step, bound = decode(setting, 1, 0), decode(setting.favoured, 1, 0)
    assert step.seconds["memory"] == pytest.approx(sum(step.memory.values()))
    assert bound.seconds["memory"] == pytest.approx(bound.memory["host"])
    kept = decode(Setting(MIXTRAL, machine, offload=Offload(kept=2)).favoured, 64, 0)
    assert kept.bytes["host"] == 0  # two of the experts on the device are enough for every token


def test_a_load_is_compared_with_the_bound() -> None:
    deployment = Deployment("vllm", "mixtral-8x7b", "f16", "hf:mixtral", parallelism=Parallelism(tp=2))
    limits = MachineLimits(read_machine("2xh100")).of(deployment)
    even = decode(Setting(MIXTRAL, read_machine("2xh100"), Parallelism(tp=2)), 16, 64 + 32 / 2).tokens_per_s
    bound = limits.ceiling((64.0, 32.0), 16)
    assert bound > 2 * even
    load = ClosedLoop(concurrency=16, input_tokens=64, output_tokens=32, requests=160)
    assert limits.least_s(load) == pytest.approx(160 * 32 / bound)


def test_a_claim_is_impossible_only_above_the_bound() -> None:
    claim = {"id": "x", "source": "A", "model": "mixtral-8x7b", "precision": "f16", "hardware": "2xh100", "tp": 2, "concurrency": 16}
    possible, impossible = (judge_serving(Serving.model_validate({**claim, "output_tok_s": rate}), Physics()) for rate in (2000, 6000))
    assert possible.verdict == "plausible"
    assert possible.even is not None
    assert possible.even < 2000 < (possible.ceiling or 0)
    assert "if all experts are used equally" in possible.reasons[0]
    assert impossible.verdict == "impossible as stated"


def test_the_command_names_three_lines() -> None:
    done = CliRunner().invoke(bench, ["ceiling", "mixtral-8x7b", "--hardware", "2xh100", "--batch", "16", "--routing", "zipf:1", "--json"])
    (context,) = json.loads(done.stdout)["contexts"]
    rates = [context[line][0]["tokens_per_s"] for line in ("even", "decode", "bound")]
    assert rates == sorted(rates)
    assert len(set(rates)) == 3
    text = CliRunner().invoke(bench, ["ceiling", "mixtral-8x7b", "--hardware", "2xh100", "--batch", "16", "--reach", "2000"]).stdout
    assert "bound" in text
    assert "even" in text
    assert "possible from batch" in text


WIDE = {"id": "x", "source": "A", "model": "deepseek-r1", "precision": "fp8", "hardware": "72xh100", "tp": 72, "attention_dp": 72, "ep": 72}


def test_wide_expert_parallelism_is_not_impossible() -> None:
    # 64 to 72 H100 were measured at 178,400 tok/s; 256 experts among 72 ranks, dense layers that are not summed over all of them
    claim = {**WIDE, "isl": 2000, "osl": 500, "concurrency": 72 * 256, "output_tok_s": 190_000}
    found = judge_serving(Serving.model_validate(claim), Physics())
    assert found.verdict == "plausible", found.reasons
    assert judge_serving(Serving.model_validate({**claim, "output_tok_s": 3e6}), Physics()).verdict == "impossible as stated"


def test_uneven_experts_fill_the_fullest_rank() -> None:
    model = need_model("deepseek-r1").model
    even, uneven = (per_device(weigh(model, "fp8"), Parallelism(n, attention_dp=n, ep=n))[0][Role.EXPERT] for n in (64, 72))
    assert uneven == pytest.approx(even)  # four experts of a layer either way


def test_what_stays_in_a_node_does_not_take_the_network() -> None:
    h100 = read_machine("16xh100")
    step = decode(Setting(MIXTRAL, h100, Parallelism(tp=16)), 8, 0)
    # two all-reduces a layer of 8 rows x 8,192 bytes: an eighth of them (2 x 1/2) takes the network, 2 x 7/8 the links inside
    size = 8 * 8192
    assert step.seconds["link"] == pytest.approx(32 * 2 * max(size / 8 / 50e9, 1.75 * size / 450e9))
    wide = Parallelism(tp=16, attention_dp=16, ep=8)
    assert decode(Setting(MIXTRAL, h100, wide).favoured, 64, 0).seconds["link"] == 0
