"""A plain list of statements: the texts' own words, read as claims, with nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from enginebench.audit import phrases
from enginebench.audit.claims import Claims
from enginebench.audit.physics import Physics
from enginebench.audit.reading import read_claims
from enginebench.audit.statements import judge_all
from enginebench.errors import UserError

FILE = """\
# Source A: "A shift" (Somebody)     Source D: glossary page "Mixture of Experts"
serving:
  - {id: pd, source: A, engine: vllm 0.8, hardware: 4xH100-80GB, model: llama-4-scout, precision: fp16,
     config: "TP=4 + disaggregated prefill", output_tok_s: 4500, isl: 2048}
  - {id: host, source: A, engine: llama.cpp, hardware: 2xRTX4090 + 256 GB RAM, model: llama-4-scout, precision: q4, config: offloaded,
     output_tok_s: 11, concurrency: 1, cost: low}
  - {id: vague, source: C, hardware: 1xH100-80GB, model: llama-4-scout, precision: unstated, output_tok_s_range: [1, 2], gpu_memory_gb: 40}
ratios:
  - {source: A, says: three times, a: host, b: vague, stated: 5.5}
memory_gb:
  - {source: A, model: llama-4-scout, fp16: 220, q4: 62}
  - {source: A, says: "MI300X (192 GB) runs Scout FP16 on 2 GPUs, H100 needs 4", model: llama-4-scout, fp16: 220}
  - {source: A, says: it is large, model: llama-4-scout, fp8: 115}
models:
  - {source: D, model: llama-4-scout, total_b: 109, active_b: 17, experts: 16, top_k: 1, license: open}
hot_experts:
  - {source: A, model: llama-4-scout, says: "the top 2-3 of 16 experts per layer cover 60-80% of activations"}
  - {source: A, model: llama-4-scout, says: some experts are hot}
engine_features:
  vllm: [tensor parallel, fp8]
opinions:
  - {source: D, says: MoE is the future}
"""


@pytest.fixture
def claims(tmp_path: Path) -> Claims:
    file = tmp_path / "plain.yaml"
    file.write_text(FILE)
    return read_claims(file)


def test_words_become_keys(claims: Claims) -> None:
    disaggregated, hosted, vague = claims.serving
    assert (disaggregated.engine, disaggregated.engine_version, disaggregated.tp, disaggregated.copies) == ("vllm", "0.8", 2, 2)
    assert (hosted.engine, hosted.precision, hosted.placement) == ("llamacpp", "q4_k_m", "host")
    assert (vague.precision, vague.device_memory_gb, vague.says) == (None, 40, None)
    assert [(fit.hardware, fit.fits, fit.needs, fit.precision) for fit in claims.fits] == [
        ("2xmi300x", True, None, "fp16"),
        ("h100", None, 4, "fp16"),
    ]
    assert [(each.experts, each.share) for each in claims.hot_experts] == [([2, 3], [0.6, 0.8])]
    assert [each.gb for each in claims.weights] == [{"fp16": 220, "q4_k_m": 62}, {"fp8": 115}]


def test_sources_are_those_that_are_named(claims: Claims) -> None:
    assert {name: source.title for name, source in claims.sources.items()} == {
        "A": "A shift", "C": "source C", "D": "Mixture of Experts", "file": "the file itself",
    }  # fmt: skip
    assert claims.sources["A"].author == "Somebody"


def test_nothing_is_lost(claims: Claims) -> None:
    assert [each.says for each in claims.unread] == [
        "host: cost low",
        "it is large: model llama-4-scout, fp8 115",
        "llama-4-scout: license open",
        "some experts are hot: model llama-4-scout",
        "MoE is the future",
    ]
    findings = judge_all(claims, Physics())
    assert {finding.verdict for finding in findings if ": statement " in finding.id} == {"not known here"}
    found = {finding.id: finding.verdict for finding in findings}
    assert found["pd"] == "impossible as stated"  # two copies of 215.5 GB
    assert found["A: llama-4-scout on h100"] == "plausible"  # three hold 215.5 GB, tensor parallelism takes four
    assert found["file: features of vllm"] == "plausible"


@pytest.mark.parametrize(
    ("config", "devices", "keys"),
    [
        ("TP=4", 4, {"tp": 4}),
        ("EP=4, MoE-aware batch scheduling", 4, {"ep": 4, "tp": 4}),
        (
            "expert parallel + disaggregated prefill",
            4,
            {"ep": 2, "tp": 2, "copies": 2, "options": {"disaggregated": {"prefill": 1, "decode": 1}}},
        ),
        ("TP mode, single request", 4, {"concurrency": 1}),
        ("batch size 64", 1, {"concurrency": 64}),
        ("16 concurrent users", 1, {"concurrency": 16}),
        ("no expert offloading", 1, {}),
        ("hot experts on GPU (~15 GB), cold in CPU RAM (~47 GB)", 1, {"placement": "host", "device_gb": 15.0}),
        ("summary table says 'full GPU'", 1, {"placement": "devices"}),
        ("unified memory", 1, {}),
        ("projected for batch 8", 1, {"concurrency": 8, "projected": True}),
        ("experts on CPU, 8-channel DDR5-4800", 1, {"placement": "host", "options": {"cpu_moe": True}, "host_gb_s": 307.2}),
        ("with speculative decoding", 1, {"options": {"speculative": True}}),
    ],
)
def test_configurations(config: str, devices: int, keys: dict[str, Any]) -> None:
    assert phrases.setup_of(config, devices) == keys


@pytest.mark.parametrize(
    ("says", "found"),
    [
        (
            "MI300X (192 GB) runs Scout FP16 on 2 GPUs, H100 needs 4",
            [{"hardware": "2xmi300x", "fits": True}, {"hardware": "h100", "needs": 4}],
        ),
        ("Maverick FP8 needs 8xH100 at least", [{"hardware": "h100", "needs": 8}]),
        ("Scout 1.78-bit fits in a 24GB VRAM GPU", [{"gb": 24.0, "fits": True}]),
        ("gpt-oss-20b runs within 16 GB", [{"gb": 16.0, "fits": True}]),
        ("it needs a lot of memory", []),
        ("needs 4 GPUs", []),
    ],
)
def test_sentences_about_memory(says: str, found: list[dict[str, Any]]) -> None:
    assert list(phrases.memory_of(says)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("dual-channel DDR5-5600", 89.6),
        ("CPU with two channels of DDR4-2666", 42.656),
        ("12-channel DDR5-6000", 576.0),
        ("DDR5-5600", None),  # how many channels?
    ],
)
def test_bandwidths_of_memory(text: str, found: float | None) -> None:
    assert phrases.bandwidth_of(text) == pytest.approx(found)


@pytest.mark.parametrize(
    ("says", "found"),
    [
        ("13% faster", {"stated": 1.13}),
        ("grows to 15-25% at batch 64", {"stated_range": [1.15, 1.25]}),
        ("a 2.3x throughput", {"stated": 2.3}),
        ("three times", {}),
    ],
)
def test_ratios_in_words(says: str, found: dict[str, Any]) -> None:
    assert phrases.ratio_of(says) == found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1x NVIDIA GeForce RTX 4090", "1x RTX 4090"),
        ("MacBook Pro M4 Max 128GB", "M4 Max 128GB"),
        ("2xRTX4090 + 256 GB RAM", "2xRTX4090 + 256 GB RAM"),
    ],
)
def test_brands_are_left_out(text: str, name: str) -> None:
    assert phrases.hardware_of(text) == name


def test_a_mistake_in_a_plain_list_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "plain.yaml"
    file.write_text("models:\n  - {source: A, model: m}\nmemory_gb:\n  - {source: A, model: m,\n     fp16: much}\n")
    with pytest.raises(UserError) as caught:
        read_claims(file)
    assert (caught.value.line, caught.value.key) == (5, "weights[0].gb.fp16")
    assert "must be a number" in caught.value.message


def test_a_scenario_is_no_list_of_statements(tmp_path: Path) -> None:
    file = tmp_path / "scenario.yaml"
    file.write_text("name: x\nmodels: {m: {checkpoint: a/b}}\ndeployments: [{engine: vllm, model: m}]\nloads: [{concurrency: 1}]\n")
    with pytest.raises(UserError, match="is not a known key"):
        read_claims(file)


def test_a_plain_list_without_statements(tmp_path: Path) -> None:
    file = tmp_path / "plain.yaml"
    file.write_text("serving: []\n")
    with pytest.raises(UserError, match="contains no claim"):
        read_claims(file)
