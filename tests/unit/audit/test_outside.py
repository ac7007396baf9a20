"""Statements of public posts that nobody wrote for this project, with the answers of arithmetic: a verdict and the figure that decides."""

from __future__ import annotations

from pathlib import Path

import pytest
from enginebench.audit.finding import Finding
from enginebench.audit.physics import Physics
from enginebench.audit.reading import read_claims
from enginebench.audit.statements import judge_all

FILE = Path(__file__).with_name("outside.yaml")

ANSWERS = {
    # 70.6 GB at 2,039 GB/s are 28.9 steps/s: 16 streams make 462 tok/s
    "r1-70b-h100-pcie": ("impossible as stated", "at most 469.4 tok/s"),
    "h100-pcie-bandwidth": ("inconsistent", "has 2,039 GB/s, the text states 3350"),
    "70b-h100": (
        "needs batch >= 2",
        "one stream reaches at most 48 tok/s",
    ),  # 3,350 / (70.6 - half of the head - 0.05); 2.00 / (85 x 3600) x 1e6 = 6.54
    "70b-h200": ("needs batch >= 3", "one stream reaches at most 69 tok/s"),  # 4,800 / 70.6
    "v3-one-h100": ("impossible as stated", "the weights take 351.5 GB, 1xh100 has 85.5 GB"),
    "scout-mi300x": ("inconsistent", "16 streams at 16 ms per token give 1,000 tok/s, not 2,200"),
    "maverick-mlx": ("plausible", "56% of the 89.92 tok/s"),
    "qwen30-4090": ("plausible", "37% of the 525.1 tok/s"),
    "qwen30-cpu": ("plausible", "47% of the 22.38 tok/s"),  # 42.7 GB/s x 95 %, 1.92 GB a token less 0.11 of a cache
    "r1-ktransformers": ("plausible", "needs 204 GB/s (the stated 600)"),
    "r1-gaming-pc": ("plausible", "needs 29 GB/s (the stated 76.8)"),
    "oss20-pro6000": ("plausible", "27% of the 2,380 tok/s"),
    "ktransformers: ratio 1": ("plausible", "286.55 / 10.31 = 28x"),
    "ktransformers: ratio 2": ("plausible", "= 3.04x"),
    "millstone: ratio 3": ("inconsistent", "642.5 / 250 = 2.57x, not 3.30x"),
    "nelsahost: mixtral-8x7b in q4_k_m": ("inconsistent", "take 28.3 GB; 23.4 GB would be 4.0 bits"),
    "nelsahost-22b: mixtral-8x22b in f16": ("plausible", "281.2 GB"),
    "gigagpu-4090: mixtral-8x7b in awq": ("inconsistent", "take 24.7 GB; 14 GB would be 2.4 bits"),
    "canitrun: mixtral-8x7b in f16": ("plausible", "93.4 GB"),
    "canitrun: mixtral-8x7b in q8_0": ("plausible", "49.6 GB"),
    "canitrun-oss: gpt-oss-120b in f16": ("plausible", "233.7 GB"),
    "neuralbase-scout: facts of llama4-scout": ("inconsistent", "107.8B parameters, not 40B"),
    "magicat: facts of llama4-maverick": ("plausible", "agrees"),
    "faraday: facts of llama4-scout": ("plausible", "agrees"),
    "nelsahost: mixtral-8x7b on 1xrtx-4090": ("impossible as stated", "28.3 GB, 1xrtx-4090 has 25.8 GB"),
    "gigagpu-quant: mixtral-8x7b on 2xrtx-5090": ("impossible as stated", "93.4 GB, 2xrtx-5090 has 68.4 GB"),
    "gigagpu-quant: mixtral-8x7b on 4xrtx-3090": ("plausible", "93.4 GB, 4xrtx-3090 has 103.1 GB"),
    "milvus: gpt-oss-120b on 1xh100": ("plausible", "65.2 GB, 1xh100 has 85.5 GB"),
    "milvus: gpt-oss-20b on 16 GB": ("plausible", "13.8 GB"),
    "milvus: gpt-oss-120b on h100": ("plausible", "3 hold them, and tensor parallelism takes 4"),
    "milvus: gpt-oss-120b on h200": ("plausible", "2 hold them"),
    "inferbase: deepseek-v3 on 8xh100": ("plausible", "673.0 GB, 8xh100 has 684.2 GB"),
    "inferbase: deepseek-v3 on 8xh100 (2)": ("plausible", "cache 4.6 GB"),
    "neuralbase-v3: deepseek-v3 on 16 GB": ("impossible as stated", "351.5 GB, 16 GB are stated"),
    "magicat: llama4-scout on 1xh100": ("plausible", "59.1 GB"),
    "magicat: llama4-maverick on 1xh100": ("plausible", "801.4 GB"),
    "hn-mixtral: an expert of mixtral-8x7b": ("inconsistent", "5.64 B parameters"),  # 3 x 4096 x 14336 x 32 layers
    "inventivehq: compute of qwen3-30b-a3b": ("plausible", "9.11x to 11x less"),
    "tooljolt: KV cache of deepseek-v3": ("plausible", "70.3 KB"),  # 576 x 61 x 2 bytes are 68.6 KiB
    "provide: KV cache of deepseek-v3": ("plausible", "9.21 GB"),
    "canitrun: KV cache of mixtral-8x7b": ("plausible", "1.07 GB"),
    "canitrun-oss: KV cache of gpt-oss-120b": ("plausible", "0.604 without sliding windows"),
    "inferbase: KV cache of deepseek-v3": ("inconsistent", "4.61 GB, not 32 GB"),
    "faraday: KV cache of llama4-scout": ("inconsistent", "(41 without sliding windows), not 320 GB"),
}


@pytest.fixture(scope="module")
def findings() -> dict[str, Finding]:
    return {finding.id: finding for finding in judge_all(read_claims(FILE), Physics())}


@pytest.mark.parametrize("name", ANSWERS)
def test_a_statement_from_outside_gets_the_answer_of_arithmetic(findings: dict[str, Finding], name: str) -> None:
    verdict, figure = ANSWERS[name]
    assert findings[name].text == verdict
    assert figure in findings[name].reasons[0]


def test_every_statement_from_outside_has_its_answer_and_its_source(findings: dict[str, Finding]) -> None:
    assert set(findings) == set(ANSWERS)
    assert all(source.url for source in read_claims(FILE).sources.values())
