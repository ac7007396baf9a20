"""Makes a small mixture of experts whose routers are trained, as safetensors and GGUF: `python benchmarks/trained_moe.py FOLDER`.

Four layers of 16 experts, two for each token, trained for 450 steps on the two texts that ship with the project (about eight minutes on a
CPU). For docs/routing.md: random weights have routing that is nearly even. Needs `bench engines install transformers`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from enginebench.checkpoints import RandomMoE, read_vocabulary
from enginebench.checkpoints.families.base import Array, Tensor
from enginebench.checkpoints.gguf_file import write_gguf
from enginebench.checkpoints.hf_folder import write_hf_folder
from enginebench.engines.installed import installs_of
from enginebench.engines.registry import discover
from enginebench.workload.texts import code, natural

SHAPE = {"layers": 4, "hidden": 128, "heads": 4, "kv_heads": 2, "head_dim": 32, "experts": 16, "top_k": 2, "expert_intermediate": 96}
CODE = 400_000
"""Characters of code, five times as many as tokens of text."""
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_INNER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm", "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm", "ffn_gate_inp": "mlp.gate",
}  # fmt: skip
_EXPERTS = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}


class Trained(RandomMoE):
    """The random model's shape with the weights of a safetensors file in f32."""

    file: Path

    def weights(self, tensor: Tensor) -> Array:
        *block, kind, _ = tensor.name.split(".")
        if not block:
            return self._stored(f"{_OUTER[kind]}.weight")
        layer = f"model.layers.{block[1]}"
        if kind not in _EXPERTS:
            return self._stored(f"{layer}.{_INNER[kind]}.weight")
        each = (self._stored(f"{layer}.mlp.experts.{expert}.{_EXPERTS[kind]}.weight") for expert in range(self.experts))
        return np.stack(list(each))

    def _stored(self, name: str) -> Array:
        with self.file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            about: dict[str, Any] = json.loads(opened.read(length))[name]
            opened.seek(8 + length + about["data_offsets"][0])
            values = np.frombuffer(opened.read(about["data_offsets"][1] - about["data_offsets"][0]), "<f4")
        return values.reshape(about["shape"])


def main(folder: Path) -> None:
    write_hf_folder(RandomMoE("qwen3moe", context=256, **SHAPE), "f32", folder / "untrained")
    tokenizer = read_vocabulary(folder / "untrained").tokenizer
    assert tokenizer is not None  # noqa: S101  # the random models' own
    for name, text in (("text", natural()), ("code", code()[:CODE])):
        np.save(folder / f"{name}.npy", np.array(tokenizer.encode(text, add_special_tokens=False).ids, np.int64))
    python = installs_of(discover()["transformers"])[0].python
    subprocess.run([str(python), str(Path(__file__).with_name("trained_moe_fit.py")), str(folder)], check=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "trained" / name).write_bytes((folder / "untrained" / name).read_bytes())
    model = Trained("qwen3moe", context=256, **SHAPE)
    object.__setattr__(model, "file", folder / "trained" / "model.safetensors")
    for precision in ("f16", "q8_0", "q4_0"):
        write_gguf(model, precision, folder / f"trained-{precision}.gguf")
    print(f"{model.parameters / 1e6:.1f} M parameters, in {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
