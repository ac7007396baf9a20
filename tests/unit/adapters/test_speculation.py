"""Each adapter maps the neutral `speculation` to its engine's words, or refuses it with a sentence. The real parsers read the words in
tests/contracts; here are the figures: what a forced acceptance of 0.7 becomes, and what counters say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from enginebench.adapter import JSON, Adapter, Install, Launch, Parallelism, Reply, Site, Speculation, Unsupported
from enginebench.domain import Deployment
from enginebench.engines.registry import discover

REGISTRY = discover()
DRAFT = Speculation("draft", 3, "small", "bf16")
NGRAM = Speculation("ngram", 4, match=3)
FORCED = Speculation("eagle3", 3, "head", "bf16", acceptance=0.7)
PRECISIONS = {"llamacpp": "q8_0", "exllamav3": "exl3_4bpw", "ollama": "q8_0", "fake": "none", "mlx": "4bit"}


def start(
    engine: str, asked: Speculation, options: Mapping[str, JSON] | None = None, runtime: str = "process", variant: str = ""
) -> Launch:
    adapter: Adapter = REGISTRY[engine]
    deployment = Deployment(
        engine, "m", PRECISIONS.get(engine, "bf16"), "/m/big", runtime, max_context=512, options=options or {}, speculation=asked
    )  # fmt: skip
    adapter.check_neutral(deployment)
    install = Install(variant or engine, "0", python=Path("/env/bin/python"), binary=Path("/env/bin/x"))
    return adapter.launch(deployment, install, Site("127.0.0.1", 1, Path("/site"), "/m/big", (2, 3), "/m/small" if asked.draft else ""))


def flags(launch: Launch, *names: str) -> list[str]:
    return [launch.argv[launch.argv.index(name) + 1] for name in names]


def test_vllm() -> None:
    found = json.loads(flags(start("vllm", FORCED), "--speculative-config")[0])
    assert found == {
        "method": "eagle3", "num_speculative_tokens": 3, "model": "/m/small", "rejection_sample_method": "synthetic",
        "synthetic_acceptance_rates": pytest.approx([0.7, 0.49, 0.343]),
    }  # fmt: skip
    found = json.loads(flags(start("vllm", NGRAM), "--speculative-config")[0])
    assert found == {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 3, "prompt_lookup_max": 3}


def test_sglang() -> None:
    launch = start("sglang", FORCED)
    names = ("--speculative-algorithm", "--speculative-draft-model-path", "--speculative-num-steps", "--speculative-eagle-topk")
    assert flags(launch, *names, "--speculative-num-draft-tokens") == ["EAGLE3", "/m/small", "3", "1", "4"]
    assert launch.env["SGLANG_SIMULATE_ACC_LEN"] == "2.533", "1 + 0.7 + 0.49 + 0.343"
    assert launch.env["SGLANG_SIMULATE_ACC_METHOD"] == "match-expected"
    ngram = start("sglang", NGRAM)
    assert flags(ngram, "--speculative-algorithm", "--speculative-num-draft-tokens", "--speculative-ngram-max-bfs-breadth") == [
        "NGRAM",
        "5",
        "1",
    ]
    assert "--speculative-num-steps" not in ngram.argv


def test_tensorrt_llm() -> None:
    wanted = json.loads(start("trtllm", DRAFT).files["llm.yaml"])["speculative_config"]
    assert wanted == {"decoding_type": "Draft_Target", "max_draft_len": 3, "speculative_model": "/m/small"}
    everything = start("trtllm", Speculation("eagle3", 3, "head", "bf16", acceptance=1.0))
    assert everything.env["TLLM_SPEC_DECODE_FORCE_NUM_ACCEPTED_TOKENS"] == "3"
    with pytest.raises(Unsupported, match="a whole number of accepted tokens"):
        start("trtllm", FORCED)


@pytest.mark.parametrize("variant", ["xllamacpp", "llama-server"])
def test_llamacpp(variant: str) -> None:
    launch = start("llamacpp", Speculation("draft", 3, "small", "q8_0", acceptance=0.7), variant=variant)
    names = ("--spec-type", "--spec-draft-model", "--spec-draft-n-max", "--spec-draft-p-min", "--spec-synth-rates")
    assert flags(launch, *names) == ["draft-simple", "/m/small", "3", "0", "0.7,0.49,0.343"]
    found = flags(start("llamacpp", NGRAM, variant=variant), "--spec-type", "--spec-ngram-simple-size-n", "--spec-ngram-simple-size-m")
    assert found == ["ngram-simple", "3", "4"]


def test_llama_cpp_python_looks_up_two_tokens() -> None:
    options: dict[str, JSON] = {"server": "llama-cpp-python"}
    launch = start("llamacpp", Speculation("ngram", 4, match=2), options, variant="llama-cpp-python")
    assert flags(launch, "--draft_model", "--draft_model_num_pred_tokens") == ["prompt-lookup-decoding", "4"]
    for asked, why in (
        (NGRAM, "write match: 2"),
        (DRAFT, "by ngram only"),
        (Speculation("ngram", 4, match=2, acceptance=0.7), "cannot force"),
    ):
        with pytest.raises(Unsupported, match=why):
            start("llamacpp", asked, options, variant="llama-cpp-python")


def test_the_others() -> None:
    assert flags(start("mlx", DRAFT), "--draft-model", "--num-draft-tokens") == ["/m/small", "3"]
    assert flags(start("exllamav3", DRAFT), "-dm", "-ndt") == ["/m/small", "3"]
    assert flags(start("exllamav3", NGRAM), "-ngram", "-ndt") == ["3", "4"]
    assert "-mtp" in start("exllamav3", Speculation("mtp", 2)).argv
    offline = start("transformers", DRAFT, runtime="in-process")
    assert flags(offline, "--assistant-model", "--num-assistant-tokens") == ["/m/small", "3"]
    offline = start("transformers", NGRAM, runtime="in-process")
    assert flags(offline, "--prompt-lookup-num-tokens", "--max-matching-ngram-size") == ["4", "3"]


@pytest.mark.parametrize(
    ("engine", "asked", "why"),
    [
        ("ollama", NGRAM, "Ollama has no speculative decoding here"),
        ("fake", NGRAM, "has no speculative decoding here"),
        ("mlx", NGRAM, "MLX has no speculation by ngram here; it has draft"),
        ("llamacpp", Speculation("eagle", 3, "head", "bf16"), "no speculation by eagle here"),
        ("sglang", Speculation("ngram", 4, match=3, acceptance=0.7), "cannot force the acceptance of ngram"),
        ("exllamav3", Speculation("mtp", 4, acceptance=0.7), "cannot force the acceptance of mtp"),
        ("transformers", DRAFT, "not in its server"),
    ],
)
def test_what_is_refused(engine: str, asked: Speculation, why: str) -> None:
    with pytest.raises(Unsupported, match=why):
        start(engine, asked)


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("vllm", {"speculative": {"method": "ngram", "num_speculative_tokens": 4}}),
        ("sglang", {"speculative": {"algorithm": "NGRAM"}}),
        ("trtllm", {"speculative": {"decoding_type": "NGram", "max_draft_len": 4}}),
        ("exllamav3", {"ngram_match": 3}),
    ],
)
def test_both_words_for_one_thing_are_refused(engine: str, options: Mapping[str, JSON]) -> None:
    with pytest.raises(Unsupported, match="say the same: write one of them"):
        start(engine, NGRAM, options)


def test_llamacpp_counts_by_position() -> None:
    text = (
        "llamacpp:prompt_tokens_total 10\nllamacpp:spec_decode_num_drafts_total 20\nllamacpp:spec_decode_num_draft_tokens_total 60\n"
        "llamacpp:spec_decode_num_accepted_tokens_total 33\n"
        'llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 18\n'
        'llamacpp:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 15\n'
    )
    found = REGISTRY["llamacpp"].counters(lambda path: Reply(200, text.encode()) if path == "/metrics" else Reply(404))
    assert {name: found[name] for name in ("drafts", "draft_tokens", "accepted_tokens", "accepted_at_1", "accepted_at_2")} == {
        "drafts": 20, "draft_tokens": 60, "accepted_tokens": 33, "accepted_at_1": 18, "accepted_at_2": 15,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("engine", "options", "ep", "why"),
    [
        ("sglang", {"routing": "round_robin"}, 1, "without ep each step uses the same experts again"),
        ("sglang", {"routing": "round_robin"}, 4, ""),
        ("sglang", {"routing": "round_robin", "eplb": {}}, 4, "eplb moves experts"),
        ("sglang", {"routing": "uniform"}, 1, ""),
        ("vllm", {"routing": "normal_routing"}, 1, "a few of them get most tokens"),
        ("vllm", {"routing": "uniform_random"}, 4, ""),
        ("vllm", {}, 1, ""),
    ],
)
def test_a_forced_routing_counts_as_even_only_where_it_is(engine: str, options: Mapping[str, JSON], ep: int, why: str) -> None:
    deployment = Deployment(engine, "m", "bf16", "/m", parallelism=Parallelism(tp=4, ep=ep), options=options)
    found = REGISTRY[engine].traits(deployment).uneven_routing
    assert (why in found) if why else found == ""
