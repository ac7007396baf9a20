"""What physics says beside a plan and beside a figure: paper cases, what is unknown, and that a ceiling is one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from enginebench.cli import bench
from enginebench.domain import JSON, ClosedLoop, Deployment, OpenLoop, Parallelism, TraceReplay
from enginebench.engines.registry import discover
from enginebench.errors import UserError
from enginebench.machine.accelerators import Gpu
from enginebench.machine.folders import resource_dir
from enginebench.physics import Device, Machine, decode, read_machine
from enginebench.physics.deployment_limits import MachineLimits, weights_of
from enginebench.physics.detect import BANDWIDTH, local_machine, machine_of_run, stated_machine
from enginebench.physics.memory_need import UnknownLimit
from enginebench.physics.placement import Placement, placement_of
from enginebench.scenario import load_scenario
from enginebench.scenario.plan import plan
from enginebench.workload.lengths import Lengths
from hypothesis import given
from hypothesis import strategies as st

REGISTRY = discover()
DENSE = "random:qwen3moe?layers=2&hidden=256&heads=4&kv_heads=2&head_dim=64&experts=2&top_k=2&expert_intermediate=256"
"""Every token takes both experts, so that every step reads the same."""
H100 = read_machine("4xh100")
SCOUT = Deployment("vllm", "llama4-scout", "bf16", "", parallelism=Parallelism(tp=4), max_context=2048)


def machine(gb_s: float = 1.0, gb: float = 100.0) -> Machine:
    """Memory alone is a limit here: arithmetic takes no time."""
    return Machine(Device("paper", gb * 1e9, gb_s * 1e9, {"bf16": math.inf}, cache=0.0))


# -- where weights lie -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, Placement()),
        ({"kv_type": "q8_0", "n_cpu_moe": 44, "ubatch": 2048}, Placement(kv_bits=8.5, expert_layers=44, kv_stated=True)),
        ({"cpu_moe": True}, Placement(expert_layers=None)),
        ({"gpu_layers": 8}, Placement(device_layers=8)),
        ({"gpu_layers": "all", "kv_dtype": "fp8_e4m3"}, Placement(kv_bits=8.0, kv_stated=True)),
        ({"k_bits": 4, "v_bits": 6}, Placement(kv_bits=5.5, kv_stated=True)),
        ({"kv_dtype": "auto", "eplb": {"num_redundant_experts": 32}}, Placement(redundant=32)),
        ({"eplb": {"redundant_experts": 16}}, Placement(redundant=16)),
        ({"disaggregated": {"prefill": 1, "decode": 2}}, Placement(prefill=1, decode=2)),
        ({"disaggregated": True}, Placement(prefill=1)),
        ({"speculative": {"method": "ngram"}}, Placement(speculative=True)),
    ],
)
def test_options_that_are_called_alike_say_where_weights_lie(options: dict[str, object], expected: Placement) -> None:
    assert placement_of(options) == expected


@pytest.mark.parametrize("options", [{"cpu_offload_gb": 20}, {"extra": ["--swa-full"]}, {"kv_offload": False}, {"kv_type": "q3_odd"}])
def test_a_placement_that_is_not_understood_is_unknown(options: dict[str, object]) -> None:
    assert isinstance(placement_of(options), str)


def test_what_the_engine_says_of_its_cache_goes_first() -> None:
    assert placement_of({"kv_type": "f16"}, "q8_0") == Placement(kv_bits=8.5, kv_stated=True)


def test_every_offloading_option_of_an_adapter_is_either_read_or_makes_the_placement_unknown() -> None:
    # The convention holds only as long as no adapter calls such an option by a name of its own.
    words = ("offload", "cpu_moe", "gpu_layers", "cpu_experts", "cpu_layers")
    silent = {"op_offload", "kv_offload_gb", "cpu_offload_params"}  # where it is computed, a second cache, which of cpu_offload_gb
    for name, adapter in REGISTRY.items():
        for option in adapter.options.__dataclass_fields__:  # type: ignore[attr-defined]  # a dataclass
            if any(word in option for word in words) and option not in silent:
                said = placement_of({option: False if option == "kv_offload" else 3})
                assert said != Placement(), (name, option)


# -- does it fit -------------------------------------------------------------------------------------------------------------------


def test_scout_on_h100_is_refused_with_the_numbers() -> None:
    # 107.8 billion weights x 2 bytes / 2 GPUs = 107.8 GB on each, against 85.5.
    narrow = replace(SCOUT, parallelism=Parallelism(tp=2))
    load = ClosedLoop(concurrency=1, input_tokens=1792, output_tokens=256)
    (reason,) = MachineLimits(H100).refusals(narrow, [load], 2).values()
    assert "weights 107.8 GB" in reason
    assert "85.5 GB of a h100-sxm-80gb" in reason
    assert not MachineLimits(H100).refusals(SCOUT, [load], 4)


def test_a_load_is_refused_when_its_streams_do_not_fit_together() -> None:
    # 4 KiB of cache per token and layer in 16 bits, a quarter on each GPU; 12 layers see all 16,384 tokens and 36 a chunk of 8,192:
    # 64 x 1 KiB x (12 x 16,384 + 36 x 8,192) = 32.2 GB, beside 53.9 GB of weights.
    light, heavy = (ClosedLoop(concurrency=streams, input_tokens=16128, output_tokens=256, requests=64) for streams in (16, 64))
    found = MachineLimits(H100).refusals(replace(SCOUT, max_context=16384), [light, heavy], 4)
    assert list(found) == [heavy]
    assert "KV cache 32.2 GB" in found[heavy]
    assert "64 streams of 16,384 tokens" in found[heavy]


def test_a_deployment_must_hold_one_request_as_long_as_it_was_told_to() -> None:
    # 10 million tokens in 12 layers x 1 KiB = 123 GB, whatever the load sends.
    found = MachineLimits(H100).refusals(replace(SCOUT, max_context=10_000_000), [ClosedLoop(requests=4)], 4)
    assert "one stream of 10,000,000 tokens" in next(iter(found.values()))


def test_more_devices_than_there_are_is_a_reason() -> None:
    assert set(MachineLimits(H100).refusals(SCOUT, [ClosedLoop()], 8).values()) == {"needs 8 GPUs, 4x h100-sxm-80gb has 4"}


def test_experts_in_the_hosts_memory_need_room_there_and_not_on_the_card() -> None:
    offloading = Deployment("llamacpp", "llama4-scout", "q4_k_m", "", options={"n_cpu_moe": 48})
    load = ClosedLoop(concurrency=1, input_tokens=512, output_tokens=128)
    assert not MachineLimits(read_machine("1xrtx4090+96gb")).refusals(offloading, [load], 1)
    assert "the host has 32.0 GB" in next(iter(MachineLimits(read_machine("1xrtx4090+32gb")).refusals(offloading, [load], 1).values()))
    with pytest.raises(UnknownLimit, match="but its size is not stated"):
        MachineLimits(read_machine("rtx4090")).of(offloading).need(load)
    assert not MachineLimits(read_machine("rtx4090")).refusals(offloading, [load], 1), "unknown is no reason"


def test_nothing_is_refused_for_want_of_room_to_work_in_alone() -> None:
    # Some MB of weights and hardly any cache: the 3 GB that engines are thought to take do not fit 1 GB, and that is only said.
    small = Deployment("vllm", "dense", "bf16", DENSE)
    need = MachineLimits(machine(gb=1.0)).of(small).need(ClosedLoop(requests=4))
    assert not need.fit.fits
    assert not need.impossible
    assert not MachineLimits(machine(gb=1.0)).refusals(small, [ClosedLoop(requests=4)], 1)


def test_replicas_that_share_their_experts_out_count_as_vllm_has_them() -> None:
    # Maverick in FP8 is 400 GB. Two whole copies on four H100 each do not fit; with experts over all eight, 50 GB a GPU do.
    spread = Parallelism(tp=4, dp_replicas=2, ep=8)
    need = (
        MachineLimits(read_machine("8xh100"))
        .of(Deployment("vllm", "llama4-maverick", "fp8", "", parallelism=spread))
        .need(ClosedLoop(requests=4))
    )
    assert not need.impossible
    assert sum(need.fit.budget.weights.values()) == pytest.approx(52e9, rel=0.1)


@pytest.mark.parametrize(
    "deployment",
    [
        replace(SCOUT, runtime="attach"),
        Deployment("vllm", "nobody-knows", "bf16", "some/model"),
        replace(SCOUT, options={"cpu_offload_gb": 10}),
        replace(SCOUT, parallelism=Parallelism(tp=3)),
    ],
)
def test_what_cannot_be_known_is_unknown_and_never_refused(deployment: Deployment) -> None:
    with pytest.raises(UnknownLimit):
        MachineLimits(H100).of(deployment).need(ClosedLoop())
    assert not MachineLimits(H100).refusals(deployment, [ClosedLoop(concurrency=10_000, requests=10_000)], 4)


def test_a_hub_id_counts_in_the_precision_that_was_asked_for() -> None:
    native, wide = (weights_of("mine", name, "openai/gpt-oss-20b") for name in ("mxfp4", "bf16"))
    assert native is not None
    assert wide is not None
    assert wide.bytes == pytest.approx(2 * wide.model.params)
    assert native.bytes < 0.4 * wide.bytes


# -- how fast at most --------------------------------------------------------------------------------------------------------------


def dense(gb_s: float = 1.0) -> tuple[MachineLimits, Deployment, float]:
    """MachineLimits, a dense deployment, and the bytes that one step reads without any cache."""
    found = weights_of("dense", "bf16", DENSE)
    assert found is not None
    bounds, deployment = MachineLimits(machine(gb_s)), Deployment("vllm", "dense", "bf16", DENSE)
    return bounds, deployment, sum(decode(bounds.of(deployment).settings[0], 1, 0).bytes.values())


def test_a_single_stream_prefills_and_then_decodes() -> None:
    # Arithmetic is free, so a prompt takes one pass over the weights like any step: 1 + 63 passes for 64 tokens. The cache of
    # 2 layers x 2 heads x 64 x 2 (K, V) x 2 bytes = 1 KiB a token adds 63 x (128 + 32) KiB.
    bounds, deployment, weights = dense()
    cache = 63 * (128 + 32) * 1024
    found = bounds.of(deployment).ceiling((128, 64), 1)
    assert found == pytest.approx(64 / ((64 * weights + cache) / 1e9), rel=0.02)


def test_streams_share_the_reading_of_the_weights_until_each_waits_for_itself_alone() -> None:
    bounds, deployment, weights = dense()
    held = bounds.of(deployment)
    alone, four = held.ceiling((128, 64), 1), held.ceiling((128, 64), 4)
    assert 3 * alone < four <= 4 * alone
    many = held.ceiling((128, 64), 4096)
    assert many == pytest.approx(64 / (63 * (160 * 1024 + weights / 4096) / 1e9), rel=0.02), "then the cache alone rules"


def test_prompts_that_are_cached_take_no_time() -> None:
    bounds, deployment, _ = dense()
    held = bounds.of(deployment)
    allowed = ClosedLoop(prefix_cache="allowed")
    assert held.ceiling((128, 2), 1, allowed) == pytest.approx(2 * held.ceiling((128, 2), 1), rel=0.05), "two passes become one"


def test_a_prefix_that_requests_share_is_read_once() -> None:
    bounds, deployment, _ = dense()
    held = bounds.of(deployment)
    apart = ClosedLoop(prefix_cache="allowed")
    shared = ClosedLoop(prefix_cache="allowed", prefix_groups=1, prefix_tokens=4032)
    # 4,096 + 64 / 2 tokens a sequence; with the prefix each reads 96 of its own
    slow, fast = (held.ceiling((4096, 64), 1024, load) for load in (apart, shared))
    assert 30 < fast / slow < (4096 + 32) / 96
    recorded = ClosedLoop(prefix_cache="allowed", prompts="jsonl:prompts.jsonl")  # what its prompts share is not known
    assert held.ceiling((4096, 64), 1024, recorded) > fast


def test_drafted_tokens_have_no_ceiling_here() -> None:
    bounds, deployment, _ = dense()
    with pytest.raises(UnknownLimit, match="speculative decoding"):
        bounds.of(replace(deployment, options={"speculative": {"method": "ngram"}})).ceiling((128, 64), 1)


@given(st.integers(1, 256), st.integers(1, 4096), st.integers(2, 512), st.floats(1.01, 8))
def test_a_ceiling_rises_with_streams_and_bandwidth(streams: int, entered: int, made: int, factor: float) -> None:
    bounds, deployment, _ = dense()
    held, faster = bounds.of(deployment), MachineLimits(machine(factor)).of(deployment)
    found = held.ceiling((entered, made), streams)
    assert held.ceiling((entered, made), streams + 1) >= found * (1 - 1e-9)
    assert faster.ceiling((entered, made), streams) == pytest.approx(factor * found)


def test_the_least_time_of_a_load() -> None:
    bounds, deployment, _ = dense()
    held = bounds.of(deployment)
    assert held.least_s(OpenLoop(rate=2.0, requests=60)) == 30.0
    assert held.least_s(OpenLoop(rate=1.0, rate_to=3.0, requests=60)) == 30.0
    assert held.least_s(ClosedLoop(duration_s=7.0, requests=0)) == 7.0
    assert held.least_s(ClosedLoop(requests=10)) == pytest.approx(10 * 64 / held.ceiling((128, 64), 1))


def test_mean_lengths() -> None:
    assert Lengths.of(ClosedLoop(lengths="100+10*3, 500+50")).mean == (200.0, 20.0)
    assert Lengths.of(ClosedLoop(input_tokens="data")).mean is None
    assert Lengths.of(TraceReplay(trace="t.csv")).mean is None


# -- which machine -----------------------------------------------------------------------------------------------------------------


def test_gpus_here_have_the_memory_that_their_tool_tells_of() -> None:
    found = local_machine([Gpu("NVIDIA H100 80GB HBM3", 79 * 2**30)] * 2)
    assert found is not None
    assert (found.count, found.device.name, found.device.memory) == (2, "h100-sxm-80gb", 79 * 2**30)
    assert local_machine([Gpu("NVIDIA H100 80GB HBM3", 10 * 2**30)]) is None, "a slice of one"
    assert found.host is not None
    assert local_machine([]) is None
    assert local_machine([Gpu("Voodoo 2")]) is None


def test_a_machine_named_cpu_measures_nothing() -> None:
    assert stated_machine("cpu") is None
    assert stated_machine("any") is None
    with pytest.raises(UserError, match="unknown device"):
        stated_machine("4xh1000")


def test_what_is_stated_comes_before_what_was_there() -> None:
    facts: dict[str, JSON] = {"gpus": [{"name": "NVIDIA H200"}], "memory_bytes": 1e9, BANDWIDTH: 2e10}
    on_gpu, on_cpu = machine_of_run(facts, None, 1), machine_of_run(facts, "4xh100", 0)
    assert on_gpu is not None
    assert on_gpu.device.name == "h200-sxm-141gb"
    stated = machine_of_run(facts, "4xh100", 1)
    assert stated is not None
    assert stated.device.name == "h100-sxm-80gb"
    assert on_cpu is not None
    assert (on_cpu.device.name, on_cpu.device.bandwidth) == ("cpu", 2e10)
    elsewhere = machine_of_run({"gpus": []}, "4xh100", 4)
    assert elsewhere is not None
    assert elsewhere.count == 4
    assert machine_of_run({"gpus": [], "memory_bytes": 1e9}, None, 1) is None, "a processor that was not measured"
    assert machine_of_run({}, "gone-from-the-catalogue", 1) is None


# -- plans -------------------------------------------------------------------------------------------------------------------------


def test_the_scout_scenario_skips_what_cannot_be() -> None:
    scenario = load_scenario(resource_dir("scenarios") / "scout_4xh100.yaml", REGISTRY)
    found = plan(scenario, REGISTRY, MachineLimits(H100))
    skipped = {cell.deployment.label or cell.deployment.parallelism.tp for cell in found.cells if cell.id in found.skipped}
    assert skipped == {"disaggregated-tp4-8gpu", 2}
    assert found.id == plan(scenario, REGISTRY).id, "what fits does not change what is asked"


def test_a_plan_prints_what_fits_and_how_long_it_takes_at_least() -> None:
    text = CliRunner().invoke(bench, ["plan", "scout_4xh100", "--only", "label=disaggregated-tp4-8gpu", "--only", "engine=vllm"]).output
    assert "skip: needs 8 GPUs, 4x h100-sxm-80gb has 4" in text
    text = CliRunner().invoke(bench, ["plan", "maverick_8xh100", "--only", "engine=trtllm", "-v"]).output
    assert "fits: " in text
    assert " of 85.5 GB per GPU (weights " in text
    assert "at least " in text
    assert "$ docker run" in text
    data = json.loads(CliRunner().invoke(bench, ["plan", "maverick_8xh100", "--only", "engine=trtllm", "--json"]).stdout)
    assert data["hardware"] == "8x h100-sxm-80gb"
    assert data["least_s"] > 0
    assert data["launches"][0]["memory"]["fits"] is True


def test_other_hardware_can_be_named_or_none() -> None:
    text = CliRunner().invoke(bench, ["plan", "scout_4xh100", "--hardware", "8xh200", "--only", "engine=vllm"]).output
    assert "skip" not in text
    assert "of 8x h200-sxm-141gb" not in text
    assert "8x h200-sxm-141gb" in text
    assert "per GPU" not in CliRunner().invoke(bench, ["plan", "scout_4xh100", "--hardware", "any"]).output


def test_unknown_hardware_points_at_its_line(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(
        "name: s\nhardware: 4xh10O\nmodels: {m: {random_weights: {layers: 2, hidden: 64, heads: 2}}}\n"
        "deployments: [{engine: llamacpp, model: m, precision: f16}]\nloads: [{concurrency: 1}]\n",
        encoding="utf-8",
    )
    with pytest.raises(UserError) as found:
        load_scenario(file, REGISTRY)
    assert found.value.line == 2
    assert "h10o" in str(found.value).lower()
    assert "did you mean 'h100" in str(found.value)


@pytest.mark.parametrize("name", ["maverick_8xh100", "scout_2xmi300x", "scout_4xh100", "scout_m3ultra", "scout_rtx4090"])
def test_all_of_a_scenario_that_names_its_machine_is_understood(name: str) -> None:
    scenario = load_scenario(resource_dir("scenarios") / f"{name}.yaml", REGISTRY)
    assert scenario.hardware is not None
    found = stated_machine(scenario.hardware)
    assert found is not None
    for deployment, loads in zip(scenario.deployments, scenario.loads, strict=True):
        held = MachineLimits(found).of(deployment)
        assert held.ceiling((1792, 256), loads[0].concurrency) > 0
