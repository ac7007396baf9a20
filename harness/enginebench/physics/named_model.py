"""From whatever a person may call a model to its weights: a name of the catalogue, a file, a folder, or a `random:` reference.

Reads headers only, never a weight.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from enginebench.checkpoints.random_moe import SCHEME as RANDOM
from enginebench.checkpoints.random_moe import RandomMoE
from enginebench.errors import UserError, did_you_mean
from enginebench.physics.catalogue import find_model, models
from enginebench.physics.config import from_config
from enginebench.physics.files import read_file
from enginebench.physics.geometry import Model
from enginebench.physics.weights import Weights, weigh


def read_weights(reference: str, name: str | None = None) -> Weights:
    """The weights that a person names: of the catalogue, a config.json, a folder of safetensors, a .gguf file, or random:... weights.

    name: a precision. None: the one it is published in, or the real sizes in the file. With a name, a file gives the dimensions only.
    UserError where nothing of that name can be read.
    """
    path = Path(reference).expanduser()
    if reference.startswith(RANDOM):
        return weigh(random_model(reference), name or "bf16")
    if path.exists():
        found = read_file(path)
        return found if name is None else weigh(found.model, name)
    entry = find_model(reference)
    if entry is None:
        raise UserError(
            f"no model '{reference}': neither a name of the catalogue nor a file or folder",
            advice=did_you_mean(reference.lower(), models()),
        )
    return replace(weigh(entry.model, name or entry.native), notes=(entry.note,) if entry.note else ())


def random_model(reference: str) -> Model:
    """The model behind a `random:` reference; nothing is written."""
    random = RandomMoE.from_reference(reference)
    shapes = {tensor.name: tensor.shape for tensor in random.tensors()}
    config: dict[str, Any] = {
        "model_type": random.family.hf_type,
        "vocab_size": shapes["token_embd.weight"][0],
        "hidden_size": random.hidden,
        "num_hidden_layers": random.layers,
        "num_attention_heads": random.heads,
        "num_key_value_heads": random.kv_heads,
        "head_dim": random.head_dim,
        "intermediate_size": random.expert_intermediate,
        "max_position_embeddings": random.context,
        **random.family.config(random),
    }
    return from_config(f"random-{random.architecture}", config)
