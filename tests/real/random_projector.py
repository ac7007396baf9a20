"""A vision encoder with random weights for llama.cpp's mtmd: Pixtral's architecture, one layer, whose tokens grow with the image.

Names and shapes as llama.cpp's clip loader asks for them (tools/mtmd/clip.cpp, `PROJECTOR_TYPE_PIXTRAL`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

PATCH, WIDTH, HEADS, FEED_FORWARD = 16, 64, 2, 128


def image_tokens(width: int, height: int) -> int:
    """Pixtral's rule: a token for each patch, and one at the end of each row of patches but the last. Sizes round to whole patches."""
    columns, rows = round(width / PATCH), round(height / PATCH)
    return columns * rows + rows - 1


def write_projector(file: Path, *, hidden: int, seed: int = 0) -> None:
    """hidden: width of the text model."""
    import gguf

    drawn = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return (drawn.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)

    ones = np.ones(WIDTH, np.float32)
    tensors = {
        "v.patch_embd.weight": matrix(WIDTH, 3 * PATCH * PATCH).reshape(WIDTH, 3, PATCH, PATCH), "v.pre_ln.weight": ones,
        "v.blk.0.ln1.weight": ones, "v.blk.0.ln2.weight": ones, "v.blk.0.ffn_up.weight": matrix(FEED_FORWARD, WIDTH),
        "v.blk.0.ffn_gate.weight": matrix(FEED_FORWARD, WIDTH), "v.blk.0.ffn_down.weight": matrix(WIDTH, FEED_FORWARD),
        **{f"v.blk.0.attn_{part}.weight": matrix(WIDTH, WIDTH) for part in ("q", "k", "v", "out")}, "mm.1.weight": matrix(hidden, WIDTH),
        "mm.2.weight": matrix(hidden, hidden), "v.token_embd.img_break": matrix(1, hidden)[0],
    }  # fmt: skip
    writer = gguf.GGUFWriter(file, "clip")
    writer.add_bool("clip.has_vision_encoder", True)  # noqa: FBT003
    writer.add_string("clip.projector_type", "pixtral")
    writer.add_bool("clip.use_silu", True)  # noqa: FBT003
    numbers = {
        "embedding_length": WIDTH, "feed_forward_length": FEED_FORWARD, "block_count": 1, "projection_dim": hidden,
        "attention.head_count": HEADS, "image_size": 1024, "patch_size": PATCH,
    }  # fmt: skip
    for name, number in numbers.items():
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    for name in ("image_mean", "image_std"):
        writer.add_array(f"clip.vision.{name}", [0.5, 0.5, 0.5])
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
