"""Each kind of claim with the figure that decides it, with the catalogues of models and devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from enginebench.audit.examine import audit_claims
from enginebench.audit.finding import Finding
from enginebench.audit.physics import Physics
from enginebench.audit.reading import read_claims
from enginebench.audit.statements import judge_all
from enginebench.audit.terminal import Contents, outstanding
from enginebench.errors import UserError
from enginebench.physics.catalogue import find_model

IMPOSSIBLE = "impossible as stated"
SCOUT = {"model": "llama4-scout", "precision": "f16", "hardware": "4xh100", "tp": 4}


def judged(tmp_path: Path, physics: Physics | None = None, **sections: list[dict[str, Any]]) -> list[Finding]:
    file = tmp_path / "claims.yaml"
    entries = {name: [{"source": "A", **entry} for entry in each] for name, each in sections.items()}
    file.write_text(yaml.safe_dump({"sources": {"A": {"title": "a text"}}, **entries}))
    return list(judge_all(read_claims(file), physics or Physics()))


def speed(tmp_path: Path, **given: Any) -> Finding:
    return judged(tmp_path, serving=[{"id": "it", **given}])[0]


# -- speeds ----------------------------------------------------------------------------------------------------------------------


def test_115_tokens_on_an_m3_ultra_are_impossible_in_bf16_and_ordinary_in_mxfp4(tmp_path: Path) -> None:
    # 819 GB/s / (3.61e9 x 2 bytes) = 113.5; with experts of 4.25 bits 220.9
    asked = {"model": "gpt-oss-20b", "hardware": "m3-ultra-512gb", "concurrency": 1, "output_tok_s": 115}
    found = speed(tmp_path, **asked, precision="bf16")
    assert (found.verdict, found.decides) == ("impossible as stated", ("precision",))
    assert "at most 113.5 tok/s" in found.reasons[0]
    assert "one stream could reach 220.9 tok/s, and the claim is 52% of that" in found.reasons[1]
    assert speed(tmp_path, **asked, precision="mxfp4").verdict == "plausible"


def test_the_skew_of_a_source_stands_beside_the_bound_and_even_routing(tmp_path: Path) -> None:
    hot = {"says": "2-3 of 16 take 60-80 %", "model": "llama-4-scout", "experts": [2, 3], "share": [0.6, 0.8]}
    found = judged(tmp_path, serving=[{"id": "it", **SCOUT, "ep": 4, "output_tok_s": 5100}], hot_experts=[hot])
    # 2 take 40 % each, 14 take 1.4 %: 50 tokens touch 2 + 14 (1 - 0.9857^50) = 9.2 experts
    assert (found[0].least, found[0].least_even, found[0].decides) == (13, 81, ("batch", "routing"))
    assert "50 do with this routing: 2 experts take 80%, as the source states" in found[0].reasons[0]
    assert "3.20x to 6.40x" in found[1].reasons[0]


def test_a_ratio_at_a_batch_that_no_rate_states_is_not_contradicted(tmp_path: Path) -> None:
    speeds = [{"id": "a", **SCOUT, "output_tok_s": 5100}, {"id": "b", **SCOUT, "output_tok_s": 4500}]
    grows = {"says": "15-25 % at batch 64", "a": "a", "b": "b", "stated_range": [1.15, 1.25], "concurrency": 64}
    found = judged(tmp_path, serving=speeds, ratios=[grows])[2]
    assert (found.verdict, found.decides) == ("plausible", ("batch", "routing"))
    assert "4,076 if all experts are used equally" in found.reasons[1]
    at_64 = [{**each, "concurrency": 64} for each in speeds]
    assert judged(tmp_path, serving=at_64, ratios=[grows])[2].verdict == "inconsistent"  # 5100 / 4500 = 1.13


def test_the_batch_and_the_requests_in_flight_are_two_figures(tmp_path: Path) -> None:
    found = speed(
        tmp_path,
        **{**SCOUT, "hardware": "8xh100", "tp": 8},
        output_tok_s=1850,
        batch=16,
        concurrency=64,
        ms_per_token=18,
        bandwidth_used_pct=62,
    )
    assert found.verdict == "inconsistent"
    assert (
        found.reasons[0] == "16 streams at 18 ms per token give 889 tok/s, not 1,850; it would take 33, and 64 in flight would give 3,556"
    )
    # 8 x 3,350 GB/s x 62 % x 18 ms = 299 GB, of 215.5
    assert any("are 299 GB, but all weights and the cache are 216 GB" in reason for reason in found.reasons)


def test_a_prompt_takes_its_time(tmp_path: Path) -> None:
    asked = {"model": "mixtral-8x7b", "precision": "bf16", "hardware": "1xh200", "isl": 4096}
    # 4,096 tokens x 12.7e9 weights x 2 operations at 989 TFLOPS are 106 ms
    found = speed(tmp_path, **asked, ttft_ms=40)
    assert found.verdict == "impossible as stated"
    assert "a prompt of 4,096 tokens takes 1" in found.reasons[0]
    assert speed(tmp_path, **asked, ttft_ms=250).verdict == "plausible"
    fast = speed(tmp_path, **asked, prefill_tok_s=100_000)
    assert (fast.verdict, "prefill reaches at most" in fast.reasons[0]) == ("impossible as stated", True)


def test_prices_imply_a_rate_and_must_agree_with_one(tmp_path: Path) -> None:
    asked = {"model": "llama-3.1-70b", "precision": "fp8", "hardware": "2xh100", "price_per_hour": 2.50}
    implied = speed(tmp_path, **asked, price_per_million=0.50)
    assert implied.stated == pytest.approx(5.0 / 0.50 * 1e6 / 3600)  # 2,778 tok/s
    assert implied.reasons[1] == "5 per hour and 0.5 per million tokens are 2,778 tok/s"
    wrong = speed(tmp_path, **asked, price_per_million=0.50, output_tok_s=1000)
    assert (wrong.verdict, wrong.reasons[0]) == ("inconsistent", "5 per hour for 1,000 tok/s are 1.39 per million tokens, not 0.5")


def test_a_stated_host_bandwidth_decides(tmp_path: Path) -> None:
    asked = {"model": "deepseek-r1", "precision": "q4_k_m", "engine": "llamacpp", "hardware": "1xrtx-4090+512gb", "placement": "host",
             "options": {"cpu_moe": True}, "concurrency": 1}  # fmt: skip
    assert speed(tmp_path, **asked, output_tok_s=14, host_gb_s=307.2).verdict == "plausible"  # 12.4 GB a token: 201 GB/s
    slow = speed(tmp_path, **asked, output_tok_s=14, host_gb_s=89.6)  # 89.6 / 12.4 = 7.2 tok/s
    assert slow.verdict == "impossible as stated"
    assert "at most 7.2" in slow.reasons[0]
    assert speed(tmp_path, **asked, output_tok_s=14).verdict == "not enough stated"


def test_a_bandwidth_is_enough_of_an_unknown_device(tmp_path: Path) -> None:
    asked = {
        "model": "qwen3-30b-a3b",
        "precision": "q4_k_m",
        "engine": "llamacpp",
        "hardware": "a new chip",
        "concurrency": 1,
        "bandwidth_gb_s": 100,
    }
    # 1.92 GB a token
    assert speed(tmp_path, **asked, output_tok_s=40).verdict == "plausible"
    assert speed(tmp_path, **asked, output_tok_s=60).verdict == "impossible as stated"
    without = {key: value for key, value in asked.items() if key != "bandwidth_gb_s"}
    assert speed(tmp_path, **without, output_tok_s=40).verdict == "not known here"


def test_engines_that_keep_weights_on_the_devices_unless_told_otherwise(tmp_path: Path) -> None:
    asked = {"model": "llama4-scout", "precision": "bf16", "hardware": "2xh100", "output_tok_s": 100}
    found = speed(tmp_path, **asked, engine="vllm")
    assert found.verdict == IMPOSSIBLE
    assert found.reasons[0].startswith("the weights take 215.5 GB, 2xh100 has 171.0 GB; vllm keeps all of them there")
    assert speed(tmp_path, **asked, engine="llamacpp").verdict == "not enough stated"
    assert speed(tmp_path, **asked).verdict == "not enough stated"
    assert speed(tmp_path, **asked, engine="vllm", options={"cpu_offload_gb": 60}).verdict == "not known here"


def test_memory_that_no_precision_needs(tmp_path: Path) -> None:
    asked = {"model": "llama4-maverick", "hardware": "1xh100", "output_tok_s_range": [1, 2], "device_memory_gb": 40}
    found = speed(tmp_path, **asked)
    assert found.verdict == "not enough stated"
    assert "40 GB for 400.7B parameters are 0.8 bits per weight, less than any precision has" in found.reasons[1]
    dense = speed(tmp_path, **{**asked, "model": "dense-109b", "device_memory_gb": 45})
    assert "45 GB for 109.1B parameters are 3.3 bits per weight: q2_k" in dense.reasons[1]


def test_an_option_whose_effect_is_unknown_is_our_gap(tmp_path: Path) -> None:
    assert speed(tmp_path, **SCOUT, output_tok_s=5, concurrency=1, options={"cpu_offload_gb": 8}).verdict == "not known here"


# -- statements ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "entry", "verdict", "figure"),
    [
        ("compute", {"model": "llama4-maverick", "times": 20}, "plausible", "23x to 27x less"),  # 400.7 / 17.2
        ("compute", {"model": "llama4-scout", "times": 20}, "inconsistent", "6.28x to 7.14x less"),  # 107.8 / 17.2
        ("compute", {"model": "llama4-maverick", "times": 24, "than": "dense-405b"}, "plausible", "less than dense-405b"),
        ("expert_sizes", {"model": "llama4-scout", "b": 6}, "plausible", "in all 48 layers with experts an expert has 6.04"),
        ("expert_sizes", {"model": "llama4-scout", "b": 6.8}, "inconsistent", "6.04"),
        ("expert_sizes", {"model": "llama4-maverick", "b": 3.02}, "plausible", "in all 24 layers"),
        ("expert_sizes", {"model": "mixtral-8x7b", "precision": "fp8", "gb": 5.6}, "plausible", "5.64 GB in fp8"),
        ("expert_sizes", {"model": "qwen3-8b", "b": 1}, "not enough stated", "is a dense model"),
        ("fits", {"model": "llama4-maverick", "hardware": "1xh100", "gb": 40, "fits": True}, IMPOSSIBLE, "78.8 GB, 40 GB are stated"),
        ("fits", {"model": "llama4-scout", "hardware": "1xh100", "gb": 40, "fits": True}, "not enough stated", "q2_k (39.6 GB) fits"),
        ("fits", {"model": "llama4-scout", "hardware": "1xrtx-4090", "gb": 40, "fits": True}, IMPOSSIBLE, "has 25.8 GB, not 40"),
        ("fits", {"model": "llama4-scout", "precision": "f16", "hardware": "h100", "needs": 4}, "plausible", "3 hold them"),
        ("fits", {"model": "llama4-scout", "precision": "f16", "hardware": "h100", "needs": 2}, IMPOSSIBLE, "3 hold them, not 2"),
        ("fits", {"model": "llama4-scout", "precision": "f16", "hardware": "h100", "needs": 16}, "inconsistent", "16 are not needed"),
        ("fits", {"model": "deepseek-v3", "hardware": "h100", "needs": 8}, "plausible", "673.0 GB in fp8"),
        ("fits", {"model": "dense-405b", "hardware": "h100", "needs": 8}, "not enough stated", "not stated: precision"),  # fp8, not f16
        ("fits", {"model": "dense-405b", "hardware": "rtx-4090", "needs": 1}, IMPOSSIBLE, "GB in f16"),
        ("compute", {"model": "llama4-scout", "times": 1, "than": "dense-17b"}, "plausible", "less than dense-17b"),
        ("fits", {"model": "deepseek-v3", "precision": "fp8", "hardware": "h100", "needs": 16}, "not enough stated", "8 leave 11.2 GB"),
        ("fits", {"model": "mixtral-8x7b", "precision": "f16", "hardware": "2xh100", "context": 32768, "concurrency": 32, "fits": True},
         IMPOSSIBLE, "cache 137.4 GB"),
        ("fits", {"model": "gpt-oss-20b", "hardware": "1xh100", "fits": False}, "inconsistent", "13.8 GB"),
        ("kv_cache", {"model": "deepseek-v3", "kb": 516}, "inconsistent", "70.3 KB, not 516 KB"),
        ("kv_cache", {"model": "mixtral-8x7b", "tokens": 32768, "kv_dtype": "fp8", "gb": 2.15}, "plausible", "2.15 GB"),
        ("models", {"model": "llama4-scout", "layers": 32}, "inconsistent", "48 layers, not 32"),
        ("hot_experts", {"model": "mixtral-8x7b", "experts": [1, 1], "share": [0.9, 0.9]}, IMPOSSIBLE, "50% of the choices at most"),
        ("features", {"engine": "vllm", "has": ["tensor parallel", "fp8"]}, "plausible", "tp: 2"),
        ("features", {"engine": "llamacpp", "has": ["telepathy"]}, "not known here", "no option for: telepathy"),
        ("features", {"engine": "nobody", "has": ["fp8"]}, "not known here", "no adapter"),
    ],
)  # fmt: skip
def test_statements(tmp_path: Path, section: str, entry: dict[str, Any], verdict: str, figure: str) -> None:
    says = {} if section in ("models", "features") else {"says": "as written"}
    found = judged(tmp_path, **{section: [{**says, **entry}]})[0]
    assert (found.verdict, figure in found.reasons[0]) == (verdict, True), found.reasons


def test_the_size_of_another_model_of_the_family(tmp_path: Path) -> None:
    found = judged(tmp_path, models=[{"model": "mixtral-9", "total_b": 46.7, "active_b": 40}])[0]
    assert found.verdict == "inconsistent"
    assert "46.7B parameters are those of mixtral-8x7b, of which a token uses 13B, not 40B" in found.reasons[0]
    assert judged(tmp_path, models=[{"model": "newest-9", "total_b": 46.7}])[0].verdict == "not known here"


def test_what_is_furthest_off_comes_first(tmp_path: Path) -> None:
    speeds = [{"id": name, **SCOUT, "concurrency": 1, "output_tok_s": rate} for name, rate in (("near", 500), ("far", 5000), ("right", 40))]
    found = judged(tmp_path, serving=speeds, models=[{"model": "llama4-scout", "active_b": 52}])
    assert found[1].off_by == pytest.approx(5000 / 414.8, rel=1e-2)
    assert [each.id for each in outstanding(Contents(None, "", found, (), {}, ""))] == ["far", "A: facts of llama4-scout"]


# -- routing that was asked for --------------------------------------------------------------------------------------------------


def test_routing_that_is_asked_for_stands_beside_the_bound(tmp_path: Path) -> None:
    hot = [{"says": "hot", "model": "llama4-scout", "experts": [2, 3], "share": [0.6, 0.8]}]
    zipf = Physics(routing="zipf:1.0")
    found = judged(tmp_path, zipf, serving=[{"id": "it", **SCOUT, "output_tok_s": 5100}], hot_experts=hot)
    assert "with this routing: Zipf routing, exponent 1" in found[0].reasons[0]
    assert found[1].verdict == "not enough stated"  # an assumption decides nothing


def test_a_routing_that_there_is_not_is_a_mistake_of_the_command(tmp_path: Path) -> None:
    file = tmp_path / "claims.yaml"
    file.write_text(
        yaml.safe_dump({"sources": {"A": {"title": "t"}}, "models": [{"source": "A", "model": "llama4-scout", "total_b": 109}]})
    )
    with pytest.raises(UserError, match="no such file"):
        audit_claims(file, routing="nonsense")
    assert audit_claims(file, routing="captured").counts == {"plausible": 1}


@pytest.mark.skipif(find_model("grok-1") is None, reason="the catalogue has no grok-1")
def test_grok_3_is_given_the_size_of_grok_1(tmp_path: Path) -> None:
    found = judged(tmp_path, models=[{"model": "grok-3", "total_b": 314, "active_b": 50}])[0]
    assert found.verdict == "inconsistent"
    assert "314B parameters are those of grok-1, of which a token uses 84B, not 50B" in found.reasons[0]
