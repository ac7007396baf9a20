"""Names of weight precisions that several engines share. Does not know engines or sizes (see `enginebench.physics.precision`)."""

from collections.abc import Mapping

TORCH_DTYPES: Mapping[str, str] = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}
"""Precisions of unquantized weights -> torch's names."""

UNSTATED = "unstated"
"""Stored for an attached server whose precision the scenario leaves out. Never shown: what the server reports is."""

# fmt: off
GGUF_PRECISIONS = frozenset({
    "f32", "f16", "bf16", "mxfp4", "nvfp4", "tq1_0", "tq2_0", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0",
    "q6_k", "q5_k_m", "q5_k_s", "q4_k_m", "q4_k_s", "q3_k_l", "q3_k_m", "q3_k_s", "q2_k", "q2_k_s",
    "iq4_nl", "iq4_xs", "iq3_m", "iq3_s", "iq3_xs", "iq3_xxs", "iq2_m", "iq2_s", "iq2_xs", "iq2_xxs", "iq1_m", "iq1_s",
})
# fmt: on
"""File types of llama.cpp."""


def from_torch(dtype: str | None) -> str | None:
    """'torch.bfloat16' or 'bfloat16' -> 'bf16'; any other name is returned unchanged."""
    return next((name for name, theirs in TORCH_DTYPES.items() if dtype in (theirs, f"torch.{theirs}")), dtype)
