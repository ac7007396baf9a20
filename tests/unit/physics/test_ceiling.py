"""Ceilings on paper: experts touched, bytes, operations, links, offload and speculation, each by hand; and the laws they obey."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.domain import Parallelism
from enginebench.errors import UserError
from enginebench.physics import (
    Machine,
    Offload,
    Popularity,
    Role,
    Setting,
    Speculation,
    all_touched,
    batch_needed,
    decode,
    knees,
    measured,
    need_device,
    need_model,
    prefill,
    read_machine,
    uniform,
    weigh,
    zipf,
)
from enginebench.physics.routing import Routing, uniform_distinct
from enginebench.physics.routing_files import save
from enginebench.physics.work import all_reduce, exchange
from hypothesis import assume, given, settings
from hypothesis import strategies as st

SCOUT = weigh(need_model("scout").model, "f16")
MIXTRAL = weigh(need_model("mixtral-8x7b").model, "f16")
H100 = read_machine("h100").with_bandwidth(1e12)
NAMES = ["mixtral-8x7b", "deepseek-v3", "scout", "gpt-oss-120b", "qwen3-30b-a3b", "granite-3.1-1b-a400m", "llama-3.1-8b"]
spreads = st.sampled_from(
    [Parallelism(), Parallelism(tp=4), Parallelism(tp=4, ep=4), Parallelism(tp=8, ep=8, attention_dp=8), Parallelism(tp=2, pp=3),
     Parallelism(tp=2, dp_replicas=3), Parallelism(pp=4)],
)  # fmt: skip


# -- experts touched -------------------------------------------------------------------------------------------------------------


def test_touched_by_hand() -> None:
    # 4 experts, top-1, two tokens: 4 x (1 - (3/4)^2) = 1.75
    assert uniform(4, 1).touched(2) == 1.75
    assert uniform(16, 1).touched(64) == pytest.approx(15.7, abs=0.05)
    # chances 0.75 and 0.25, two tokens: (1 - 1/16) + (1 - 9/16) = 1.375
    uneven = Popularity(np.array([[0.75, 0.25]]), "by hand")
    assert uneven.touched(2) == 1.375
    assert uneven.touched(2, 0, 1) == 0.9375
    assert (uneven.hit_rate(0), uneven.hit_rate(1), uneven.hit_rate(2)) == (0, 0.75, 1)


@given(st.integers(1, 256), st.integers(1, 16), st.integers(1, 2000), st.integers(1, 2000))
def test_even_routing_rises_to_all_experts(experts: int, top_k: int, batch: int, more: int) -> None:
    assume(top_k <= experts)
    even = uniform(experts, top_k)
    assert even.touched(1) == pytest.approx(top_k)
    assert even.touched(batch) == pytest.approx(uniform_distinct(experts, top_k, batch))
    assert even.touched(batch) <= even.touched(batch + more) <= experts * (1 + 1e-12)
    assert even.touched(100_000) == pytest.approx(experts)


@given(st.integers(2, 128), st.integers(1, 8), st.floats(0, 3), st.integers(1, 500), st.integers(1, 128))
def test_uneven_routing_touches_fewer_and_hits_more(experts: int, top_k: int, exponent: float, batch: int, kept: int) -> None:
    assume(top_k <= experts and kept <= experts)
    skewed, even = zipf(experts, top_k, exponent), uniform(experts, top_k)
    assert skewed.chances.sum() == pytest.approx(top_k)
    assert skewed.chances.max() <= 1 + 1e-12
    assert skewed.touched(batch) <= even.touched(batch) * (1 + 1e-9)
    assert skewed.hit_rate(kept) >= even.hit_rate(kept) * (1 - 1e-9)
    assert skewed.touched(batch, 0, kept) + skewed.touched(batch, kept) == pytest.approx(skewed.touched(batch))


def test_no_expert_is_taken_twice_by_a_token() -> None:
    # weights 8, 1, 1 and two experts a token: the first would have 1.6, so it is certain, and the others share the second choice
    counted = Routing("m", "by hand", (0, 1), np.array([[1, 8, 1], [0, 0, 0]]))
    assert measured(counted, 2).chances.tolist() == [[1.0, 0.5, 0.5]]
    with pytest.raises(UserError, match="3 of 2 experts"):
        zipf(2, 3, 1.0)


# -- decode ----------------------------------------------------------------------------------------------------------------------


def test_scout_in_16_bits_by_hand() -> None:
    # always read: 16.138e9 active weights without the input table, less 48 x 125.83e6 routed = 10.098e9 -> 20.2 GB
    # experts: 16 x (1 - (15/16)^81) = 15.914 of 16 of 193.27 GB = 192.2 GB; together 212.4 GB over 4 x 3,350 GB/s = 15.85 ms,
    # and 81 tokens in that time are 5,110 tokens/s; a batch of 80 gives 5,048
    setting = Setting(SCOUT, read_machine("4xh100"), Parallelism(tp=4))
    step = decode(setting, 81, 0)
    assert 4 * sum(step.bytes.values()) == pytest.approx(212.4e9, rel=1e-3)
    assert step.tokens_per_s == pytest.approx(5110, rel=1e-3)
    assert batch_needed(setting, 5100, 0) == 81
    assert (batch_needed(setting, 5100, 2048) or 0) > 81  # the cache must be read too


@pytest.mark.parametrize("name", NAMES)
def test_one_token_reads_the_active_weights(name: str) -> None:
    model = need_model(name).model
    step = decode(Setting(weigh(model, "f16"), H100), 1, 0)
    assert sum(step.bytes.values()) == pytest.approx(2 * model.active("head"))
    assert step.time_s == pytest.approx(2 * model.active("head") / 1e12)
    # 2 operations per weight that is a matrix: all but the norms
    norms = sum(part.params for part in model.parts if part.role == Role.NORM)
    assert step.seconds["compute"] * 989e12 == pytest.approx(2 * (model.active("head") - norms))


def test_cache_traffic_by_hand() -> None:
    # Mixtral: 131,072 bytes a token; 4 sequences read 1,000 and write 1
    step = decode(Setting(MIXTRAL, H100), 4, 1000)
    assert step.bytes["KV cache"] == 4 * 1001 * 131_072
    assert decode(Setting(MIXTRAL, H100, kv_bits=8), 4, 1000).bytes["KV cache"] == 4 * 1001 * 65_536
    # attention: 32 layers x 32 heads x 2 x (128 + 128) operations per token seen
    without = decode(Setting(MIXTRAL, H100), 4, 0).seconds["compute"]
    assert step.seconds["compute"] - without == pytest.approx(4 * 1000 * 32 * 32 * 512 / 989e12)


def test_which_arithmetic() -> None:
    one = weigh(need_model("qwen3-30b-a3b").model, "fp8")
    assert decode(Setting(one, read_machine("h100")), 1, 0).arithmetic == "fp8"
    assert decode(Setting(one, read_machine("a100")), 1, 0).arithmetic == "bf16"
    assert decode(Setting(weigh(one.model, "nvfp4"), read_machine("b200")), 1, 0).arithmetic == "fp4"
    assert decode(Setting(weigh(one.model, "q4_k_m"), read_machine("rtx4090")), 1, 0).arithmetic == "int8"


@settings(max_examples=60)
@given(st.sampled_from(NAMES), spreads, st.integers(1, 600), st.integers(0, 8192), st.floats(1e11, 1e13), st.floats(1, 10))
def test_more_bandwidth_never_lowers_a_ceiling(name: str, p: Parallelism, batch: int, context: int, slow: float, factor: float) -> None:
    setting = Setting(weigh(need_model(name).model, "fp8"), read_machine("8xh100").with_bandwidth(slow), _possible(name, p))
    faster = replace(setting, machine=setting.machine.with_bandwidth(slow * factor))
    assert decode(faster, batch, context).tokens_per_s >= decode(setting, batch, context).tokens_per_s * (1 - 1e-12)
    assert prefill(faster, context + 1).time_s <= prefill(setting, context + 1).time_s * (1 + 1e-12)


@settings(max_examples=60)
@given(st.sampled_from(NAMES), spreads, st.integers(1, 600), st.integers(1, 600), st.integers(0, 8192))
def test_a_larger_batch_is_never_slower_in_all(name: str, p: Parallelism, batch: int, more: int, context: int) -> None:
    setting = Setting(weigh(need_model(name).model, "fp8"), read_machine("8xh100"), _possible(name, p))
    small, large = decode(setting, batch, context), decode(setting, batch + more, context)
    pipelined = setting.parallelism.pp > 1 and batch % setting.parallelism.pp  # in between, micro-batches are no whole sequences
    assert large.tokens_per_s >= small.tokens_per_s * (0.99 if pipelined else 1 - 1e-9)
    assert large.time_s >= small.time_s * (1 - 1e-9) or pipelined


def _possible(name: str, p: Parallelism) -> Parallelism:
    return replace(p, ep=1) if need_model(name).model.experts is None else p


# -- parallelism -----------------------------------------------------------------------------------------------------------------


def test_sending_by_hand() -> None:
    assert all_reduce(100, 4) == 150  # 2 x 3/4
    assert all_reduce(100, 1) == 0
    # 4 ranks, top-1: each token reaches one rank, 3/4 of them another; there and back
    assert exchange(100, 1, 4) == 150
    # 2 ranks, top-2: 2 x (1 - 1/4) = 1.5 ranks, half of them others; there and back
    assert exchange(100, 2, 2) == 150
    # tp=4: two all-reduces a layer of 8 rows x 4,096 x 2 bytes over 450 GB/s
    step = decode(Setting(MIXTRAL, read_machine("4xh100"), Parallelism(tp=4)), 8, 0)
    assert step.seconds["link"] == pytest.approx(32 * 2 * 1.5 * 8 * 8192 / 450e9)
    # one sequence is on one rank, whatever the others do
    idle = decode(Setting(MIXTRAL, read_machine("4xh100"), Parallelism(tp=4, ep=4, attention_dp=4)), 1, 1000)
    assert idle.bytes["KV cache"] == 1001 * 131_072
    # attention on every rank for itself: no reduction there, experts are exchanged
    wide = decode(Setting(MIXTRAL, read_machine("4xh100"), Parallelism(tp=4, ep=4, attention_dp=4)), 8, 0)
    assert wide.seconds["link"] == pytest.approx(32 * exchange(2 * 8192, 2, 4) / 450e9)


def test_pipeline_by_hand() -> None:
    # 80 layers on 4 stages: one sequence passes all of them, so it is as slow as on one device; 4 sequences keep all stages busy
    llama = weigh(need_model("llama-3.1-70b").model, "f16")
    machine = Machine(replace(H100.device, link=None, pcie=None), 4)
    alone, staged = Setting(llama, H100), Setting(llama, machine, Parallelism(pp=4))
    assert decode(staged, 1, 0).time_s == pytest.approx(decode(alone, 1, 0).time_s)
    last = 20 * (decode(alone, 1, 0).time_s * 1e12 - llama.of(Role.HEAD)) / 80 + llama.of(Role.HEAD)  # the last stage has the head too
    assert decode(staged, 4, 0).time_s == pytest.approx(4 * last / 1e12, rel=1e-6)


def test_replicas_share_the_batch() -> None:
    one, two = Setting(MIXTRAL, read_machine("h200")), Setting(MIXTRAL, read_machine("2xh200"), Parallelism(dp_replicas=2))
    assert decode(two, 1, 1024).time_s == decode(one, 1, 1024).time_s  # the other replica is idle
    assert decode(two, 64, 1024).tokens_per_s == pytest.approx(2 * decode(one, 32, 1024).tokens_per_s)
    with pytest.raises(UserError, match="2 devices are needed"):
        Setting(MIXTRAL, read_machine("h200"), Parallelism(dp_replicas=2))


# -- prefill ---------------------------------------------------------------------------------------------------------------------


def test_prefill_by_hand() -> None:
    # Llama 3.1 8B, 1,000 tokens: 2 x (8,030,261,248 - 2 tables of 525,336,576 - 266,240 in norms) x 1,000 + the head for one token
    # + 32 layers x 32 heads x 2 x 256 x 1,000 x 500
    llama = weigh(need_model("llama-3.1-8b").model, "f16")
    step = prefill(Setting(llama, read_machine("h100")), 1000)
    assert step.bottleneck == "compute"
    operations = 2 * (8_030_261_248 - 2 * 525_336_576 - 266_240) * 1000 + 2 * 525_336_576 + 32 * 32 * 512 * 1000 * 500
    assert step.time_s == pytest.approx(operations / 989e12)
    assert prefill(Setting(llama, read_machine("h100")), 1000, sequences=4).tokens_per_s == pytest.approx(step.tokens_per_s)


# -- offload and speculation -----------------------------------------------------------------------------------------------------


def test_offload_by_hand() -> None:
    # Mixtral, experts of 16 of 32 layers on a host of 50 GB/s: one token takes 2 of 8 there, 16 x 2 x 176,160,768 weights
    machine = read_machine("1xh100+128gb", host_bandwidth=50e9)
    step = decode(Setting(MIXTRAL, machine, offload=Offload(expert_layers=16)), 1, 0)
    assert step.memory["host"] == pytest.approx(16 * 2 * 176_160_768 * 2 / 50e9)
    assert step.bytes["experts"] == pytest.approx(16 * 2 * 176_160_768 * 2)
    assert step.bottleneck == "host"
    # the 2 most popular of 8 stay: even routing finds a quarter of the choices there
    half = decode(Setting(MIXTRAL, machine, offload=Offload(kept=2)), 1, 0)
    assert half.memory["host"] == pytest.approx(32 * 2 * 0.75 * 176_160_768 * 2 / 50e9)
    # and uneven routing finds more
    skewed = decode(Setting(MIXTRAL, machine, offload=Offload(kept=2), popularity=zipf(8, 2, 1.0)), 1, 0)
    assert skewed.memory["host"] < half.memory["host"]
    # whole layers: 8 of 32, with their cache
    blocks = decode(Setting(MIXTRAL, machine, offload=Offload(blocks=8)), 1, 1000)
    assert blocks.bytes["KV cache"] == 24 * 1001 * 4096
    # a link slower than the host's memory is the limit when weights are sent
    sent = decode(Setting(MIXTRAL, read_machine("1xrtx4090+128gb", host_bandwidth=100e9), offload=Offload(16, over_link=True)), 1, 0)
    assert sent.memory["host"] == pytest.approx(16 * 2 * 176_160_768 * 2 / 32e9)
    # two ranks fetch their halves over a link each, until the host's memory is slower
    both = [read_machine("2xrtx4090+128gb", host_bandwidth=bandwidth * 1e9) for bandwidth in (100, 50)]
    pair = [decode(Setting(MIXTRAL, machine, Parallelism(tp=2), offload=Offload(16, over_link=True)), 1, 0) for machine in both]
    assert [step.memory["host"] for step in pair] == [pytest.approx(16 * 2 * 176_160_768 * 2 / rate) for rate in (64e9, 50e9)]
    with pytest.raises(UserError, match="needs host memory"):
        Setting(MIXTRAL, read_machine("h100"), offload=Offload(expert_layers=1))


@given(st.integers(0, 32), st.integers(0, 31))
def test_more_on_the_host_is_never_faster(layers: int, fewer: int) -> None:
    machine = read_machine("1xh100+128gb")
    more, less = (decode(Setting(MIXTRAL, machine, offload=Offload(n)), 1, 0).time_s for n in (max(layers, fewer), min(layers, fewer)))
    assert more >= less


def test_speculation_by_hand() -> None:
    # three drafted at 0.5: 1 + 1/2 + 1/4 + 1/8 tokens a step; four rows go through the model
    setting = Setting(MIXTRAL, H100, speculation=Speculation(3, 0.5))
    step = decode(setting, 2, 0)
    assert step.tokens == 2 * 1.875
    assert step.touched == pytest.approx(uniform_distinct(8, 2, 8))
    assert step.tokens_per_s_user == pytest.approx(1.875 / step.time_s)
    drafter = Setting(weigh(need_model("llama-3.1-8b").model, "f16"), H100)
    slower = decode(replace(setting, speculation=Speculation(3, 0.5, drafter)), 2, 0)
    assert slower.time_s == pytest.approx(step.time_s + 3 * decode(drafter, 2, 0).time_s)
    assert decode(replace(setting, speculation=Speculation(3, 1.0)), 1, 0).tokens == 4


# -- limits ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("context", [0, 2048, 16384])
def test_knees_are_where_another_limit_rules(context: int) -> None:
    setting = Setting(SCOUT, read_machine("4xh100"), Parallelism(tp=4))
    found = knees(setting, context)
    assert found
    for knee in found:
        assert (decode(setting, knee.batch - 1, context).bottleneck, decode(setting, knee.batch, context).bottleneck) == (
            knee.before,
            knee.after,
        )
    assert [knee.after for knee in found][:-1] == [knee.before for knee in found][1:]


def test_batches_needed() -> None:
    setting = Setting(SCOUT, read_machine("4xh100"), Parallelism(tp=4))
    for asked in (1, 500, 5000, 20_000):
        batch = batch_needed(setting, asked, 2048)
        assert batch is not None
        assert decode(setting, batch, 2048).tokens_per_s >= asked
        assert batch == 1 or decode(setting, batch - 1, 2048).tokens_per_s < asked
    assert batch_needed(setting, 1e7, 2048) is None  # the cache alone takes longer
    # 16 (1 - (15/16)^n) >= 0.95 x 16 from n = ln 0.05 / ln (15/16) = 46.4 on
    assert all_touched(setting) == 47
    assert all_touched(Setting(weigh(need_model("qwen3-8b").model, "f16"), H100)) is None


# -- the command -----------------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> str:
    done = CliRunner().invoke(bench, ["ceiling", *arguments], standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.stdout


def test_command(tmp_path: Path) -> None:
    asked = ("llama4-scout", "--hardware", "4xh100", "--precision", "f16", "--context", "0", "--reach", "5100")
    text = run(*asked)
    assert "5,100 tok/s: possible from batch 13 on; with uniform routing from 81 on" in text
    assert "from batch 47 a step reads 95 % of the experts" in text
    data: dict[str, Any] = json.loads(run(*asked, "--context", "2k", "--batch", "8", "--batch", "1", "--json"))
    assert (data["contexts"][0]["reach"]["batch"], data["contexts"][0]["reach"]["likely_batch"]) == (13, 81)
    assert [step["batch"] for step in data["contexts"][1]["decode"]] == [1, 8]
    assert data["contexts"][1]["prefill"]["time_s"] > 0
    run("mixtral-8x7b", "--hardware", "2xh100", "--context", "2k", "--context", "8k", "--html", str(tmp_path / "curves.html"))
    page = (tmp_path / "curves.html").read_text()
    assert "mixtral-8x7b in bf16" in page
    assert "8,192 tokens" in page
    assert "memory full at" in page


def test_command_takes_measured_routing_and_speed(tmp_path: Path) -> None:
    counts = np.array([[800, 100, 100, 10, 10, 10, 10, 10]] * 32)
    save(Routing("mixtral", "a pass", tuple(range(32)), counts), tmp_path / "counts.npz")
    asked = ("mixtral-8x7b", "--hardware", "2xh100", "--batch", "4", "--json")
    even, counted, zipfian, measured_speed, slow = (
        json.loads(run(*asked, *more))["contexts"][0]["decode"][0]
        for more in ((), ("--routing", str(tmp_path / "counts.npz")), ("--routing", "zipf:1"), ("--measured",), ("--bandwidth", "1000"))
    )
    assert counted["touched"] < zipfian["touched"] < even["touched"]
    assert measured_speed["time_s"] == pytest.approx(even["time_s"] * 3350 / 3000)
    assert slow["time_s"] == pytest.approx(even["time_s"] * 3.35)
    drafted = json.loads(run(*asked, "--speculate", "3", "--draft", "llama-3.1-8b"))
    assert drafted["speculation"] == {"tokens": 3, "acceptance": 0.7, "drafter": "llama-3.1-8b"}


def test_command_refuses() -> None:
    asked = ("mixtral-8x7b", "--hardware", "2xh100")
    for more, why in (
        (("--routing", "zipf:much"), "no exponent"),
        (("--routing", "nowhere.npz"), "no such file"),
        (("--draft", "qwen3-8b"), "without --speculate"),
        (("--cpu-experts", "4"), "needs host memory"),
        (("--tp", "3"), "cannot be divided equally"),
    ):
        with pytest.raises(UserError, match=why):
            run(*asked, *more)


@pytest.mark.parametrize("option", ["--bandwidth", "--host-bandwidth", "--reach", "--acceptance"])
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_what_is_no_number_is_refused(option: str, value: str) -> None:
    outcome = CliRunner().invoke(bench, ["ceiling", "mixtral-8x7b", "--hardware", "2xh100", option, value])
    assert outcome.exit_code == 2
    assert value in outcome.stderr


@pytest.mark.parametrize("verb", [("ceiling", "--hardware", "2xh100"), ("offload", "--hardware", "rtx4090+128gb", "--precision", "q4_0")])
def test_a_page_that_cannot_be_written(tmp_path: Path, verb: tuple[str, ...]) -> None:
    outcome = CliRunner().invoke(bench, [verb[0], "mixtral-8x7b", *verb[1:], "--html", str(tmp_path / "no" / "page.html")])
    assert isinstance(outcome.exception, UserError)
    assert "cannot be written" in outcome.exception.message


def test_a_processor_is_a_device() -> None:
    step = decode(Setting(weigh(need_model("olmoe").model, "q8_0"), Machine(need_device("cpu"))), 1, 128)
    assert step.limit in ("memory", "compute")
