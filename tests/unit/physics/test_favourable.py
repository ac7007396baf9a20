"""Each assumption of the bound is the favourable one: caches, clocks, types that are not stated, hosts, links, ways to spread a model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner
from enginebench.audit.claims import Serving
from enginebench.audit.judge import judge_serving
from enginebench.audit.physics import Physics
from enginebench.cli import bench
from enginebench.domain import Deployment, Parallelism
from enginebench.errors import UserError
from enginebench.physics import Device, Machine, Offload, Role, Setting, decode, fit, need_device, need_model, read_machine, weigh
from enginebench.physics.deployment_limits import MachineLimits
from enginebench.physics.machine import MOST_CACHE, MOST_HOST_BANDWIDTH
from enginebench.physics.mixers import Attention
from enginebench.physics.setting import BOOST
from enginebench.physics.sharding import per_device, problem
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

GRANITE = need_model("granite-3.1-1b-a400m").model
R1 = need_model("deepseek-r1").model


def test_weights_may_stay_in_the_last_level_cache() -> None:
    # an RTX 4090 has 72 MiB of L2; a small mixture in Q4 reads 0.25 GB a token
    setting = Setting(weigh(GRANITE, "q4_0"), read_machine("rtx4090"))
    step, bound = decode(setting, 1, 0), decode(setting.favoured, 1, 0)
    saved = sum(step.bytes.values()) - 72 * 2**20
    assert bound.time_s == pytest.approx(saved / 1008e9 / 0.95)
    assert bound.time_s < 0.8 * step.time_s
    big = Setting(weigh(need_model("llama-3.1-70b").model, "q4_k_m"), read_machine("2xrtx4090"), Parallelism(tp=2))
    same = decode(big.favoured, 1, 0).seconds["memory"]
    assert same == decode(big, 1, 0).seconds["memory"], "under 5 % of what is read is less than what no memory reaches of its bandwidth"


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.floats(0, 4e9), st.integers(1, 512), st.sampled_from([0, 128, 8192]))
def test_more_sequences_are_never_slower_whatever_the_cache(cache: float, batch: int, context: int) -> None:
    device = Device("d", 1e12, 1e12, {"bf16": 1e18}, cache=cache)
    setting = Setting(weigh(GRANITE, "q4_0"), Machine(device)).favoured
    few, more = decode(setting, batch, context), decode(setting, batch + 1, context)
    assert more.tokens_per_s >= few.tokens_per_s * (1 - 1e-9)
    without = decode(replace(setting, machine=Machine(replace(device, cache=0.0))), batch, context)
    assert without.time_s / 32 * (1 - 1e-9) <= few.time_s <= without.time_s * (1 + 1e-9)


def test_caches_are_those_of_the_chip_or_the_largest_of_all() -> None:
    assert need_device("h100").cache == 50 * 2**20
    assert need_device("m1-max").cache == need_device("m3-ultra-256gb").cache == 96 * 2**20
    assert need_device("b200").cache == MOST_CACHE


def test_clocks_and_formats_may_be_faster_than_the_data_sheet() -> None:
    awq = Setting(weigh(need_model("llama-3.1-8b").model, "awq"), read_machine("rtx4090"))
    step, bound = (decode(each, 4096, 0).seconds["compute"] for each in (awq, awq.favoured))
    assert step / bound == pytest.approx(BOOST * 660.6 / 165.2)  # INT8 products, where AWQ's usual kernel computes in 16 bits
    server = Setting(weigh(need_model("llama-3.1-8b").model, "bf16"), read_machine("h200"))
    assert decode(server.favoured, 4096, 0).seconds["compute"] == pytest.approx(decode(server, 4096, 0).seconds["compute"], rel=1e-3)
    half = Setting(weigh(need_model("llama-3.1-8b").model, "bf16"), read_machine("rtx3090"))
    step, bound = (decode(each, 4096, 0).seconds["compute"] for each in (half, half.favoured))
    assert step / bound == pytest.approx(BOOST * 142 / 71)  # FP16 products that are summed in FP16


def test_a_cache_whose_type_is_not_stated_may_have_few_bits() -> None:
    claim = {
        "id": "x",
        "source": "A",
        "model": "llama-3.1-70b",
        "precision": "fp8",
        "hardware": "2xh200",
        "tp": 2,
        "isl": 32768,
        "osl": 512,
    }
    at = {name: Physics().ceiling(Serving.model_validate({**claim, "options": options}), 64).tok_s
          for name, options in (("unknown", {}), ("fp8", {"kv_dtype": "fp8"}), ("bf16", {"kv_dtype": "bf16"}))}  # fmt: skip
    assert at["bf16"] < at["fp8"] < at["unknown"]
    served = Deployment("vllm", "llama-3.1-70b", "fp8", "hf:x", parallelism=Parallelism(tp=2))
    limits = MachineLimits(read_machine("2xh200"))
    auto, stated = (limits.of(replace(served, options=options)).ceiling((2048.0, 8192.0), 64) for options in ({}, {"kv_dtype": "bf16"}))
    assert auto > stated, "a quantised checkpoint may ask for 8 bits"
    whole = limits.of(replace(served, precision="bf16"))
    assert whole.settings[0].kv_read == 16


def test_a_head_may_have_the_bits_of_the_layers() -> None:
    weights = weigh(need_model("llama-3.1-8b").model, "awq")
    setting = Setting(weights, Machine(Device("d", 1e12, 1e12, {"bf16": 1e18}, cache=0.0)))
    saved = 128256 * 4096 * (16 - 4.15625) / 8
    assert (decode(setting, 1, 0).time_s - decode(setting.favoured, 1, 0).time_s) * 1e12 == pytest.approx(saved)
    of_a_file = replace(setting, weights=replace(weights, nominal=False))
    assert decode(of_a_file.favoured, 1, 0).time_s == decode(of_a_file, 1, 0).time_s


def test_a_host_whose_bandwidth_is_not_stated_may_be_the_fastest() -> None:
    # DeepSeek V3 with its experts on a host with 16 channels of DDR5-4800 was measured at 13.5 tok/s, which needs 270 GB/s
    weights, offload = weigh(need_model("deepseek-v3").model, "q4_k_m"), Offload(expert_layers=61)
    unknown, desktop = (
        decode(Setting(weights, read_machine("rtx4090+1024gb", host_bandwidth=speed), offload=offload).favoured, 1, 969).tokens_per_s
        for speed in (None, 80e9)
    )
    assert desktop < 13.5 < unknown
    assert read_machine("rtx4090+64gb").host.most == MOST_HOST_BANDWIDTH


def test_sums_over_ranks_may_take_an_eighth() -> None:
    setting = Setting(weigh(need_model("llama-3.1-8b").model, "bf16"), read_machine("8xh100"), Parallelism(tp=8))
    assert decode(setting.favoured, 256, 0).seconds["link"] == pytest.approx(decode(setting, 256, 0).seconds["link"] / 8)


def test_a_window_fills_up_while_tokens_come_out() -> None:
    windowed = Attention(heads=8, kv_heads=8, key_dim=64, value_dim=64, window=128)
    for first, last in ((0, 512), (0, 64), (100, 300), (500, 600)):
        mean = sum(min(i, 128) for i in range(first, last)) / (last - first)
        assert windowed.attended((first + last) / 2, (last - first) / 2) == pytest.approx(mean, abs=0.6)
    assert windowed.attended(4096) == 128


def test_an_unstated_spread_may_be_any_that_fits() -> None:
    # latent attention has one cache for all heads: with tensor parallelism every rank reads all of it, with attention replicas its own
    claim = Serving.model_validate(
        {"id": "x", "source": "A", "model": "deepseek-r1", "precision": "fp8", "hardware": "8xh200", "isl": 4096, "osl": 1024,
         "options": {"kv_dtype": "bf16"}}
    )  # fmt: skip
    free = Physics().ceiling(claim, 512).tok_s
    tied, spread = (
        Physics().ceiling(claim.model_copy(update=ways), 512).tok_s for ways in ({"tp": 8}, {"tp": 8, "attention_dp": 8, "ep": 8})
    )
    assert tied < spread
    assert free == pytest.approx(spread)


def test_all_of_a_unified_memory_can_be_used() -> None:
    claim = {"id": "x", "source": "A", "model": "llama-3.1-70b", "precision": "q6_k", "hardware": "m4-max-64gb", "concurrency": 1}
    found = judge_serving(Serving.model_validate({**claim, "output_tok_s": 5}), Physics())
    assert found.verdict == "plausible", found.reasons  # 58 GB of 69, of which macOS gives 52 to the GPU by default
    small = judge_serving(
        Serving.model_validate({**claim, "hardware": "m4-max-48gb", "placement": "devices", "output_tok_s": 5}), Physics()
    )
    assert small.verdict == "impossible as stated"


def test_a_stated_bandwidth_counts_if_it_is_rounding() -> None:
    claim = {
        "id": "x",
        "source": "A",
        "model": "gpt-oss-20b",
        "precision": "bf16",
        "hardware": "m3-ultra",
        "concurrency": 1,
        "output_tok_s": 115,
    }
    assert judge_serving(Serving.model_validate({**claim, "bandwidth_gb_s": 800}), Physics()).verdict == "impossible as stated"
    other = judge_serving(Serving.model_validate({**claim, "output_tok_s": 50, "bandwidth_gb_s": 500}), Physics())
    assert other.verdict == "inconsistent"
    assert "819 GB/s, the text states 500" in other.reasons[0]


def test_a_shared_prefix_is_read_once() -> None:
    claim = {"id": "x", "source": "A", "model": "llama-3.1-8b", "precision": "bf16", "hardware": "1xh100", "concurrency": 256, "isl": 8192,
             "osl": 128, "output_tok_s": 30_000, "options": {"kv_dtype": "bf16"}}  # fmt: skip
    assert judge_serving(Serving.model_validate(claim), Physics()).verdict == "impossible as stated"
    assert judge_serving(Serving.model_validate({**claim, "shared_prefix": 8000}), Physics()).verdict == "plausible"


# -- wide expert parallelism -----------------------------------------------------------------------------------------------------


def test_256_experts_and_32_copies_on_72_ranks_are_four_each() -> None:
    wide = Parallelism(72, attention_dp=72, ep=72)
    assert problem(R1, wide, 32) is None
    expert = R1.moe_layers * R1.layers[-1].experts.one(R1.hidden)
    for redundant, each in ((0, 4), (32, 4), (33, 5)):
        assert per_device(weigh(R1, "fp8"), wide, redundant)[0][Role.EXPERT] == pytest.approx(each * expert)
    assert problem(R1, Parallelism(tp=64, ep=48), 0) is not None
    assert "need expert parallelism" in (problem(R1, Parallelism(), 8) or "")
    with pytest.raises(UserError, match="256 experts and 8 redundant ones cannot be divided equally among 16 ranks"):
        fit(weigh(R1, "fp8"), read_machine("16xh100"), Parallelism(16, ep=16), context=1, concurrency=1, redundant=8)


@pytest.mark.parametrize("command", ["fit", "ceiling"])
def test_the_commands_take_uneven_expert_parallelism(command: str) -> None:
    words = [command, "deepseek-r1", "--hardware", "72xh100", "--attention-dp", "72", "--ep", "72", "--context", "4k", "--json"]
    without, copies = (CliRunner().invoke(bench, [*words, *more]) for more in ((), ("--redundant-experts", "32")))
    assert without.exit_code == copies.exit_code == 0, copies.output
    refused = CliRunner().invoke(bench, [command, "deepseek-r1", "--hardware", "8xh200", "--redundant-experts", "32"])
    assert isinstance(refused.exception, UserError)
    assert "need expert parallelism" in refused.exception.message


def test_the_measured_wide_expert_parallelism_leaves_room_for_a_faster_one() -> None:
    # SGLang measured 22,282 tok/s on each of nine nodes of eight H100, with 32 redundant experts and 256 sequences a GPU
    claim = {"id": "x", "source": "A", "model": "deepseek-r1", "precision": "fp8", "hardware": "72xh100", "tp": 72, "attention_dp": 72,
             "ep": 72, "redundant_experts": 32, "isl": 2000, "osl": 100, "concurrency": 18_432}  # fmt: skip
    for rate in (178_400, 190_000, 9 * 22_282):
        found = judge_serving(Serving.model_validate({**claim, "output_tok_s": rate}), Physics())
        assert found.verdict == "plausible", found.reasons
    even = Physics().ceiling(Serving.model_validate({**claim, "output_tok_s": 1}), 18_432).even
    assert even is not None
    assert even > 9 * 22_282, "evenly used experts, dense layers of each GPU's own: no engine of today is held back"


def test_streams_and_the_time_per_token_give_a_rate() -> None:
    claim = {"id": "x", "source": "A", "model": "llama4-scout", "precision": "fp8", "hardware": "8xh100", "tp": 8, "concurrency": 16}
    found = judge_serving(Serving.model_validate({**claim, "ms_per_token": 18, "output_tok_s": 1850}), Physics())
    assert found.verdict == "inconsistent"
    assert "16 streams at 18 ms per token give 889 tok/s, not 1,850" in found.reasons[0]
    alone = judge_serving(Serving.model_validate({**claim, "ms_per_token": 18, "projected": True}), Physics())
    assert alone.stated == pytest.approx(16 / 0.018)
    assert "the rate was computed by the source, not measured" in alone.reasons
