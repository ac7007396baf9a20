"""Images against a real multimodal server: llama.cpp's mtmd with a vision encoder of random weights.

The server counts what the architecture's rule says for each size, on top of the tokens of the text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .random_projector import image_tokens, write_projector

pytestmark = [pytest.mark.real, pytest.mark.long, pytest.mark.timeout(600)]

TINY = "{architecture: llama, experts: 1, top_k: 1, layers: 2, hidden: 128, heads: 4, kv_heads: 2, head_dim: 32}"
SIZES = {"64x64": (64, 64), "128x96": (128, 96), "320x160": (320, 160)}
END = 9
"""Tokens of '[IMG_END]', which llama.cpp writes after an image, in the vocabulary of random weights."""


def scenario(projector: Path, loads: str) -> str:
    entry = f"{{engine: llamacpp, model: tiny, precision: f32, options: {{threads: 1, mmproj: {projector}}}}}"
    return f"name: i\nmodels:\n  tiny: {{random_weights: {TINY}}}\ndeployments: [{entry}]\nloads: [{loads}]\n"


def load(api: str, images: int, size: str) -> str:
    length = "input_tokens: 48, output_tokens: 4, requests: 6, concurrency: 2, warmup_requests: 1"
    return f"{{{length}, api: {api}, images: {images}, image_size: {size}}}"


def test_llamacpp_counts_what_the_model_makes_of_an_image(
    need: Callable[[str], None], measure: Callable[[str], Any], tmp_path: Path
) -> None:
    need("llamacpp")
    write_projector(tmp_path / "eyes.gguf", hidden=128)
    loads = [
        load("chat", 0, "64x64"),
        *(load("chat", 1, size) for size in SIZES),
        load("chat", 2, "128x96"),
        load("messages", 1, "64x64"),
        load("responses", 1, "64x64"),
    ]
    stored, analysis = measure(scenario(tmp_path / "eyes.gguf", ", ".join(loads)))
    found = {}
    for row in analysis.rows:
        assert row.status == "ok", row.reasons
        (cell,) = row.cells
        samples = stored.samples(cell.record.id)
        assert len(samples) == 6
        assert set(samples.output_tokens.tolist()) == {4}
        assert not {reason.check.id for reason in cell.reasons} & {"prompt_mismatch", "length_mismatch", "failed_requests"}
        assert row.figures["ttft_p50"].value > 0
        found[row.load.api, row.load.images, row.load.image_size] = set(samples.input_tokens.tolist())
        if row.load.images:
            assert row.figures["image_tokens"].value == image_tokens(*SIZES[row.load.image_size]) + END
    text = 48
    assert found["chat", 0, "512x512"] == {text}
    for size, (width, height) in SIZES.items():
        assert found["chat", 1, size] == {text + image_tokens(width, height) + END}, size
    assert found["chat", 2, "128x96"] == {text + 2 * (image_tokens(128, 96) + END)}
    assert found["messages", 1, "64x64"] == found["responses", 1, "64x64"] == {text + image_tokens(64, 64) + END}
