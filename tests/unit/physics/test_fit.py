"""Does it fit: shares that sum back to the whole, budgets on paper, limits that are exactly limits, and the command."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.cli.shared import KV_TYPES
from enginebench.domain import Parallelism
from enginebench.errors import Exit, UserError
from enginebench.physics import (
    Offload,
    Reserve,
    Role,
    choose_parallelism,
    devices,
    fit,
    most_on_device,
    need_model,
    read_machine,
    smallest,
    weigh,
)
from enginebench.physics.memory import Fit
from enginebench.physics.placement import KV_BITS
from enginebench.physics.sharding import cache_per_device, per_device, problem, shards, stages
from enginebench.physics.weights import split
from hypothesis import given, settings
from hypothesis import strategies as st

MIXTRAL = weigh(need_model("mixtral-8x7b").model, "f16")
SCOUT = weigh(need_model("scout").model, "q4_k_m")
NONE = Reserve(0.0, 1)
NAMES = [
    "mixtral-8x7b",
    "deepseek-v3",
    "deepseek-v2-lite",
    "maverick",
    "gpt-oss-20b",
    "qwen3-30b-a3b",
    "granite-3.1-1b-a400m",
    "llama-3.1-8b",
]

spreads = st.builds(
    Parallelism, tp=st.sampled_from([1, 2, 4, 8]), pp=st.integers(1, 5), dp_replicas=st.just(1), attention_dp=st.sampled_from([1, 2, 4, 8]),
    ep=st.sampled_from([1, 2, 4, 8]),
)  # fmt: skip


@given(st.sampled_from(NAMES), st.sampled_from(["f16", "fp8", "q4_k_m", "mxfp4"]), spreads)
def test_shares_sum_back_to_the_whole(name: str, precision: str, p: Parallelism) -> None:
    weights = weigh(need_model(name).model, precision)
    if problem(weights.model, p) is not None:
        return
    attention = weights.model.layers[0].attention
    whole = sum(size * shards(role, attention, p) for stage in per_device(weights, p) for role, size in stage.items())
    copied = weights.of(Role.EMBEDDING) if weights.model.tied and p.pp > 1 else 0.0  # the last stage needs the tied table too
    assert whole == pytest.approx(weights.bytes + copied)


@given(st.integers(1, 100), st.integers(1, 16))
def test_stages_cover_every_layer_once(layers: int, count: int) -> None:
    found = stages(layers, min(count, layers))
    assert [layer for stage in found for layer in stage] == list(range(layers))
    assert max(map(len, found)) - min(map(len, found)) <= 1


@given(st.sampled_from(NAMES), st.integers(0, 60), st.none() | st.integers(0, 300), st.integers(0, 60))
def test_device_and_host_hold_the_whole_together(name: str, layers: int, kept: int | None, blocks: int) -> None:
    weights = weigh(need_model(name).model, "f16")
    here, there = split(weights, Offload(layers, kept, blocks))
    assert here.bytes + there.bytes == pytest.approx(weights.bytes)
    assert sum(part.params for part in (*here.parts, *there.parts)) == weights.model.params


def test_every_type_of_cache_that_the_command_line_offers_has_a_size() -> None:
    assert set(KV_TYPES) <= set(KV_BITS)


def test_mixtral_on_two_by_hand() -> None:
    # a layer, 2 bytes a weight, 2 ranks: q and o 33,554,432, k and v 8,388,608, experts 1,409,286,144 weights: half of each on a rank;
    # router 32,768 and norms 8,192 weights whole. Two tables of 131,072,000 weights: half; last norm 4,096 whole.
    # 8 x 2 x 32,768 / 2 heads' worth of cache: 131,072 bytes a token, half of it on a rank
    split_up = 32 * (33_554_432 + 8_388_608 + 1_409_286_144) + 2 * 131_072_000
    whole = 32 * (32_768 + 8_192) + 4_096
    found = fit(MIXTRAL, read_machine("2xh100"), Parallelism(tp=2), context=1000, concurrency=3, reserve=NONE)
    assert sum(found.budget.weights.values()) == 2 * (split_up / 2 + whole)
    assert found.budget.cache == 3 * 1000 * 131_072 / 2
    # one token of prompt: 2 bytes x (2 x 4096 + the widest: 2 experts x (3 x 14336 + 4096) / 2 ranks); logits 3 x 32,000 x 4 bytes
    assert found.budget.activations == 2 * (8192 + 2 * (43_008 + 4096) / 2) + 4 * 3 * 32_000
    assert found.fits


def test_caches_by_parallelism() -> None:
    deepseek, qwen = need_model("deepseek-r1").model, need_model("qwen3-30b-a3b").model
    token = 61 * 576 * 2
    assert cache_per_device(deepseek, Parallelism(tp=8), 1, 16) == [token]  # every rank holds the latent
    assert cache_per_device(qwen, Parallelism(tp=8), 1, 16) == [48 * 2 * 128 * 2]  # 4 KV heads: one on each rank, twice
    assert cache_per_device(qwen, Parallelism(tp=8, attention_dp=8, ep=8), 1, 16) == [48 * 4 * 2 * 128 * 2]
    assert cache_per_device(qwen, Parallelism(pp=5), 1, 8) == [n * 4 * 2 * 128 for n in (9, 10, 9, 10, 10)]
    # attention data parallelism gives each rank an eighth of the sequences, and so room for more of a latent cache
    machine, weights = read_machine("8xh200"), weigh(deepseek, "fp8")
    alone = fit(weights, machine, Parallelism(tp=8), context=8192, concurrency=1)
    spread_out = fit(weights, machine, Parallelism(tp=8, attention_dp=8, ep=8), context=8192, concurrency=1)
    assert spread_out.max_concurrency > 5 * alone.max_concurrency


@settings(max_examples=40)
@given(st.sampled_from(NAMES), st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 300), st.integers(1, 300))
def test_fitting_is_monotone(name: str, context: int, more_context: int, concurrency: int, more: int) -> None:
    weights, machine = weigh(need_model(name).model, "fp8"), read_machine("2xh100")

    def left(tokens: int, sequences: int) -> float:
        return fit(weights, machine, Parallelism(tp=2), context=tokens, concurrency=sequences).budget.left

    assert left(context + more_context, concurrency) <= left(context, concurrency)
    assert left(context, concurrency + more) <= left(context, concurrency)


@pytest.mark.parametrize("name", ["mixtral-8x7b", "gpt-oss-20b", "qwen3-30b-a3b"])
def test_the_largest_is_the_largest(name: str) -> None:
    weights, machine = weigh(need_model(name).model, "fp8"), read_machine("h100")

    def answer(context: int, concurrency: int) -> Fit:
        return fit(weights, machine, Parallelism(), context=context, concurrency=concurrency)

    found = answer(4096, 64)
    assert found.max_concurrency > 0
    assert answer(4096, found.max_concurrency).fits
    assert not answer(4096, found.max_concurrency + 1).fits
    assert 0 < found.max_context <= weights.model.max_context
    assert answer(found.max_context, 64).fits
    if found.max_context < weights.model.max_context:
        assert not answer(found.max_context + 1, 64).fits


def test_what_cannot_be_is_refused_with_the_reason() -> None:
    model = need_model("qwen1.5-moe-a2.7b").model
    assert "60 experts cannot be divided equally among 8 ranks" in (problem(model, Parallelism(tp=8, ep=8)) or "")
    assert "32 heads cannot" in (problem(need_model("mixtral-8x7b").model, Parallelism(tp=3)) or "")
    assert "does not divide" in (problem(model, Parallelism(tp=2, ep=4)) or "")
    assert "no experts" in (problem(need_model("qwen3-8b").model, Parallelism(tp=2, ep=2)) or "")
    assert "stages" in (problem(model, Parallelism(pp=25)) or "")
    with pytest.raises(UserError, match="16 heads cannot"):
        fit(weigh(model, "f16"), read_machine("3xh100"), Parallelism(tp=3), context=10, concurrency=1)
    with pytest.raises(UserError, match="= 8 devices, but the hardware has 4"):
        fit(MIXTRAL, read_machine("4xh100"), Parallelism(tp=4, dp_replicas=2), context=10, concurrency=1)


def test_reasons_hold_the_numbers() -> None:
    found = fit(MIXTRAL, read_machine("h100"), Parallelism(), context=1024, concurrency=1)
    assert not found.fits
    assert (found.max_context, found.max_concurrency) == (0, 0)
    assert "weights 93.4 GB + KV cache 0.1 GB" in (found.why_not or "")
    long = fit(MIXTRAL, read_machine("4xh100"), Parallelism(tp=4), context=40_000, concurrency=1)
    assert "supports 32,768 tokens" in (long.why_not or "")


def test_smallest_hardware() -> None:
    asked = fit(MIXTRAL, read_machine("h100"), Parallelism(), context=1024, concurrency=1)
    found = smallest(asked, devices().values())
    counts = {each.machine.device.name: each.machine.count for each in found}
    assert (counts["h100-sxm-80gb"], counts["h200-sxm-141gb"], counts["rtx-4090-24gb"]) == (2, 1, 8)
    sizes = [each.machine.count * each.machine.device.memory for each in found]
    assert sizes == sorted(sizes)
    assert all(each.fits for each in found)


def test_offload_takes_no_more_than_it_must() -> None:
    asked = fit(SCOUT, read_machine("1xrtx4090+128gb"), Parallelism(), context=4096, concurrency=1)
    assert not asked.fits
    by_layer, by_expert, whole = most_on_device(asked)
    for found, less in (
        (by_layer, Offload(expert_layers=by_layer.offload.expert_layers - 1)),
        (by_expert, Offload(kept=(by_expert.offload.kept or 0) + 1)),
        (whole, Offload(blocks=whole.offload.blocks - 1)),
    ):
        assert found.fits
        again = fit(SCOUT, asked.machine, Parallelism(), context=4096, concurrency=1, offload=less)
        assert not again.fits
    # 37 of 48 layers' experts: 58.5 GB x 37/48
    assert by_layer.budget.host == pytest.approx(SCOUT.of(Role.EXPERT) * by_layer.offload.expert_layers / 48)
    small_host = fit(SCOUT, read_machine("1xrtx4090+16gb"), Parallelism(), context=4096, concurrency=1, offload=by_layer.offload)
    assert "the host has 16.0 GB" in (small_host.why_not or "")
    assert most_on_device(fit(SCOUT, read_machine("2xh100+64gb"), Parallelism(tp=2), context=4096, concurrency=1)) == []


def test_spread() -> None:
    assert choose_parallelism(8, tp=None, dp_replicas=2) == Parallelism(tp=4, dp_replicas=2)
    assert choose_parallelism(8, tp=4, ep=0) == Parallelism(tp=4, ep=4)
    assert choose_parallelism(8, tp=None, ep=2) == Parallelism(tp=8, ep=2)


# -- the command -----------------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(bench, ["fit", *arguments], standalone_mode=False)
    if done.exception:
        raise done.exception
    return int(done.return_value), done.stdout


def test_command_fits() -> None:
    asked = ("llama4-scout", "--hardware", "4xh100", "--precision", "fp8", "--context", "32k", "--concurrency", "64", "--tp", "4", "--ep")
    code, text = run(*asked)
    assert code == Exit.OK
    assert "tp=4 ep=4, 64 x 32,768 tokens" in text
    assert "It fits." in text
    assert "77 sequences of 32,768 tokens" in text
    code, text = run(*asked, "--json")
    data: dict[str, Any] = json.loads(text)
    assert data["fits"]
    assert data["parallelism"] == {"tp": 4, "pp": 1, "dp_replicas": 1, "attention_dp": 1, "ep": 4}
    assert sum(data["weights_bytes"].values()) + data["cache_bytes"] + data["activations_bytes"] + data["runtime_bytes"] + data[
        "left_bytes"
    ] == pytest.approx(data["usable_bytes"])


def test_both_counts_of_active_weights_are_in_text_and_json() -> None:
    code, text = run("gpt-oss-20b", "--hardware", "1xh100")
    assert "3.61 active and 0.58 in the input table" in text
    code, text = run("gpt-oss-20b", "--hardware", "1xh100", "--json")
    data: dict[str, Any] = json.loads(text)
    assert code == Exit.OK
    assert data["active"] / 1e9 == pytest.approx(4.19, abs=0.005)
    assert data["active_without_input_table"] / 1e9 == pytest.approx(3.61, abs=0.005)


def test_command_does_not_fit() -> None:
    code, text = run("llama4-scout", "--hardware", "1xrtx4090+128gb", "--precision", "q4_k_m", "--context", "4k")
    assert code == Exit.THRESHOLD
    assert "It does not fit: weights 65.3 GB" in text
    assert "--cpu-experts 35" in text
    code, text = run("llama4-scout", "--hardware", "1xrtx4090+128gb", "--precision", "q4_k_m", "--context", "4k", "--cpu-experts", "37")
    assert code == Exit.OK
    assert "on the host" in text


def test_command_refuses() -> None:
    for arguments, why in (
        (("scout", "--hardware", "h1000"), "unknown device 'h1000'"),
        (("scot", "--hardware", "h100"), "unknown model 'scot'"),
        (("scout", "--hardware", "h100", "--precision", "q4"), "precision 'q4'"),
        (("scout", "--hardware", "h100", "--context", "many"), "invalid count 'many'"),
    ):
        with pytest.raises(UserError, match=why):
            run(*arguments)
